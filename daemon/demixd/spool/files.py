"""Files on the share: opened without following links, written whole, made durable, renamed without replacing.

    open_file    a descriptor to read from
    open_own     a file of a job's work, which nobody else has a name for
    open_model   a file of a model, for which a link may stand
    write_whole  a new content for a name, by one rename
    append_line  a line at the end of a list
    sync         fsync(2), and the filesystems that have none
    rename_new   a rename that fails where the new name is taken
    sha256_of    the hash of an open file
    born_ns      when a file was made
    refuses_files  whether a folder is one in which there can be none

Below a folder that others write to, names are reached by `nofollow`; here it is only the last part of a path that is no
link.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, Literal, cast

from demixd.spool import nofollow

CHUNK = 1 << 20
"""Bytes of a file that are read or written at a time."""

HIDDEN = ".demixd-"
"""Our files in folders that others see have names that begin so: dot files, which programs skip."""

UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What a filesystem answers to a call that it does not have: FUSE mounts to renameat2(2), some of them to fsync(2)."""

_FLAGS = {"rb": os.O_RDONLY, "r+b": os.O_RDWR, "x+b": os.O_RDWR | os.O_CREAT | os.O_EXCL}

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE, _SYNC_FILE_RANGE_WAIT_AFTER = 2, 4

_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_STATX = "=I76xqI164x"
"""struct statx(2): its mask, then the seconds and nanoseconds of the birth time at byte 80; 256 bytes in all."""

_libc = ctypes.CDLL(None, use_errno=True)


def open_file(path: str | Path) -> int:
    """A descriptor to read from. A link is refused (ELOOP), a FIFO without a writer is not waited for. Raises OSError.

    A folder is refused too (EISDIR): what opens a file on a descriptor of one raises, and leaves it open.
    """
    return nofollow.no_folder(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), path)


def open_own(
    path: Path, mode: Literal["rb", "r+b", "x+b"], *, buffering: int = -1, names: int = 1, follow: bool = False
) -> BinaryIO:
    """A file of a job's work: `x+b` makes it, in place of whatever had its name. Raises OSError.

    Never what a link in its place leads to (ELOOP), nor anything but a regular file that has at most so many `names`
    (EPERM): a hard link would be another folder's file. `follow`: a link may stand for it.
    """
    if mode == "x+b":
        path.unlink(missing_ok=True)
    no_link = 0 if follow else os.O_NOFOLLOW
    handle = os.open(path, _FLAGS[mode] | no_link | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    status = os.fstat(handle)
    is_file = stat.S_ISREG(status.st_mode)
    if not is_file or status.st_nlink > names:
        nofollow.close(handle)
        reason = "another file has been put in its place" if is_file else "it is not a regular file"
        raise OSError(errno.EPERM, reason, str(path))
    return cast(BinaryIO, os.fdopen(handle, mode.replace("x", "w"), buffering))


def open_song(path: Path) -> BinaryIO:
    """A song to read: as `open_own`, but somebody may have other names for it. Raises OSError."""
    return open_own(path, "rb", names=sys.maxsize)


def open_model(path: Path) -> BinaryIO:
    """A file of a model to read: a folder of models may be made of links to where others keep them. Raises OSError."""
    return open_own(path, "rb", names=sys.maxsize, follow=True)


def write_whole(path: Path, data: bytes, *, root: Path, durable: bool, follow: bool = False) -> None:
    """Replace the content of `path` by `data`; every reader gets the old or the new one, whole. Raises OSError.

    `root` must exist, and the folders below it are made. `durable` adds the fsyncs of file and folder, which wait for a
    journal: some 10 ms more.
    """
    write_pieces(path, (data,), root=root, durable=durable, follow=follow)


def write_pieces(
    path: Path, pieces: Iterable[bytes], *, root: Path, durable: bool = True, follow: bool = False
) -> None:
    """The same with content that comes in pieces."""
    # Not `path.name` with a suffix: the longest sidecar name has no room for one.
    part = f"{HIDDEN}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp"
    with nofollow.reach(root, path.parent, make=root, follow=follow) as folder:
        try:
            with os.fdopen(nofollow.new_file(folder, part), "wb") as file:
                for data in pieces:
                    file.write(data)
                file.flush()
                if durable:
                    sync(file.fileno())
                else:
                    _write_back(file.fileno())
            os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):  # it has not been made, perhaps
                os.unlink(part, dir_fd=folder)
            raise
        if durable:
            sync_open(folder)


