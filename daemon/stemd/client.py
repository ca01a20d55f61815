"""The other side of the protocol: what any program can do with files alone. No torch, no ledger."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from stemd.spool import DAEMON, Spool

POLL_S = 0.2


def read(path: Path) -> dict[str, Any] | None:
    """A status file, or None where it is not there yet."""
    try:
        document = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    return document if isinstance(document, dict) else None


def daemon(spool: Spool) -> dict[str, Any] | None:
    """The daemon's last heartbeat; whether it still beats is seen by reading twice."""
    return read(spool.status / DAEMON)


def sidecars(spool: Spool) -> Iterator[dict[str, Any]]:
    """Every song's sidecar, by path."""
    for path in sorted(spool.status.rglob("*.json")):
        if not path.name.startswith((".", "_")) and (document := read(path)):
            yield document


def drop(spool: Spool, song: Path, name: str | None = None) -> str:
    """Put a copy of `song` into the inbox (as `name`) the best way: under a dot name, then by one rename. Its name there.

    Raises OSError; `FileExistsError` where the inbox has that name already.
    """
    name = name or song.name
    target = spool.inbox / name
    part = spool.inbox / f".{name}.part"
    if target.exists():
        raise FileExistsError(17, "the inbox has a song of that name already", str(target))
    shutil.copyfile(song, part)
    os.rename(part, target)  # noqa: PTH104 - the one line of the protocol that matters, as the README writes it
    return name


def follow(spool: Spool, name: str, before: int) -> Iterator[dict[str, Any]]:
    """The sidecar of `name` whenever it has changed, up to its final state; `before` is the last `seq` of older drops."""
    seq = before
    while True:
        document = read(spool.sidecar(name))
        if document and document["seq"] > seq:
            seq = document["seq"]
            yield document
            if document["state"] in ("done", "failed", "cancelled"):
                return
        time.sleep(POLL_S)


def last_seq(spool: Spool, name: str) -> int:
    document = read(spool.sidecar(name))
    return int(document["seq"]) if document else 0


def cancel(spool: Spool, name: str) -> None:
    """Ask for the job of `name` to stop."""
    path = spool.cancel(name)
    path.touch()
