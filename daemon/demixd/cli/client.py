"""What any program can do with files alone: read status/, drop a song, cancel a job."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from demixd.protocol.status import Sidecar
from demixd.spool import documents, nofollow
from demixd.spool.files import rename_new
from demixd.spool.tree import DAEMON, Spool, short


def read(path: str | Path) -> dict[str, Any] | None:
    """A status file; None where there is none, or something else."""
    return documents.read(path, dict[str, Any])


def daemon(spool: Spool) -> dict[str, Any] | None:
    """The daemon's last heartbeat. It may be old: a daemon that runs changes `seq` before the next reading."""
    return read(spool.status / DAEMON)


def sidecars(spool: Spool) -> Iterator[dict[str, Any]]:
    """Every song's sidecar in the order of paths; none where there is no status/ yet. Raises OSError where it cannot be read."""
    for path, _ in sorted(documents.sidecars(spool.status)) if spool.status.exists() else ():
        document = read(path)
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert(document, Sidecar)
            yield document or {}


def drop(spool: Spool, song: Path, name: str | None = None, options: bytes | None = None) -> str:
    """Copy `song` into the inbox, as `name` if one is given: under a dot name first, then by one rename. Returns its name.

    `options` is the content of its option file, which appears before the song. Raises OSError, and FileExistsError where
    the inbox has that song or option file already; then nothing is left behind. The inbox itself is never made.
    """
    name = name or song.name
    target, option_file = spool.song(name), spool.options(name)
    for path in (target, option_file) if options is not None else (target,):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with nofollow.reach(spool.inbox, target.parent, make=spool.inbox):
        pass  # This has made the folders between the inbox and the song.
    # The random part keeps two programs that drop the same name from writing into one file.
    part = target.parent / f".{short(target.name)}.{secrets.token_hex(4)}.part"
    part_options = part.with_suffix(".options.part")
    try:
        shutil.copyfile(song, part)
        if options is not None:
            part_options.write_bytes(options)
            _appear(part_options, option_file)
        try:
            _appear(part, target)
        except OSError:
            if options is not None:
                option_file.unlink(missing_ok=True)
            raise
    finally:
        part.unlink(missing_ok=True)
        part_options.unlink(missing_ok=True)
    return name


def _appear(part: Path, target: Path) -> None:
    """Rename without replacing; where the filesystem has no such rename, by a plain one."""
    try:
        rename_new(part, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        part.rename(target)  # `drop` has seen that the name is free.


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