def append_line(path: Path, line: bytes, *, root: Path) -> None:
    """Append `line`, which ends with a newline, to the list at `path`, durably and whole or not at all. Raises OSError.

    `root` must exist, and the folders below it are made. What is no list of ours in its place gives way to a new one: a link,
    a FIFO, a file that has another name too. Half a line, left by a power cut, becomes one of its own.
    """
    with nofollow.reach(root, path.parent, make=root) as folder:
        handle = _list(folder, path.name)
        try:
            size = os.fstat(handle).st_size
            begun = size and os.pread(handle, 1, size - 1) != b"\n"
            try:
                write_all(handle, b"\n" + line if begun else line)
            except OSError:
                os.ftruncate(handle, size)
                raise
            sync(handle)
        finally:
            nofollow.close(handle)
        if not size:
            sync_open(folder)


def _list(folder: int, leaf: str) -> int:
    """A descriptor to read and append to our own file of that name in the open folder; it is made where there is none."""
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(leaf, flags, dir_fd=folder)
    except IsADirectoryError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EACCES):
            raise
    else:
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            return handle
        nofollow.close(handle)
    return nofollow.new_file(folder, leaf)


def write_all(handle: int, data: bytes | memoryview) -> None:
    """write(2) until all of `data` is written: one call may write less. Raises OSError."""
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(handle, left) :]


def _write_back(handle: int) -> None:
    """Write the file's data to the disk, in less than 1 ms: after a power cut the name has the old or the new content.

    A filesystem with delayed allocation can commit a rename before it has allocated blocks for the new file (ext4 with
    noauto_da_alloc), or before the data are in them: the file is then empty, or zeros. sync_file_range(2) allocates the
    blocks and waits for the data, but not for a journal. Without it (not Linux) only fsync would do, which is too slow here.
    """
    if hasattr(_libc, "sync_file_range"):
        flags = ctypes.c_uint(_SYNC_FILE_RANGE_WRITE | _SYNC_FILE_RANGE_WAIT_AFTER)
        _libc.sync_file_range(handle, ctypes.c_int64(0), ctypes.c_int64(0), flags)


def sync(handle: int) -> bool:
    """fsync(2) of a file or folder; False where the filesystem does not have it. Raises OSError where it fails."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def sync_folder(folder: Path) -> bool:
    """Make the names in `folder` durable; False where the filesystem has no fsync. Raises OSError."""
    return _synced(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))


def sync_open(folder: int) -> bool:
    """The same for a folder that `nofollow.reach` has opened: an O_PATH descriptor, which fsync(2) does not take."""
    return _synced(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder))


def _synced(handle: int) -> bool:
    try:
        return sync(handle)
    finally:
        nofollow.close(handle)


def sha256_of(file: BinaryIO | RawIOBase, stopped: Callable[[], bool] = lambda: False) -> str:
    """The sha256 of `file`, from its position to its end, in 64 hex digits. Raises OSError.

    `stopped` is asked between chunks; where it says so, the answer is the hash of a part, which is not to be used.
    """
    digest = hashlib.sha256()
    while (chunk := file.read(CHUNK)) and not stopped():
        digest.update(chunk)
    return digest.hexdigest()


def rename_new(source: Path | str, target: Path | str, *, within: int | None = None, into: int | None = None) -> None:
    """Rename `source` to `target`; `FileExistsError` where `target` exists. Raises OSError.

    `within` and `into` are open folders, to which the two paths are relative. The call is renameat2(2) with
    RENAME_NOREPLACE. On a filesystem without that flag, a folder gets its name in two steps: mkdir(2) fails where the name
    is taken, and rename(2) replaces an empty folder at once. A file gets it by link(2), which fails likewise.
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
    if number not in UNSUPPORTED:
        raise OSError(number, os.strerror(number), str(source), None, str(target))
    if stat.S_ISDIR(os.stat(source, dir_fd=within, follow_symlinks=False).st_mode):
        os.mkdir(target, dir_fd=into)
        os.rename(source, target, src_dir_fd=within, dst_dir_fd=into)
    else:
        os.link(source, target, src_dir_fd=within, dst_dir_fd=into, follow_symlinks=False)
        os.unlink(source, dir_fd=within)


def born_ns(root: Path, path: Path) -> int | None:
    """When the file `path` below `root` was made (statx(2)), in nanoseconds of UNIX time; no rename changes that.

    None where the filesystem does not keep it, or the file is not there.
    """
    found = ctypes.create_string_buffer(struct.calcsize(_STATX))
    try:
        with nofollow.reach(root, path.parent) as folder:
            leaf = os.fsencode(path.name)
            failed = _libc.statx(folder, leaf, _AT_SYMLINK_NOFOLLOW, ctypes.c_uint(_STATX_BTIME), found)
    except (OSError, AttributeError):  # a C library before 2018 has no statx
        return None
    mask, seconds, nanoseconds = struct.unpack(_STATX, found.raw)
    return None if failed or not mask & _STATX_BTIME else seconds * 10**9 + nanoseconds


def refuses_files(folder: Path) -> str | None:
    """Why no file can be made in a folder that is there, as the end of a sentence; None where one can. It never has a name."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"no file can be made in it ({error.strerror})"
