"""Publish: the finished work folder becomes the result by one rename, and the original goes where the policy sends it."""

import logging
import os
import shutil
from pathlib import Path

import msgspec

from stemd.identity import Identity
from stemd.spool import MANIFEST, rename_new, sync_folder

log = logging.getLogger(__name__)


def free_name(folder: Path, wanted: str) -> str:
    """`wanted`, or `wanted (2)` and so on where `folder` has it already, compared without case."""
    taken = {entry.name.casefold() for entry in folder.iterdir()} if folder.is_dir() else set()
    name, number = wanted, 1
    while name.casefold() in taken:
        number += 1
        name = f"{wanted} ({number})"
    return name


def numbered(leaf: str, number: int) -> str:
    """`Song.flac`, `Song (2).flac`, ..."""
    stem, dot, extension = leaf.rpartition(".")
    return leaf if number == 1 else f"{stem} ({number}){dot}{extension}" if dot else f"{leaf} ({number})"


def write_manifest(out: Path, data: bytes) -> None:
    """Write `stems.json` last and make the folder durable."""
    with (out / MANIFEST).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(out)


def rename_into_outbox(out: Path, outbox: Path, target: str) -> bool:
    """The one moment that decides; whether it is durable, which a filesystem may refuse to say.

    `FileExistsError` where the name has been taken since it was chosen. An OSError means that nothing was published: what
    fails after the rename cannot take it back, so it is no error.
    """
    place = outbox / target
    place.parent.mkdir(parents=True, exist_ok=True)
    rename_new(out, place)
    try:
        sync_folder(place.parent)
    except OSError as error:
        log.warning("%s is published, but %s cannot be synced: %s", target, place.parent, error)
        return False
    return True


def is_ours(folder: Path, job_id: str) -> bool:
    """Whether the result in `folder` is that of this job."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    except (OSError, msgspec.DecodeError):
        return False
    return isinstance(manifest, dict) and manifest.get("job_id") == job_id


def take(song: Path, taken: Path, identity: Identity) -> bool:
    """Move the original aside under a private name, if it still is what the snapshot was made of. Idempotent.

    Whatever else carries the name by now is a new drop: it is put back at once, never replaced.
    """
    if not taken.exists():
        try:
            song.rename(taken)
        except FileNotFoundError:
            return False
    found = Identity.of(taken.lstat())
    if found.is_same_drop(identity):
        return True
    _put(taken, song)
    return False


def put_back(taken: Path, song: Path) -> Identity | None:
    """Give an original that could not be put away its name back; what it is there now."""
    if taken.exists():
        _put(taken, song)
    try:
        return Identity.of(song.lstat())
    except FileNotFoundError:
        return None


def store(taken: Path, target: Path) -> None:
    """Move the original from its private name to `target`, numbered where that is taken."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if taken.stat().st_dev == target.parent.stat().st_dev:
        _put(taken, target)
    else:
        part = target.parent / taken.name
        shutil.copy2(taken, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        _put(part, target)
        taken.unlink()
    sync_folder(target.parent)


def _put(source: Path, target: Path) -> None:
    number = 1
    while True:
        try:
            rename_new(source, target.with_name(numbered(target.name, number)))
        except FileExistsError:
            number += 1
        else:
            return
