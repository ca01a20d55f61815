"""Originals: what becomes of a song's own file once its job has ended: done/, failed/, kept or deleted."""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from demixd.config.sections import After, Inbox
from demixd.protocol.identity import Identity
from demixd.protocol.job import Job, State
from demixd.protocol.result_names import numbered
from demixd.spool import nofollow
from demixd.spool.files import rename_new, sync, sync_open, write_all
from demixd.spool.tree import OPTIONS, Spool, companion
from demixd.supervisor.jobs import reasons

CHUNK = 1 << 20

LARGEST_TWIN = 256 << 20
"""Bytes of an original that are compared with others of its name, in all: the main loop waits for it, also on a slow share."""

TWINS = 10
"""How many of those numbers are looked at one by one: whoever writes there can make thousands."""

log = logging.getLogger(__name__)


def take(song: Path, taken: Path, identity: Identity, root: Path | None = None) -> bool:
    """Move the original aside under a private name, if it still is what the snapshot was made of. Idempotent.

    Whatever else carries the name by now is a new drop: it stays, or is put back at once, and is never replaced. `root`
    is the folder below which no link is followed; that of the song, where none is given.
    """
    try:
        with nofollow.reach(root or song.parent, song.parent) as folder:
            if not nofollow.is_in(folder, taken.name):
                if not _identity(folder, song.name).is_same_drop(identity):
                    return False
                os.rename(song.name, taken.name, src_dir_fd=folder, dst_dir_fd=folder)
            if _identity(folder, taken.name).is_same_drop(identity):
                return True
            _put(folder, taken.name, folder, song.name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return False


def put_back(taken: Path, song: Path, identity: Identity, root: Path | None = None) -> Identity | None:
    """Give an original that could not be put away its name back; what it is there now.

    None where a new drop has the name: the old one is numbered then, and is a drop of its own.
    """
    try:
        with nofollow.reach(root or song.parent, song.parent) as folder:
            if nofollow.is_in(folder, taken.name):
                _put(folder, taken.name, folder, song.name)
            found = _identity(folder, song.name)
    except FileNotFoundError:
        return None
    return found if found.is_same_drop(identity) else None


def _identity(folder: int, leaf: str) -> Identity:
    return Identity.of(os.stat(leaf, dir_fd=folder, follow_symlinks=False))


def store(inbox: Path, taken: Path, root: Path, name: str) -> Path:
    """Move the original from its private name to `name` below `root`, numbered where that is taken; its new path.

    A file there that has the same content is replaced, since an album that is dropped again would fill done/ with twins.
    """
    return move(taken, root / name, source_root=inbox, target_root=root)


def move(source: Path, target: Path, *, source_root: Path | None = None, target_root: Path | None = None) -> Path:
    """Move a file, also to another filesystem, durably and without replacing another content: numbered where `target` is taken.

    The roots are the folders below which no link is followed, and that below which folders are made.
    """
    root = target_root or target.parent
    with (
        nofollow.reach(source_root or source.parent, source.parent) as within,
        nofollow.reach(root, target.parent, make=root) as into,
    ):
        try:
            leaf = _put(within, source.name, into, target.name, may_replace=True)
        except OSError as error:
            # Also between two bind mounts of one filesystem, as containers have them: device numbers do not tell.
            if error.errno != errno.EXDEV:
                raise
            leaf = _copy(within, source, into, target.name)
            os.unlink(source.name, dir_fd=within)  # the copy is durable by now
            return target.with_name(leaf)
        try:
            sync_open(into)
        except OSError as error:
            log.warning("%s is where it belongs, but the way to it cannot be synced: %s", target.with_name(leaf), error)
    return target.with_name(leaf)


def _copy(within: int, source: Path, into: int, target: str) -> str:
    # Always the same, so that what a crash leaves is overwritten when it is done again.
    part = f".demixd-{hashlib.sha256(os.fsencode(source)).hexdigest()[:16]}"
    try:
        with (
            _opened(within, source.name) as old,
            os.fdopen(nofollow.new_file(into, part), "wb") as new,
        ):
            _copy_data(old.fileno(), new.fileno())
            # It takes what os.stat takes.
            shutil.copystat(old.fileno(), new.fileno())  # type: ignore[arg-type]
            sync(new.fileno())
        part = _put(into, part, into, target, may_replace=True)
        sync_open(into)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=into)
        raise
    return part


