"""Publish: the finished work folder becomes the result by one rename, and the original goes where the policy sends it."""

import errno
import hashlib
import logging
import os
import shutil
import unicodedata
from pathlib import Path

import msgspec

from stemd import documents
from stemd.identity import Identity
from stemd.naming import MANIFEST
from stemd.spool import make_below, rename_new, sync, sync_folder

log = logging.getLogger(__name__)


class _Owner(msgspec.Struct, frozen=True):
    """All of a manifest that is needed here."""

    job_id: str


def free_dir(outbox: Path, song: str, wanted: str) -> str:
    """Where below the outbox the result of `song` (its path below the inbox) goes: `wanted` in the song's own folder.

    Taken names are numbered. So is a folder on the way that is a result itself: a result never changes.
    """
    place = outbox
    for raw in song.split("/")[:-1]:
        part = os.fsencode(raw).decode("utf-8", "replace")  # sidecars can spell it then
        name, number = part, 1
        while (place / name / MANIFEST).is_file():
            number += 1
            name = numbered(part, number, dot="")
        place /= name
    return (place / free_name(place, wanted)).relative_to(outbox).as_posix()


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
    if not found:
        stem, extension = leaf, ""
    tail = f" ({number}){found}{extension}"
    room = 255 - len(os.fsencode(tail))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem + tail


def write_manifest(out: Path, data: bytes) -> bool:
    """Write `stems.json` last and make its folder durable; whether the filesystem says that it is. Raises OSError."""
    with (out / MANIFEST).open("wb") as file:
        file.write(data)
        file.flush()
        durable = sync(file.fileno())
    folders = [path for path in out.rglob("*") if path.is_dir()]
    return all([sync_folder(folder) for folder in (*folders, out)]) and durable  # noqa: C419 - every one of them


def rename_into_outbox(out: Path, outbox: Path, target: str) -> bool:
    """The one moment that decides; whether it is durable, which a filesystem may refuse to say.

    `FileExistsError` where the name has been taken since it was chosen. An OSError means that nothing was published: what
    fails after the rename cannot take it back, so it is no error.
    """
    place = outbox / target
    make_below(outbox, place.parent)
    rename_new(out, place)
    # The song's folders may be new as well: each of them is a name in the one above it.
    folders = [folder for folder in place.parents if folder.is_relative_to(outbox)]
    try:
        return all([sync_folder(folder) for folder in folders])  # noqa: C419 - every one of them
    except OSError as error:
        log.warning("%s is published, but the way to it cannot be synced: %s", target, error)
        return False


def is_ours(folder: Path, job_id: str) -> bool:
    """Whether the result in `folder` is that of this job."""
    manifest = documents.read(folder / MANIFEST, _Owner)
    return manifest is not None and manifest.job_id == job_id


def take(song: Path, taken: Path, identity: Identity) -> bool:
    """Move the original aside under a private name, if it still is what the snapshot was made of. Idempotent.

    Whatever else carries the name by now is a new drop: it stays, or is put back at once, and is never replaced.
    """
    if not taken.exists():
        try:
            if not Identity.of(song.lstat()).is_same_drop(identity):
                return False
            song.rename(taken)
        except FileNotFoundError:
            return False
    found = Identity.of(taken.lstat())
    if found.is_same_drop(identity):
        return True
    _put(taken, song)
    return False


def put_back(taken: Path, song: Path, identity: Identity) -> Identity | None:
    """Give an original that could not be put away its name back; what it is there now.

    None where a new drop has the name: the old one is numbered then, and is a drop of its own.
    """
    if taken.exists():
        _put(taken, song)
    try:
        found = Identity.of(song.lstat())
    except FileNotFoundError:
        return None
    return found if found.is_same_drop(identity) else None


def store(taken: Path, root: Path, name: str) -> Path:
    """Move the original from its private name to `name` below `root`, numbered where that is taken; where it is now."""
    target = root / name
    make_below(root, target.parent)
    return move(taken, target)


def move(source: Path, target: Path) -> Path:
    """Move a file, also to another filesystem, durably and without replacing: numbered where `target` is taken."""
    try:
        stored = _put(source, target)
    except OSError as error:
        # Also between two bind mounts of one filesystem, as containers have them: device numbers do not tell.
        if error.errno != errno.EXDEV:
            raise
        stored = _copy(source, target)
        source.unlink()  # the copy is durable by now
        return stored
    try:
        sync_folder(target.parent)
    except OSError as error:
        log.warning("%s is where it belongs, but the way to it cannot be synced: %s", stored, error)
    return stored


def _copy(source: Path, target: Path) -> Path:
    # Always the same, so that what a crash leaves is overwritten when it is done again.
    part = target.parent / f".stemd-{hashlib.sha256(os.fsencode(source)).hexdigest()[:16]}"
    try:
        shutil.copy2(source, part)
        with part.open("rb") as file:
            sync(file.fileno())
        part = _put(part, target)
        sync_folder(target.parent)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return part


def _put(source: Path, target: Path) -> Path:
    """Give `source` the name `target`, or the next number of it that is free."""
    number = 1
    while True:
        place = target.with_name(numbered(target.name, number))
        try:
            rename_new(source, place)
        except FileExistsError:
            number += 1
        else:
            return place
