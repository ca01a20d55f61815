"""Files and folders below a folder that others may write to: opened step by step, and never through a link.

Any user of a share can put a link in the place of a folder at any moment, also between a stat and an open; the same path
then leads out of the spool. So each folder of a path is opened relative to the one above (openat(2), O_NOFOLLOW), and
files are made, renamed and removed relative to the last descriptor: it stays the same folder whatever its path becomes.

A link or a file in the place of a folder is an OSError, ENOTDIR.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

REMOVALS = 5
"""Attempts to remove a folder: another process may make a file in it, or remove one, while it is removed."""

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


@contextlib.contextmanager
def reach(root: Path, folder: Path, *, make: Path | None = None, follow: bool = False) -> Iterator[int]:
    """A descriptor (O_PATH) of `folder`, which is `root` or below it. Raises OSError.

    Folders that are missing below `make` are made. `follow`: `root` itself may be a link. An error at a name in the folder
    gets the whole path.
    """
    place, handle = root, _opened(root, None, follow=follow)
    try:
        for part in _steps(root, folder):
            may_make = make is not None and place.is_relative_to(make)
            place /= part
            inner = _entered(handle, place, may_make=may_make)
            close(handle)
            handle = inner
        with _named(folder):
            yield handle
    finally:
        close(handle)


@contextlib.contextmanager
def entered(within: int, folder: Path) -> Iterator[int]:
    """A descriptor (O_PATH) of the folder that has the last name of `folder` in the open one `within`. Raises OSError."""
    handle = _opened(folder, within)
    try:
        with _named(folder):
            yield handle
    finally:
        close(handle)


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Give an error at a name in an open folder the path: only the name went to the kernel."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = str(folder / error.filename)
        if isinstance(error.filename2, str):
            error.filename2 = str(folder / error.filename2)
        raise


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
    """close(2) without its error: the descriptor is free in any case, and whether data are on the disk is fsync(2)'s to say."""
    with contextlib.suppress(OSError):
        os.close(handle)


def new_file(folder: int, leaf: str) -> int:
    """A descriptor to write a new file, which replaces whatever had the name. Raises OSError.

    O_EXCL follows no link. O_TRUNC would not do: the name may be a hard link to another file, which it would empty.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(leaf, dir_fd=folder)
    return os.open(leaf, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)


def read_file(root: Path, path: Path) -> int:
    """A descriptor to read the file `path` below `root`; a FIFO is not waited for. Raises OSError, ELOOP for a link."""
    with reach(root, path.parent) as folder:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return no_folder(os.open(path.name, flags, dir_fd=folder), path)


def no_folder(handle: int, path: str | Path) -> int:
    """The descriptor itself; IsADirectoryError, and it is closed, where it is a folder's."""
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        close(handle)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return handle


def remove_file(root: Path, path: Path) -> None:
    """Remove the file `path` below `root`, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), reach(root, path.parent) as folder:
        os.unlink(path.name, dir_fd=folder)


def remove_folder(root: Path, path: Path) -> None:
    """Remove the empty folder `path` below `root`. Raises OSError."""
    with reach(root, path.parent) as folder:
        os.rmdir(path.name, dir_fd=folder)


def remove_tree(root: Path, path: Path, *, follow: bool = False) -> bool:
    """Remove `path` below `root` with all that is in it; of a link only the link. Whether it was there. Raises OSError.

    A worker that is being stopped may still make or remove a file in it: then it is tried again.
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
    """The names of the folders in `folder`, which is `root` or below it; none where it is missing. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), reach(root, folder) as handle:
        listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
        try:
            with os.scandir(listed) as entries:
                return {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        finally:
            close(listed)
    return set()


def is_in(folder: int, leaf: str) -> bool:
    """Whether anything, a link too, has that name in the open folder. Raises OSError."""
    try:
        os.stat(leaf, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def is_there(path: Path, *, in_doubt: bool) -> bool:
    """Whether anything, a link too, has that name; `in_doubt` where the filesystem fails to say."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return in_doubt
    return True


class Pin:
    """Holds an open folder: `path` leads to that folder, whatever becomes of its name, for as long as this object exists.

    `path` is /proc/self/fd/N (proc(5)), and can be used as any path; where there is no /proc it is `folder`, its name. Raises
    OSError.
    """

    def __init__(self, handle: int, folder: Path) -> None:
        self._handle = os.dup(handle)
        by_handle = Path(f"/proc/self/fd/{self._handle}")
        self.path = by_handle if by_handle.exists() else folder

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            close(self._handle)
