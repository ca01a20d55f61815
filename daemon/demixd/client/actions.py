"""What any program can ask for with files alone: drop a song, cancel a job."""

import contextlib
import errno
import io
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

from demixd.spool import files, nofollow
from demixd.spool.tree import Spool, short


def drop(spool: Spool, song: Path, name: str | None = None, options: bytes | None = None) -> str:
    """Copy `song` into the inbox, as `name` if one is given: under a dot name first, then by one rename. Returns its name.

    `options` is the content of its option file, which appears before the song. Raises OSError, and FileExistsError where
    the inbox has that song or option file already; then nothing is left behind. The inbox itself is never made.
    """
    name = name or song.name
    target, option_file = spool.song(name), spool.options(name)
    # The folder stays open to the end: others may put a link in its place at any moment.
    with nofollow.reach(spool.inbox, target.parent, make=spool.inbox) as folder:
        for leaf in (target.name, option_file.name) if options is not None else (target.name,):
            if nofollow.is_in(folder, leaf):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), leaf)
        parts: list[str] = []
        try:
            with files.open_own(song, "rb", names=sys.maxsize, follow=True) as data:
                _write(folder, target.name, data, parts)
            if options is not None:
                _write(folder, option_file.name, io.BytesIO(options), parts)
                _appear(folder, parts[1], option_file.name)
            try:
                _appear(folder, parts[0], target.name)
            except OSError:
                if options is not None:
                    parts.append(option_file.name)
                raise
        finally:
            for part in parts:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
    return name


def _write(folder: int, leaf: str, data: BinaryIO, parts: list[str]) -> None:
    """Copy `data` into a new file of the open folder, under a dot name that goes to the end of `parts`."""
    # The random part keeps two programs that drop the same name from writing into one file, and others from guessing it.
    part = f".{short(leaf)}.{secrets.token_hex(4)}.part"
    with os.fdopen(nofollow.new_file(folder, part), "wb") as file:
        parts.append(part)
        shutil.copyfileobj(data, file, files.CHUNK)


def _appear(folder: int, part: str, leaf: str) -> None:
    """Rename without replacing; where the filesystem has no such rename, by a plain one."""
    try:
        files.rename_new(part, leaf, within=folder, into=folder)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        os.rename(part, leaf, src_dir_fd=folder, dst_dir_fd=folder)  # `drop` has seen that the name is free.


def cancel(spool: Spool, name: str) -> None:
    """Ask for the job of `name` to stop. Raises OSError."""
    _touch(spool, spool.cancel(name))


def cancel_all(spool: Spool) -> None:
    """Ask for every job to stop. Raises OSError."""
    _touch(spool, spool.cancel_all)


def _touch(spool: Spool, path: Path) -> None:
    """Make a file in the inbox, or renew its time; a link that others have put there is an OSError, and not followed."""
    with nofollow.reach(spool.inbox, path.parent) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(path.name, flags, 0o666, dir_fd=folder)
        try:
            os.utime(handle)
        finally:
            nofollow.close(handle)