def _copy_data(old: int, new: int) -> None:
    """Copy without filling holes: for a file that is one hole, a terabyte of zeros would be written."""
    at, size = 0, os.fstat(old).st_size
    os.ftruncate(new, size)
    while at < size:
        try:
            at = os.lseek(old, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole is left
            raise
        end = os.lseek(old, at, os.SEEK_HOLE)
        os.lseek(old, at, os.SEEK_SET)
        os.lseek(new, at, os.SEEK_SET)
        while at < end and (data := os.read(old, min(CHUNK, end - at))):
            write_all(new, data)
            at += len(data)
        if at < end:
            return  # it was cut short meanwhile: the identity tells


def _put(within: int, source: str, into: int, target: str, *, may_replace: bool = False) -> str:
    """Rename `source` to `target`, or to the next number of it that is free; the name it got.

    `may_replace`: also to one that a file with the same content has. That file is the one that goes, so that whatever
    becomes of it meanwhile, the original stays.
    """
    number = 1
    while True:
        leaf = numbered(target, number)
        try:
            rename_new(source, leaf, within=within, into=into)
        except FileExistsError:
            # The numbers before it were at most as much to read.
            if may_replace and number <= TWINS and _is_twin(within, source, into, leaf, LARGEST_TWIN // number):
                os.replace(source, leaf, src_dir_fd=within, dst_dir_fd=into)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(source, dir_fd=within)  # of two names of one file, rename(2) leaves both
                return leaf
            number = number + 1 if number < TWINS else _free(into, target, number)
        else:
            return leaf


def _free(into: int, target: str, taken: int) -> int:
    """A free number of `target` above one that is taken; the next one, where there are no gaps. Raises OSError.

    The steps double until one is free, and are halved from there: 5,000 names are some 25 questions.
    """
    free = taken + 1
    while nofollow.is_in(into, numbered(target, free)):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        if nofollow.is_in(into, numbered(target, middle)):
            taken = middle
        else:
            free = middle
    return free


def _is_twin(within: int, source: str, into: int, target: str, largest: int) -> bool:
    """Whether two files have the same content; False where one cannot be read, or has more bytes than `largest`."""
    try:
        with _opened(within, source) as one, _opened(into, target) as other:
            ours, theirs = os.fstat(one.fileno()), os.fstat(other.fileno())
            if not stat.S_ISREG(theirs.st_mode) or ours.st_size != theirs.st_size or ours.st_size > largest:
                return False
            while chunk := one.read(CHUNK):
                if chunk != other.read(CHUNK):
                    return False
            return True
    except OSError:
        return False


def _opened(folder: int, leaf: str) -> BinaryIO:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(leaf, flags, dir_fd=folder), "rb")


def put_away(job: Job, spool: Spool, settings: Inbox) -> tuple[Identity | None, str | None]:
    """Move, keep or delete the original: what of it stays in the inbox, and a warning where that was not the plan.

    Raises OSError where it can neither be put away nor be given its name back.
    """
    if settings.after is After.KEEP:
        return job.identity, None
    song, taken = spool.song(job.name), spool.taken(job.name, job.job_id)
    goes = job.state is State.DONE and settings.after is After.DELETE
    root = spool.done if job.state is State.DONE else spool.failed
    try:
        if not take(song, taken, job.identity, spool.inbox):
            return None, None
        if goes:
            nofollow.remove_file(spool.inbox, taken)
            _take_options(job, spool, None)
        else:
            stored = store(spool.inbox, taken, root, job.name)
            options = _take_options(job, spool, stored)
            if settings.reasons and job.state is not State.DONE:
                reasons.write(job, stored, options, spool)
        return None, None
    except OSError as error:
        what, remedy = ("deleted", "delete") if goes else (f"moved to {root}/{job.shown}", "move")
        told = f"it cannot be {what} ({error.strerror}); mend that, and {remedy} it yourself"
        log.warning("%s stays in the inbox: %s", job.shown, error)
    return put_back(taken, song, job.identity, spool.inbox), f"The original stays in the inbox: {told}."


def _take_options(job: Job, spool: Spool, stored: Path | None) -> Path | None:
    """Move the option file along with its song, and return its new path; a newer one is that of a song to come, and stays.

    Beside `stored` it replaces an option file of that name: the song has that name now, maybe in place of its twin, and the
    old file, which would count as its options, was another drop's.
    """
    options = spool.options(job.name)
    try:
        if job.options_file is None or not job.options_file.is_same_drop(Identity.of(options.lstat())):
            return None
        if stored is None:
            nofollow.remove_file(spool.inbox, options)
            return None
        target = stored.with_name(companion(stored.name, OPTIONS))
        root = spool.done if stored.is_relative_to(spool.done) else spool.failed
        nofollow.remove_file(root, target)
        return move(options, target, source_root=spool.inbox, target_root=root)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s stays in the inbox: %s", options, error)
        return None
