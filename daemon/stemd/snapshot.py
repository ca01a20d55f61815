"""The snapshot: a private copy of a song, made while nobody may change it, and the only thing that is ever decoded."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from stemd.identity import Identity
from stemd.inbox.ready import open_song

CHUNK = 1 << 20


class Snapshot(msgspec.Struct, frozen=True):
    """What came of it: the content's hash, or null where the song is not what was accepted any more."""

    sha256: str | None


def take(song: Path, copy: Path, identity: Identity, stopped: Callable[[], bool]) -> Snapshot:
    """Copy `song` to `copy`, hashing on the way, and look at its identity before and after. Raises OSError."""
    digest = hashlib.sha256()
    try:
        handle = open_song(song)
    except FileNotFoundError:
        return Snapshot(None)
    with os.fdopen(handle, "rb", buffering=0) as source, copy.open("wb") as target:
        if Identity.of(os.fstat(handle)) != identity:
            return Snapshot(None)
        while chunk := source.read(CHUNK):
            if stopped():
                return Snapshot(None)
            digest.update(chunk)
            target.write(chunk)
        same = Identity.of(os.fstat(handle)) == identity and target.tell() == identity.size
    return Snapshot(digest.hexdigest() if same else None)
