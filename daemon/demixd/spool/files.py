"""TODO."""

import ctypes
import errno
import hashlib
import os
import stat
from pathlib import Path

from demixd.spool import nofollow

_AT_FDCWD = -100


_RENAME_NOREPLACE = 1


_SYNC_FILE_RANGE_WRITE, _SYNC_FILE_RANGE_WAIT_AFTER = 2, 4


_libc = ctypes.CDLL(None, use_errno=True)


def open_file(path: str | Path) -> int:
    """A descriptor to read from: never of what a link points to, never waiting for the other end of a FIFO. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def write_whole(path: Path, data: bytes, *, root: Path, durable: bool, follow: bool = False) -> None:
    """Replace `path` by `data` so that every reader sees the old or the new. Raises OSError.

    `root` is the folder that must be there already. `durable` adds the fsyncs of file and folder, which wait for a journal:
    some 10 ms more.
    """
    # A name of its own, so that the longest sidecar name still has room for it.
    part = f".demixd-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp"
    with nofollow.reach(root, path.parent, make=root, follow=follow) as folder:
        with os.fdopen(nofollow.new_file(folder, part), "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                sync(file.fileno())
            else:
                _give_blocks(file.fileno())
        os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        if durable:
            sync_open(folder)


def write_all(handle: int, data: bytes) -> None:
    """write(2) until all of it is written, which one call need not do. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _give_blocks(handle: int) -> None:
    """Have the disk take the data, which costs less than 1 ms: after a power cut the file is old or new, not empty.

    A filesystem that puts off where data go can write a rename down before it has any to write for the new file (ext4 with
    noauto_da_alloc), or before the disk has them: zeros. sync_file_range(2) makes it choose, and waits for the disk, but for
    no journal; where that is not to be had there is nothing better than fsync.
    """
    if hasattr(_libc, "sync_file_range"):
        flags = ctypes.c_uint(_SYNC_FILE_RANGE_WRITE | _SYNC_FILE_RANGE_WAIT_AFTER)
        _libc.sync_file_range(handle, ctypes.c_int64(0), ctypes.c_int64(0), flags)


def sync(handle: int) -> bool:
    """fsync(2); False where the filesystem has none to offer. Raises OSError where it has failed."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
        return False
    return True


def sync_folder(folder: Path) -> bool:
    """Make the names in `folder` durable; False where the filesystem cannot."""
    return _synced(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))


def sync_open(folder: int) -> bool:
    """The same for a folder that has been reached (`below`)."""
    return _synced(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder))


def _synced(handle: int) -> bool:
    try:
        return sync(handle)
    finally:
        nofollow.close(handle)


def rename_new(source: Path | str, target: Path | str, *, within: int | None = None, into: int | None = None) -> None:
    """Rename without replacing: `FileExistsError` where `target` exists. Raises OSError.

    `within` and `into` are open folders that the two are named from. renameat2(2) with RENAME_NOREPLACE; some FUSE mounts
    answer EINVAL to the flag. There an empty folder (or a link, for a file) reserves the name first: rename(2) replaces an
    empty folder in one step.
    """
    result = _libc.renameat2(
        _AT_FDCWD if within is None else within,
        os.fsencode(source),
        _AT_FDCWD if into is None else into,
        os.fsencode(target),
        ctypes.c_uint(_RENAME_NOREPLACE),
    )
    if result == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(source), None, str(target))
    if stat.S_ISDIR(os.stat(source, dir_fd=within, follow_symlinks=False).st_mode):
        os.mkdir(target, dir_fd=into)
        os.rename(source, target, src_dir_fd=within, dst_dir_fd=into)
    else:
        os.link(source, target, src_dir_fd=within, dst_dir_fd=into, follow_symlinks=False)
        os.unlink(source, dir_fd=within)
