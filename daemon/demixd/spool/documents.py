"""Reading JSON where others may write: status/ and the outbox lie on the share.

Nothing is followed, waited for (a pipe) or read without end, and what is not what it should be is passed over: it is
somebody else's.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from demixd.spool.files import open_file
from demixd.spool.tree import DAEMON, INBOX, SIDECAR

T = TypeVar("T")

LARGEST = 64 << 20
"""Bytes. A sidecar has two thousand and the heartbeat a hundred for each song in the queue; what is larger is not ours."""


def read(path: str | Path, kind: type[T]) -> T | None:
    """The document at `path`; None where there is none that is a `kind`. Fields that `kind` does not know are let pass."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
                return None
            return msgspec.json.decode(file.read(LARGEST), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def sidecars(status: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file in `status` that can be a sidecar. Raises OSError where the folder itself cannot be read.

    Paths are text: there may be 10,000, and a Path for each costs more than the listing.
    """
    return _below(os.fspath(status), at_root=True)


def _below(folder: str, *, at_root: bool) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, at_root=False)
            elif _is_name(entry.name, at_root=at_root):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield entry.path, found
        except OSError:
            continue  # It went since it was listed, or is closed to us: the rest can still be seen.


def _is_name(leaf: str, *, at_root: bool) -> bool:
    return leaf.endswith(SIDECAR) and not leaf.startswith(".") and not (at_root and leaf in (DAEMON, INBOX))
