"""The snapshot: a private copy of a song, made while nobody may change it, and the only thing that is ever decoded."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from enum import StrEnum
from io import FileIO
from pathlib import Path

import msgspec

from demixd.protocol.identity import Identity
from demixd.protocol.job import Reason
from demixd.spool import nofollow, room
from demixd.spool.files import write_all
from demixd.spool.leases import writer_of

CHUNK = 1 << 20

FICLONE = 0x40049409
"""ioctl_ficlone(2): share the blocks of another file, on btrfs, XFS and bcachefs."""


class Outcome(StrEnum):
    TAKEN = "taken"
    GONE = "gone"
    CHANGED = "changed"
    """It is not what was accepted any more."""
    BUSY = "busy"
    """It is, but somebody has it open for writing again."""
    STOPPED = "stopped"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a copy. `has_hole`: a part of the file was never written."""

    outcome: Outcome
    sha256: str | None = None
    has_hole: bool = False


def take(
    song: Path,
    copy: Path,
    identity: Identity,
    stopped: Callable[[], bool],
    *,
    inbox: Path | None = None,
    work: Path | None = None,
) -> Snapshot:
    """Copy `song` to `copy`, hashing on the way, and look at its identity before and after.

    `inbox` and `work` are the folders below which no link is followed; those of the two files, where none is given.
    Raises OSError, and NO_SPACE or TOO_LARGE where the disk has no room for a copy.
    """
    try:
        handle = nofollow.read_file(inbox or song.parent, song)
    except FileNotFoundError:
        return Snapshot(outcome=Outcome.GONE)
    except BlockingIOError:
        return Snapshot(outcome=Outcome.BUSY)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            raise
        return Snapshot(outcome=Outcome.CHANGED)  # a link or a socket by now, or its folder is
    with FileIO(handle, "rb") as source, _new(work or copy.parent, copy) as target:
        if Identity.of(os.fstat(handle)) != identity:
            return Snapshot(outcome=Outcome.CHANGED)
        if writer_of(handle) is Reason.OPEN_FOR_WRITING:
            return Snapshot(outcome=Outcome.BUSY)
        has_hole = hole_in(handle, identity.size)
        # A clone cannot be torn: it is what is hashed then, so that hash and decoder see the same bytes.
        cloned = _cloned(handle, target.fileno())
        if not cloned:
            room.require(target.fileno(), identity.size)
        longest = identity.size
        sha256, size = _copied(target, None, longest, stopped) if cloned else _copied(source, target, longest, stopped)
        if sha256 is None:
            return Snapshot(outcome=Outcome.STOPPED)
        if Identity.of(os.fstat(handle)) != identity or size != identity.size:
            return Snapshot(outcome=Outcome.CHANGED)
    return Snapshot(outcome=Outcome.TAKEN, sha256=sha256, has_hole=has_hole)


def _new(work: Path, copy: Path) -> FileIO:
    with nofollow.reach(work, copy.parent) as folder:
        return FileIO(nofollow.new_file(folder, copy.name), "w+b")


def identity_of(path: Path) -> Identity | None:
    """The identity of a regular file; None where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return Identity.of(status) if stat.S_ISREG(status.st_mode) else None


def still_is(song: Path, identity: Identity, inbox: Path) -> bool:
    """Whether the song is still the file that was copied, and nobody writes to it."""
    try:
        handle = nofollow.read_file(inbox, song)
    except OSError:
        return False
    try:
        return Identity.of(os.fstat(handle)) == identity and writer_of(handle) is not Reason.OPEN_FOR_WRITING
    except OSError:
        return False
    finally:
        nofollow.close(handle)


def hole_in(handle: int, size: int) -> bool:
    """Whether a hole (lseek(2), SEEK_HOLE) lies below the file's size: an upload that was cut off after a preallocation.

    Blocks that were allocated and never written are a hole too, but ext4 and XFS count them as data while zeros that
    somebody has read there are in memory: what is in memory is given up first. Unwritten data is not given up by this.
    """
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        hole = os.lseek(handle, 0, os.SEEK_HOLE)
    except OSError:
        return False  # the filesystem cannot tell
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return hole < size


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False  # another filesystem, or one that does not share blocks
    return True


def _copied(source: FileIO, target: FileIO | None, longest: int, stopped: Callable[[], bool]) -> tuple[str | None, int]:
    """The sha256 of `source` (None where it was stopped) and its size; written to `target` where there is one.

    A file that is longer than `longest` grows faster than it is read, perhaps: it is not read to its end. Raises OSError.
    """
    digest, size = hashlib.sha256(), 0
    watch = room.Watch(target.fileno()) if target is not None else None
    while (chunk := source.read(CHUNK)) and size <= longest:
        if stopped():
            return None, size
        digest.update(chunk)
        size += len(chunk)
        if target is not None and watch is not None:
            write_all(target.fileno(), chunk)
            watch.wrote(len(chunk))
    return digest.hexdigest(), size
