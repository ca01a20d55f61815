"""Files below a folder that others may write to: reached step by step, and never through a link.

Who may write to a share may put a link in the place of a folder at any moment, also between a look and an open. Then a
path leads out of the spool. So the way is gone from descriptor to descriptor (openat(2), O_NOFOLLOW), and what is made,
renamed or removed is named relative to the last one: whatever becomes of the way meanwhile, it happens there.

A link or a file in the place of a folder is ENOTDIR.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

REMOVALS = 5
"""How often a folder is removed at most: who works in it makes one file and takes one away, at most."""

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


@contextlib.contextmanager
def reach(root: Path, folder: Path, *, make: Path | None = None, follow: bool = False) -> Iterator[int]:
    """A descriptor of `folder`, which is `root` or below it. Raises OSError.

    What is missing below `make` is made. `follow`: `root` itself may be a link.
    """
    place, handle = root, _opened(root, None, follow=follow)
    try:
        for part in _steps(root, folder):
            may_make = make is not None and place.is_relative_to(make)
            place /= part
            inner = _entered(handle, place, may_make=may_make)
            close(handle)
            handle = inner
        yield handle
    finally:
        close(handle)


def _steps(root: Path, folder: Path) -> tuple[str, ...]:
    steps = folder.relative_to(root).parts if folder.is_relative_to(root) else ("..",)
    if ".." in steps:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(folder))
    return steps


def _entered(handle: int, place: Path, *, may_make: bool) -> int:
    try:
        return _opened(place, handle)
    except FileNotFoundError:
        if not may_make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(place.name, dir_fd=handle)
    return _opened(place, handle)


def _opened(place: Path, within: int | None, *, follow: bool = False) -> int:
    try:
        flags = _FOLDER if follow else _FOLDER | os.O_NOFOLLOW
        return os.open(place if within is None else place.name, flags, dir_fd=within)
    except OSError as error:
        number = errno.ENOTDIR if error.errno == errno.ELOOP else error.errno
        raise OSError(number, os.strerror(number or 0), str(place)) from None


def close(handle: int) -> None:
    """close(2), which frees the descriptor whatever it says: what is written counts once fsync(2) has said so."""
    with contextlib.suppress(OSError):
        os.close(handle)


def new_file(folder: int, leaf: str) -> int:
    """A descriptor to write a file that nobody else has, in place of whatever had the name. Raises OSError.

    O_EXCL follows no link, and what is emptied by O_TRUNC may be another file with a second name here.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(leaf, dir_fd=folder)
    return os.open(leaf, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)


def read_file(root: Path, path: Path) -> int:
    """A descriptor to read the file `path` below `root`: never what a link points to, never waiting for a FIFO's other end."""
    with reach(root, path.parent, follow=True) as folder:
        return os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)


def remove_file(root: Path, path: Path, *, follow: bool = False) -> None:
    """Remove the file `path` below `root`; none is fine. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), reach(root, path.parent, follow=follow) as folder:
        os.unlink(path.name, dir_fd=folder)


def remove_folder(root: Path, path: Path) -> None:
    """Remove the empty folder `path` below `root`. Raises OSError."""
    with reach(root, path.parent) as folder:
        os.rmdir(path.name, dir_fd=folder)


def remove_tree(root: Path, path: Path, *, follow: bool = False) -> bool:
    """Remove `path` below `root` with all that is in it; a link goes alone. Whether it was there. Raises OSError.

    Also where somebody who has not heard yet that it is over makes or removes a last file in it.
    """
    with contextlib.suppress(FileNotFoundError), reach(root, path.parent, follow=follow) as folder:
        for _ in range(REMOVALS):
            if not stat.S_ISDIR(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(path.name, dir_fd=folder)
                return True
            try:
                shutil.rmtree(path.name, dir_fd=folder)
            except FileNotFoundError:
                continue
            except RecursionError:
                raise OSError(errno.ELOOP, "folders lie too deep in each other", str(path)) from None
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return True
    return False


def folders_in(root: Path, folder: Path) -> set[str]:
    """The names of the folders in `folder`, which is `root` or below it; none where it is not there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), reach(root, folder) as handle:
        listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
        try:
            with os.scandir(listed) as entries:
                return {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        finally:
            close(listed)
    return set()


def is_there(path: Path, *, in_doubt: bool) -> bool:
    """Whether anything has that name; `in_doubt` where the filesystem fails at it, which ends nothing."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return in_doubt
    return True


class Pin:
    """A folder that stays the one it is now, whatever becomes of its path, for as long as this object is there.

    `path` goes by way of its descriptor (proc(5)), and can be used as any path. Where there is no /proc it is the plain
    one. `root` is where links begin to matter.
    """

    def __init__(self, root: Path, folder: Path, *, make: Path | None = None, follow: bool = False) -> None:
        with reach(root, folder, make=make, follow=follow) as handle:
            self._handle = os.dup(handle)
        by_handle = Path(f"/proc/self/fd/{self._handle}")
        self.path = by_handle if by_handle.exists() else folder

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            close(self._handle)
