"""Folders that nobody else may look into: the state folder, `.demixd` in the outbox, and in that a job's own.

What is in one is what this program has put there. Where the folder above it belongs to a share, others may rename it and put
another one in its place: whoever opens it checks the open folder, by owner and mode, and goes on from that descriptor.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from demixd.spool import nofollow
from demixd.spool.mounts import is_remote, mount_of

MODE = 0o700


def keep(folder: Path) -> None:
    """Have a folder of this user alone: made where it is missing, closed to others where it is open to them.

    Raises OSError, EPERM where it is another user's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(MODE)
    with nofollow.reach(folder, folder, follow=True) as handle:
        close_to_others(handle, folder)


def close_to_others(handle: int, folder: Path) -> None:
    """Take from others what they may do in the open folder. Raises OSError, EPERM where it is another user's.

    With S_ISGID, by which results get the share's group, a service that RestrictSUIDSGID= holds (systemd.exec(5)) may change
    no mode: such a folder of a former version stays as it is until systemd/install closes it. A new one has its mode from the
    start.
    """
    status = os.fstat(handle)
    if not _is_ours(status, folder):
        reason = (
            "it belongs to another user, and holds what nobody else may change: give it to demixd's, or move it away"
        )
        raise OSError(errno.EPERM, reason, str(folder))
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        with contextlib.suppress(PermissionError) if mode & stat.S_ISGID else contextlib.nullcontext():
            _by_handle(handle).chmod(mode & ~0o077)


def make(root: Path, folder: Path, inside: Iterable[str]) -> None:
    """Make a private folder below `root`, and empty folders in it. Raises OSError."""
    with nofollow.reach(root, folder.parent) as parent:
        os.mkdir(folder.name, MODE, dir_fd=parent)
    with reach(root, folder) as handle:
        for name in inside:
            os.mkdir(name, dir_fd=handle)


@contextlib.contextmanager
def reach(root: Path, folder: Path) -> Iterator[int]:
    """As `nofollow.reach`, for a private folder. Raises OSError, EPERM where it is not private."""
    with nofollow.reach(root, folder) as handle:
        _require(handle, folder)
        yield handle


@contextlib.contextmanager
def inside(root: Path, folder: Path) -> Iterator[int]:
    """The same for a folder that lies directly in a private one."""
    with reach(root, folder.parent) as private, nofollow.entered(private, folder) as handle:
        yield handle


def _by_handle(handle: int) -> Path:
    """An open folder, for calls that do not take an O_PATH descriptor (proc(5))."""
    return Path(f"/proc/self/fd/{handle}")


def _require(handle: int, folder: Path) -> None:
    """Raise EPERM unless the open folder is ours, and ours alone as far as its filesystem can say so."""
    status = os.fstat(handle)
    if not _is_ours(status, folder) or (stat.S_IMODE(status.st_mode) & 0o077 and _keeps_modes(handle)):
        raise OSError(errno.EPERM, "another folder has been put in the place of demixd's own", str(folder))


def _is_ours(status: os.stat_result, folder: Path) -> bool:
    """Whether the folder is this user's; a network's filesystem may say what it likes of that."""
    return status.st_uid == os.geteuid() or is_remote(mount_of(folder).kind)


def _keeps_modes(handle: int) -> bool:
    """Whether the mode of an open folder can be changed: not on FAT, and on many a network's filesystem. Raises OSError."""
    folder, before = _by_handle(handle), stat.S_IMODE(os.fstat(handle).st_mode)
    folder.chmod(MODE)
    has_changed = stat.S_IMODE(os.fstat(handle).st_mode) != before
    folder.chmod(before)  # or the same folder would be private at the next look, with what others have put into it
    return has_changed
