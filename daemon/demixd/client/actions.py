"""What any program can ask for with files alone: drop a song, give it other options, cancel it, hold all songs up."""

import codecs
import contextlib
import errno
import io
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from demixd.client.names import is_dropped
from demixd.errors import RefusedError
from demixd.protocol import options as job_options
from demixd.spool import files, nofollow
from demixd.spool.tree import PAUSE, Spool, short


def drop(spool: Spool, song: Path, name: str | None = None, options: bytes | None = None) -> str:
    """Copy `song` into the inbox, as `name` if one is given: see `dropping`. Returns its name. Raises OSError."""
    name = name or song.name
    with (
        dropping(spool, name, options) as file,
        files.open_own(song, "rb", names=sys.maxsize, follow=True) as data,
    ):
        shutil.copyfileobj(data, file, files.CHUNK)
    return name


@contextlib.contextmanager
def dropping(spool: Spool, name: str, options: bytes | None = None) -> Iterator[BinaryIO]:
    """A file to write the song `name` to: it has a dot name, and gets its own by one rename when the block ends.

    `options` is the content of its option file, which appears before the song. Raises OSError, and FileExistsError where
    the inbox has that song or option file already; then, and after any error in the block, nothing is left behind. The inbox
    itself is never made.
    """
    target, option_file = spool.song(name), spool.options(name)
    # The folder stays open to the end: others may put a link in its place at any moment.
    with nofollow.reach(spool.inbox, target.parent, make=spool.inbox) as folder:
        for leaf in (target.name, option_file.name) if options is not None else (target.name,):
            if nofollow.is_in(folder, leaf):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), leaf)
        parts: list[str] = []
        try:
            with _new(folder, target.name, parts) as file:
                yield file
            if options is not None:
                with _new(folder, option_file.name, parts) as file:
                    shutil.copyfileobj(io.BytesIO(options), file)
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


def _new(folder: int, leaf: str, parts: list[str]) -> BinaryIO:
    """A new file of the open folder, under a dot name that goes to the end of `parts`."""
    # The random part keeps two programs that drop the same name from writing into one file, and others from guessing it.
    part = f".{short(leaf)}.{secrets.token_hex(4)}.part"
    file = os.fdopen(nofollow.new_file(folder, part), "wb")
    parts.append(part)
    return file


def _appear(folder: int, part: str, leaf: str) -> None:
    """Rename without replacing; where the filesystem has no such rename, by a plain one."""
    try:
        files.rename_new(part, leaf, within=folder, into=folder)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        os.rename(part, leaf, src_dir_fd=folder, dst_dir_fd=folder)  # `dropping` has seen that the name is free.


def options_of(spool: Spool, name: str) -> dict[str, Any]:
    """The keys in the option file of the song `name`; none where it has no file. Raises OSError, AudioProcessingError."""
    try:
        with os.fdopen(nofollow.read_file(spool.inbox, spool.options(name)), "rb") as file:
            data = file.read(job_options.LONGEST + 1)
    except FileNotFoundError:
        return {}
    job_options.parse(data)
    found: dict[str, Any] = json.loads(data.removeprefix(codecs.BOM_UTF8))
    return found


def set_options(spool: Spool, name: str, changes: Mapping[str, Any]) -> None:
    """Give a song that waits other options; the keys that its file has, and `changes` has not, stay as they are.

    Raises RefusedError where it does not lie in the inbox, AudioProcessingError for options that cannot be used, OSError.
    """
    if not is_dropped(spool.song(name)):
        raise RefusedError("it does not wait in the inbox any more")
    data = json.dumps(options_of(spool, name) | dict(changes), ensure_ascii=False).encode() + b"\n"
    job_options.parse(data)
    files.write_whole(spool.options(name), data, root=spool.inbox, durable=False)


def cancel(spool: Spool, name: str) -> None:
    """Ask for the job of `name` to stop. Raises OSError."""
    _touch(spool, spool.cancel(name))


def cancel_all(spool: Spool) -> None:
    """Ask for every job to stop. Raises OSError."""
    _touch(spool, spool.cancel_all)


def pause(spool: Spool, *, now: bool = False) -> None:
    """Have nothing new begun; `now`: the songs in flight wait again, too. Raises OSError."""
    files.write_whole(spool.inbox / PAUSE, b"now\n" if now else b"", root=spool.inbox, durable=False)


def go_on(spool: Spool) -> None:
    """End the pause, if there is one by the file. Raises OSError."""
    nofollow.remove_file(spool.inbox, spool.inbox / PAUSE)


def _touch(spool: Spool, path: Path) -> None:
    """Make a file in the inbox, or renew its time; a link that others have put there is an OSError, and not followed."""
    with nofollow.reach(spool.inbox, path.parent) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(path.name, flags, 0o666, dir_fd=folder)
        try:
            os.utime(handle)
        finally:
            nofollow.close(handle)
