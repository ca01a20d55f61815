"""Publish: the finished work folder becomes the result by one rename, and the original goes where the policy sends it."""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import msgspec

from demixd.protocol.identity import Identity
from demixd.protocol.job import StemFile
from demixd.protocol.result_names import MANIFEST
from demixd.spool import documents, nofollow
from demixd.spool.tree import rename_new, sync, sync_folder, sync_open, write_all

CHUNK = 1 << 20

LONGEST_EXTENSION = 32
"""Bytes. What stands behind the last dot of a name and is longer belongs to the name, and the number goes behind it."""

log = logging.getLogger(__name__)


class _Owner(msgspec.Struct, frozen=True):
    """All of a manifest that is needed here."""

    job_id: str


def free_dir(outbox: Path, song: str, wanted: str) -> str:
    """Where below the outbox the result of `song` (its path below the inbox) goes: `wanted` in the song's own folder.

    Taken names are numbered. So is a folder on the way that is a result itself, since a result never changes, and what is
    no folder: a file, or a link that leads who knows where.
    """
    place = outbox
    for raw in song.split("/")[:-1]:
        part = os.fsencode(raw).decode("utf-8", "replace")  # sidecars can spell it then
        name, number = part, 1
        while not _is_way(place / name):
            number += 1
            name = numbered(part, number, dot="")
        place /= name
    return (place / free_name(place, wanted)).relative_to(outbox).as_posix()


def _is_way(folder: Path) -> bool:
    """Whether a result can lie in `folder`, which may have to be made."""
    try:
        return stat.S_ISDIR(folder.lstat().st_mode) and not (folder / MANIFEST).is_file()
    except FileNotFoundError:
        return True


def free_name(folder: Path, wanted: str) -> str:
    """`wanted`, or `wanted (2)` and so on where `folder` has it already, compared without case."""
    taken = {_folded(entry.name) for entry in folder.iterdir()} if folder.is_dir() else set()
    name, number = wanted, 1
    while _folded(name) in taken:
        number += 1
        name = numbered(wanted, number, dot="")
    return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def numbered(leaf: str, number: int, *, dot: str = ".") -> str:
    """`Song.flac`, `Song (2).flac`, ...; without a `dot` the whole name is what is numbered. At most 255 bytes."""
    if number == 1:
        return leaf
    stem, found, extension = leaf.rpartition(dot) if dot else (leaf, "", "")
    if not found or len(os.fsencode(extension)) > LONGEST_EXTENSION:
        stem, found, extension = leaf, "", ""
    tail = f" ({number}){found}{extension}"
    room = 255 - len(os.fsencode(tail))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem + tail


def missing_from(outbox: Path, out: Path, files: Iterable[StemFile]) -> str | None:
    """Why what lies in `out` is not what the manifest would say; None where it is, as far as sizes tell."""
    for file in files:
        path = out / file.name
        try:
            with nofollow.reach(outbox, path.parent) as folder:
                found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            return f"there is no {file.name}: {error.strerror}"
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.bytes:
            return f"{file.name} is not the file of {file.bytes} bytes that it says"
    return None


def write_manifest(outbox: Path, out: Path, data: bytes) -> bool:
    """Write `stems.json` last and make its folder durable; whether the filesystem says that it is. Raises OSError."""
    with nofollow.reach(outbox, out) as folder:
        with os.fdopen(nofollow.new_file(folder, MANIFEST), "wb") as file:
            file.write(data)
            file.flush()
            durable = sync(file.fileno())
        folders = [path for path in out.rglob("*") if path.is_dir() and not path.is_symlink()]
        return all([*(sync_folder(each) for each in folders), sync_open(folder)]) and durable


def rename_into_outbox(out: Path, outbox: Path, target: str) -> bool:
    """The one moment that decides; whether it is durable, which a filesystem may refuse to say.

    `FileExistsError` where the name has been taken since it was chosen, `NotADirectoryError` where a folder on the way to
    it has become something else. An OSError means that nothing was published: what fails after the rename cannot take it
    back, so it is no error.
    """
    place = outbox / target
    with nofollow.reach(outbox, out.parent) as within, nofollow.reach(outbox, place.parent, make=outbox) as into:
        if not stat.S_ISDIR(os.stat(out.name, dir_fd=within, follow_symlinks=False).st_mode):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(out))
        rename_new(out.name, place.name, within=within, into=into)
        # The song's folders may be new as well: each of them is a name in the one above it.
        folders = [folder for folder in place.parent.parents if folder.is_relative_to(outbox)]
        try:
            return all([sync_open(into), *(sync_folder(folder) for folder in folders)])
        except OSError as error:
            log.warning("%s is published, but the way to it cannot be synced: %s", target, error)
            return False


def is_ours(folder: Path, job_id: str) -> bool:
    """Whether the result in `folder` is that of this job."""
    manifest = documents.read(folder / MANIFEST, _Owner)
    return manifest is not None and manifest.job_id == job_id


def take(song: Path, taken: Path, identity: Identity, root: Path | None = None) -> bool:
    """Move the original aside under a private name, if it still is what the snapshot was made of. Idempotent.

    Whatever else carries the name by now is a new drop: it stays, or is put back at once, and is never replaced. `root`
    is the folder below which no link is followed; that of the song, where none is given.
    """
    try:
        with nofollow.reach(root or song.parent, song.parent, follow=True) as folder:
            if not _is_there(folder, taken.name):
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
        with nofollow.reach(root or song.parent, song.parent, follow=True) as folder:
            if _is_there(folder, taken.name):
                _put(folder, taken.name, folder, song.name)
            found = _identity(folder, song.name)
    except FileNotFoundError:
        return None
    return found if found.is_same_drop(identity) else None


def _is_there(folder: int, leaf: str) -> bool:
    try:
        os.stat(leaf, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _identity(folder: int, leaf: str) -> Identity:
    return Identity.of(os.stat(leaf, dir_fd=folder, follow_symlinks=False))


def store(inbox: Path, taken: Path, root: Path, name: str) -> Path:
    """Move the original from its private name to `name` below `root`, numbered where that is taken; where it is now."""
    return move(taken, root / name, source_root=inbox, target_root=root)


def move(source: Path, target: Path, *, source_root: Path | None = None, target_root: Path | None = None) -> Path:
    """Move a file, also to another filesystem, durably and without replacing: numbered where `target` is taken.

    The roots are the folders below which no link is followed, and that below which folders are made.
    """
    root = target_root or target.parent
    with (
        nofollow.reach(source_root or source.parent, source.parent, follow=True) as within,
        nofollow.reach(root, target.parent, make=root) as into,
    ):
        try:
            leaf = _put(within, source.name, into, target.name)
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
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with (
            os.fdopen(os.open(source.name, flags, dir_fd=within), "rb") as old,
            os.fdopen(nofollow.new_file(into, part), "wb") as new,
        ):
            _copy_data(old.fileno(), new.fileno())
            # It takes what os.stat takes.
            shutil.copystat(old.fileno(), new.fileno())  # type: ignore[arg-type]
            sync(new.fileno())
        part = _put(into, part, into, target)
        sync_open(into)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=into)
        raise
    return part


def _copy_data(old: int, new: int) -> None:
    """Holes stay holes: of a file that is all hole, a terabyte of zeros would be written."""
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


def _put(within: int, source: str, into: int, target: str) -> str:
    """Give `source` the name `target`, or the next number of it that is free; which."""
    number = 1
    while True:
        leaf = numbered(target, number)
        try:
            rename_new(source, leaf, within=within, into=into)
        except FileExistsError:
            number += 1
        else:
            return leaf
