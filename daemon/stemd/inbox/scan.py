"""One look at the inbox. The listing is the truth; nothing is opened, followed or changed here."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stemd.identity import Identity
from stemd.inbox.names import Kind, being_written, kind_of_file, kind_of_folder
from stemd.spool import OPTIONS, companion


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
    found = list(_walk(os.fspath(inbox), "", recursive=recursive))
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


def _walk(root: str, below: str, *, recursive: bool) -> Iterator[Seen]:
    with os.scandir(f"{root}/{below}") as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    unfinished = being_written(entry.name for entry in listed)
    for entry in listed:
        name = f"{below}{entry.name}"
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # Gone since it was listed: the next look will not show it.
        identity = Identity.of(status)
        if not stat.S_ISDIR(status.st_mode):
            kind = kind_of_file(entry.name, at_root=not below)
            if not stat.S_ISREG(status.st_mode) and kind is not Kind.CANCEL:
                kind = Kind.NOT_A_FILE
            yield Seen(name=name, kind=kind, identity=identity, companion=entry.name in unfinished)
        elif reason := kind_of_folder(entry.name):
            yield Seen(name=name, kind=reason, identity=identity)
        elif not recursive:
            yield Seen(name=name, kind=Kind.NOT_WALKED, identity=identity)
        else:
            try:
                yield from _walk(root, f"{name}/", recursive=True)
            except OSError:
                yield Seen(name=name, kind=Kind.UNREADABLE_FOLDER, identity=identity)
