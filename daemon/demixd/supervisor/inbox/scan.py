"""One look at the inbox. The listing is the truth; nothing is opened, followed or changed here."""

import contextlib
import operator
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from demixd.protocol.identity import Identity
from demixd.protocol.inbox_names import Kind, being_written, kind_of_file, kind_of_folder
from demixd.spool import nofollow
from demixd.spool.tree import OPTIONS, companion, is_too_deep

NAMES_ONLY = frozenset({Kind.NOT_AUDIO, Kind.UNSUPPORTED, Kind.MISPLACED, Kind.IGNORED})
"""Kinds of files about which nothing but the name matters: the kernel need not be asked for their status."""


class Seen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An entry of the inbox; `name` is its path below it."""

    name: str
    kind: Kind
    identity: Identity
    companion: str = ""
    """The file beside it that says that it is still being written; empty where there is none."""
    options: Identity | None = None
    """The song's option file."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in the inbox. Not `complete` where a folder could not be read: what is missing may still be there."""

    songs: dict[str, Seen]
    cancels: tuple[Seen, ...]
    options: tuple[Seen, ...]
    others: tuple[Seen, ...]
    complete: bool
    folders: frozenset[int] = frozenset()
    """The inodes of the folders below it that were walked."""

    unwalked: tuple[Seen, ...] = ()
    """The other folders."""
    files: dict[str, Seen] = {}
    """Each entry that is no folder, by name, without its options."""


NOTHING = Listing(songs={}, cancels=(), options=(), others=(), complete=True)


def scan(inbox: Path, *, recursive: bool, before: Listing = NOTHING, by_inode: bool = False) -> Listing:
    """List the inbox. Raises OSError where the inbox itself cannot be read.

    What is as it was in the listing `before` is that very object again, and so is the listing where nothing is new: of
    10,000 old files a look costs little then, and no memory. With `by_inode` a song counts as it was where its name has
    the same inode, which the listing tells; most of a look's time is to ask for each one's status.
    """
    if _is_same(inbox, before, NAMES_ONLY | {Kind.SONG} if by_inode else NAMES_ONLY):
        return before
    walk = _Walk(before.files, recursive=recursive)
    with _open_folder(inbox) as root:
        walk.folder(root, "")
    unwalked, folders = tuple(walk.unwalked), frozenset(walk.folders)
    if (
        not walk.is_new
        and len(walk.files) == len(before.files)
        and (unwalked, folders) == (before.unwalked, before.folders)
    ):
        return before
    found = [*walk.files.values(), *unwalked]
    options = {seen.name: seen.identity for seen in found if seen.kind is Kind.OPTIONS}
    songs = {seen.name: seen for seen in found if seen.kind is Kind.SONG}
    if options:
        for name, seen in songs.items():
            if (own := options.get(companion(name, OPTIONS))) is not None:
                songs[name] = msgspec.structs.replace(seen, options=own)
    return Listing(
        songs=songs,
        cancels=tuple(seen for seen in found if seen.kind is Kind.CANCEL),
        options=tuple(seen for seen in found if seen.kind is Kind.OPTIONS),
        others=tuple(seen for seen in found if seen.kind not in (Kind.SONG, Kind.CANCEL, Kind.OPTIONS)),
        complete=all(seen.kind is not Kind.UNREADABLE_FOLDER for seen in found),
        folders=folders,
        unwalked=unwalked,
        files=walk.files,
    )


def _is_same(inbox: Path, before: Listing, by_inode: frozenset[Kind]) -> bool:
    try:
        with _open_folder(inbox) as folder:
            return _same(folder, "", before, by_inode) == len(before.files) + len(before.folders)
    except OSError:
        return False  # a file went, or a folder cannot be read: the walk knows what to make of it


