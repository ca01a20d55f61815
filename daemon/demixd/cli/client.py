"""The other side of the protocol: what any program can do with files alone. No torch, no ledger."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from demixd.protocol.status import Sidecar
from demixd.spool import documents, nofollow
from demixd.spool.files import rename_new
from demixd.spool.tree import DAEMON, Spool, short


def read(path: str | Path) -> dict[str, Any] | None:
    """A status file, or None where it is not there or none."""
    return documents.read(path, dict[str, Any])


def daemon(spool: Spool) -> dict[str, Any] | None:
    """The daemon's last heartbeat; whether it still beats is seen by reading twice."""
    return read(spool.status / DAEMON)


def sidecars(spool: Spool) -> Iterator[dict[str, Any]]:
    """Every song's sidecar, by path; none where there is no status/ yet. Raises OSError where it cannot be read."""
    for path, _ in sorted(documents.sidecars(spool.status)) if spool.status.exists() else ():
        document = read(path)
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert(document, Sidecar)
            yield document or {}


def drop(spool: Spool, song: Path, name: str | None = None, options: bytes | None = None) -> str:
    """Put a copy of `song` into the inbox (as `name`) the best way: under a dot name, then by one rename. Its name there.

    `options` are its option file, which is there before the song is. Raises OSError; `FileExistsError` where the inbox
    has the name, or such an option file, already. Nothing is left behind then, and no inbox is made.
    """
    name = name or song.name
    target, told = spool.song(name), spool.options(name)
    for path in (target, told) if options is not None else (target,):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with nofollow.reach(spool.inbox, target.parent, make=spool.inbox, follow=True):
        pass  # the folders are there now
    # A name of its own, so that two who drop the same song do not write into one file.
    part = target.parent / f".{short(target.name)}.{secrets.token_hex(4)}.part"
    part_told = part.with_suffix(".options.part")
    try:
        shutil.copyfile(song, part)
        if options is not None:
            part_told.write_bytes(options)
            _appear(part_told, told)
        try:
            _appear(part, target)
        except OSError:
            if options is not None:
                told.unlink(missing_ok=True)
            raise
    finally:
        part.unlink(missing_ok=True)
        part_told.unlink(missing_ok=True)
    return name


def _appear(part: Path, target: Path) -> None:
    """The one line of the protocol that matters: rename, without replacing wherever the filesystem can tell."""
    try:
        rename_new(part, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        part.rename(target)  # neither RENAME_NOREPLACE nor links: that the name was free has been looked at


def cancel(spool: Spool, name: str) -> None:
    """Ask for the job of `name` to stop. Raises OSError."""
    spool.cancel(name).touch()


def cancel_all(spool: Spool) -> None:
    """Ask for every job to stop. Raises OSError."""
    spool.cancel_all.touch()


class RefusedError(Exception):
    """What was asked for cannot be done; the message is a sentence with the remedy."""
