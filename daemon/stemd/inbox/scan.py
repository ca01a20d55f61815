"""One look at the inbox. The listing is the truth; nothing is opened, followed or changed here."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stemd.identity import Identity
from stemd.inbox.names import Kind, companions, kind_of_file, kind_of_folder


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the inbox; `name` is its path below it."""

    name: str
    kind: Kind
    identity: Identity
    companion: bool = False
    """Whether another file beside it says that it is still being written."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in the inbox. Not `complete` where a folder could not be read: what is missing may still be there."""

    songs: dict[str, Seen]
    cancels: tuple[Seen, ...]
    others: tuple[Seen, ...]
    complete: bool


def scan(inbox: Path, *, recursive: bool) -> Listing:
    """List the inbox. Raises OSError where the inbox itself cannot be read."""
    found = list(_walk(os.fspath(inbox), "", recursive=recursive))
    return Listing(
        songs={seen.name: seen for seen in found if seen.kind is Kind.SONG},
        cancels=tuple(seen for seen in found if seen.kind is Kind.CANCEL),
        others=tuple(seen for seen in found if seen.kind not in (Kind.SONG, Kind.CANCEL)),
        complete=all(seen.kind is not Kind.UNREADABLE_FOLDER for seen in found),
    )


def _walk(root: str, below: str, *, recursive: bool) -> Iterator[Seen]:
    with os.scandir(f"{root}/{below}") as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    names = {entry.name for entry in listed}
    for entry in listed:
        name = f"{below}{entry.name}"
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # Gone since it was listed: the next look will not show it.
        identity = Identity.of(status)
        if not stat.S_ISDIR(status.st_mode):
            kind = kind_of_file(entry.name) if stat.S_ISREG(status.st_mode) else Kind.NOT_A_FILE
            companion = kind is Kind.SONG and not names.isdisjoint(companions(entry.name))
            yield Seen(name=name, kind=kind, identity=identity, companion=companion)
        elif reason := kind_of_folder(entry.name):
            yield Seen(name=name, kind=reason, identity=identity)
        elif recursive:
            try:
                yield from _walk(root, f"{name}/", recursive=True)
            except OSError:
                yield Seen(name=name, kind=Kind.UNREADABLE_FOLDER, identity=identity)