def _same(folder: int, way: str, before: Listing, by_inode: frozenset[Kind]) -> int:
    """How many entries are as they were, those of the kinds in `by_inode` by that alone; -1 where one is not. A folder counts
    as one more. Raises OSError."""
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            name = way + entry.name
            known = before.files.get(name)
            if known is not None and known.kind in by_inode:
                is_same = known.identity.inode == entry.inode() and entry.is_file(follow_symlinks=False)
            elif known is not None:
                is_same = known.identity.matches(entry.stat(follow_symlinks=False))
            elif is_same := _was_walked(entry, before):
                with _open_folder(entry.name, folder) as inside:
                    inner = _same(inside, f"{name}/", before, by_inode)
                is_same, count = inner >= 0, count + inner
            if not is_same:
                return -1
            count += 1
    return count


@contextlib.contextmanager
def _open_folder(path: Path | str, within: int | None = None) -> Iterator[int]:
    """A folder to list: the inbox, or one `within` another. What is in it is named from there, so that nobody who puts a link
    in its place leads us astray."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=within)
    try:
        yield handle
    finally:
        nofollow.close(handle)


def _was_walked(entry: os.DirEntry[str], before: Listing) -> bool:
    is_known = entry.inode() in before.folders and kind_of_folder(entry.name) is None
    return is_known and entry.is_dir(follow_symlinks=False)


class _Walk:
    """One walk through the inbox: what was found, and in which folders, by inode."""

    def __init__(self, known: dict[str, Seen], *, recursive: bool) -> None:
        self._known, self._recursive = known, recursive
        self.files: dict[str, Seen] = {}
        self.unwalked: list[Seen] = []
        self.folders: set[int] = set()
        self.is_new = False
        """Whether a file is not as it was."""

    def folder(self, handle: int, way: str) -> None:
        """Each entry of an open folder whose path below the root is `way` (with a slash at its end). Raises OSError."""
        listed = self._listed(handle, way)
        unfinished = being_written(leaf for leaf, _ in listed)
        for leaf, seen in listed:
            name = way + leaf
            if not isinstance(seen, Seen):
                self._sub_folder(handle, name, leaf, seen)
                continue
            if seen.companion != (beside := unfinished.get(leaf, "")):
                seen = msgspec.structs.replace(seen, companion=beside)
                self.is_new = True
            self.files[name] = seen

    def _listed(self, folder: int, way: str) -> list[tuple[str, Seen | Identity]]:
        """What is in an open folder, by name: files, and the identities of folders.

        Asked for in the order in which the kernel lists it, and not through the path: with 10,000 files that is cheaper.
        """
        found: list[tuple[str, Seen | Identity]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = way + entry.name
                known = self._known.get(name)
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # Gone since it was listed: the next look will not show it.
                if known is not None and known.identity.matches(status):
                    found.append((entry.name, known))  # what it is follows from its name and its inode
                elif stat.S_ISDIR(status.st_mode):
                    found.append((entry.name, Identity.of(status)))
                else:
                    found.append((entry.name, _file(name, entry.name, status)))
                    self.is_new = True
        found.sort(key=operator.itemgetter(0))
        return found

    def _sub_folder(self, within: int, name: str, leaf: str, identity: Identity) -> None:
        reason = kind_of_folder(leaf)
        if reason is None and not self._recursive:
            reason = Kind.NOT_WALKED
        elif reason is None and is_too_deep(name):
            reason = Kind.UNREADABLE_FOLDER
        if reason is None:
            try:
                with _open_folder(leaf, within) as handle:
                    self.folder(handle, f"{name}/")
                self.folders.add(identity.inode)
            except OSError:
                reason = Kind.UNREADABLE_FOLDER
        if reason is not None:
            self.unwalked.append(Seen(name=name, kind=reason, identity=identity))


def _file(name: str, leaf: str, status: os.stat_result) -> Seen:
    kind = kind_of_file(leaf, at_root=leaf == name)
    if not stat.S_ISREG(status.st_mode) and kind not in (Kind.CANCEL, Kind.PAUSE):
        kind = Kind.NOT_A_FILE
    return Seen(name=name, kind=kind, identity=Identity.of(status))
