"""Reading JSON documents in folders that others may write to: status/ and the outbox lie on the share.

No link is followed, no FIFO waited for, and no more than `largest` bytes read. A file that is no document of the expected
type is skipped: it is somebody else's.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from demixd.spool.files import open_file
from demixd.spool.tree import DAEMON, DEEPEST, INBOX, SIDECAR

T = TypeVar("T")

LARGEST = 1 << 20
"""Bytes of a sidecar or a manifest. Most have two thousand; those of 64 stems (no song has more), with names, paths and a tag
of which each character is escaped, a quarter of this: a larger file is not ours."""

LARGEST_LIST = 64 << 20
"""Bytes of the heartbeat and of `_inbox.json`, which have a hundred for each song in the queue, or entry of the inbox."""


def read(path: str | Path, kind: type[T], *, largest: int = LARGEST) -> T | None:
    """The document at `path`; None where there is none of the type `kind`. Fields that `kind` does not have are ignored."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
                return None
            return msgspec.json.decode(file.read(largest), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _ignore() -> None:
    """What a short walk does between its entries."""


def sidecars(status: Path, go_on: Callable[[], None] = _ignore) -> Iterator[tuple[str, os.stat_result]]:
    """The path and stat(2) of every file in `status` that is named as a sidecar. Raises OSError for `status` itself.

    `go_on` is called with every entry that is walked over.
    Paths are text: there may be 10,000, and to make a Path of each takes longer than the listing.
    """
    root = os.fspath(status)
    for entry in below(root, go_on=go_on):
        with contextlib.suppress(OSError):  # removed since it was listed
            if _is_name(entry.name, at_root=entry.path.rpartition("/")[0] == root):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield entry.path, found


def below(root: str, *, folders: bool = False, go_on: Callable[[], None] = _ignore) -> Iterator[os.DirEntry[str]]:
    """Every entry below `root` but folders, or the `folders` alone; no deeper than an inbox is walked.

    `go_on` is called with each entry that is walked over. Raises OSError for `root` itself.
    Not by recursion: whoever may write there can put a thousand folders into each other.
    """
    left = [(root, 0)]
    while left:
        folder, depth = left.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError:
            if depth == 0:
                raise
            continue  # removed since it was listed, or not readable by this user: the others are
        for entry in listed:
            go_on()
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
            except OSError:
                continue
            if is_folder is folders:
                yield entry
            if is_folder and depth < DEEPEST:
                left.append((entry.path, depth + 1))


def _is_name(leaf: str, *, at_root: bool) -> bool:
    is_hidden = leaf.startswith(".") and not leaf.startswith("..")
    return leaf.endswith(SIDECAR) and not is_hidden and not (at_root and leaf in (DAEMON, INBOX))
