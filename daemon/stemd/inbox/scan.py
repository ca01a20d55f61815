"""One look at the inbox. The listing is the truth; nothing is opened, followed or changed here."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stemd import below
from stemd.identity import Identity
from stemd.inbox.names import Kind, being_written, kind_of_file, kind_of_folder
from stemd.spool import OPTIONS, companion

DEEPEST = 200
"""Folders within each other that are walked, ..."""

LONGEST = 2000
"""... and bytes of a folder's path below the inbox: with room for those of the other parts of the spool, where it is
mirrored, and for what follows, in the 4,096 that the kernel takes."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the inbox; `name` is its path below it."""

    name: str
    kind: Kind
    identity: Identity
    companion: bool = False
    """Whether another file beside it says that it is still being written."""
    options: Identity | None = None
    """The song's option file."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in the inbox. Not `complete` where a folder could not be read: what is missing may still be there."""

    songs: dict[str, Seen]
    cancels: tuple[Seen, ...]
    options: tuple[Seen, ...]
    others: tuple[Seen, ...]
    complete: bool


def scan(inbox: Path, *, recursive: bool) -> Listing:
    """List the inbox. Raises OSError where the inbox itself cannot be read."""
    found = list(_walk(inbox, "", recursive=recursive))
    options = {seen.name: seen.identity for seen in found if seen.kind is Kind.OPTIONS}
    songs = {seen.name: seen for seen in found if seen.kind is Kind.SONG}
    if options:
        for name, seen in songs.items():
            songs[name] = msgspec.structs.replace(seen, options=options.get(companion(name, OPTIONS)))
    return Listing(
        songs=songs,
        cancels=tuple(seen for seen in found if seen.kind is Kind.CANCEL),
        options=tuple(seen for seen in found if seen.kind is Kind.OPTIONS),
        others=tuple(seen for seen in found if seen.kind not in (Kind.SONG, Kind.CANCEL, Kind.OPTIONS)),
        complete=all(seen.kind is not Kind.UNREADABLE_FOLDER for seen in found),
    )


def _listed(root: Path, way: str) -> list[tuple[str, os.stat_result]]:
    """Name and status of all that is in the folder `way` below `root`; no link is followed, whenever it came."""
    found = []
    with below.reach(root, root / way, follow=True) as reached:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=reached)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # What went since it was listed, the next look will not show.
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
    finally:
        os.close(folder)
    return sorted(found, key=lambda each: each[0])


def _walk(root: Path, way: str, *, recursive: bool) -> Iterator[Seen]:
    listed = _listed(root, way)
    unfinished = being_written(leaf for leaf, _ in listed)
    for leaf, status in listed:
        name = f"{way}{leaf}"
        identity = Identity.of(status)
        if not stat.S_ISDIR(status.st_mode):
            kind = kind_of_file(leaf, at_root=not way)
            if not stat.S_ISREG(status.st_mode) and kind is not Kind.CANCEL:
                kind = Kind.NOT_A_FILE
            yield Seen(name=name, kind=kind, identity=identity, companion=leaf in unfinished)
        elif reason := kind_of_folder(leaf):
            yield Seen(name=name, kind=reason, identity=identity)
        elif not recursive:
            yield Seen(name=name, kind=Kind.NOT_WALKED, identity=identity)
        elif name.count("/") >= DEEPEST or len(os.fsencode(name)) > LONGEST:
            yield Seen(name=name, kind=Kind.UNREADABLE_FOLDER, identity=identity)
        else:
            try:
                yield from _walk(root, f"{name}/", recursive=True)
            except OSError:
                yield Seen(name=name, kind=Kind.UNREADABLE_FOLDER, identity=identity)
