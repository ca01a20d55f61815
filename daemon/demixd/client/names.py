"""Which songs a word of the command line means, by their paths below the inbox.

box/Song.flac    that song, whatever signs are in its name
04*   *.mp3      every song whose path, or file name, fits the pattern (`fnmatch`), in the order of paths
03   box/So      the one song whose file name begins so, in any folder or in that one; to a command that only shows, each
box              where none begins so, every song in the folder of that name
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from demixd.client import text
from demixd.client.reader import read_songs
from demixd.errors import BadWordError, RefusedError
from demixd.protocol.inbox_names import Kind, kind_of_file, kind_of_folder
from demixd.protocol.status import Sidecar
from demixd.spool import documents
from demixd.spool.tree import Spool

MANY = 5
"""The number of songs that a message lists."""


def below_inbox(spool: Spool, given: str) -> str:
    """The path below the inbox that `given` means: a song's name in the protocol. Raises BadWordError where it is none."""
    path = Path(given)
    if path.is_absolute() and path.is_relative_to(spool.inbox):
        path = path.relative_to(spool.inbox)
    if path.is_absolute() or ".." in path.parts or path == Path():
        shown = given or "an empty name"
        raise BadWordError(f"{shown}: give the song's path below {spool.inbox}, such as Song.flac or karaoke/Song.flac")
    return path.as_posix()


def meant(name: str, songs: Iterable[str], are: str, *, several: bool = False) -> list[str]:
    """Those of `songs` that `name` means, in order. Raises RefusedError where it is none of them.

    Also where it is the beginning of more than one, unless `several` may be meant. `are` says in the refusal what all of the
    songs are: known, or waiting or running.
    """
    there = sorted(songs)
    if name in there:
        return [name]
    if any(sign in name for sign in "*?["):
        found = [each for each in there if fnmatchcase(each, name) or fnmatchcase(_leaf(each), name)]
    else:
        found = [each for each in there if _begins(each, name) or _begins(_leaf(each), name)]
        if len(found) > 1 and not several:
            raise RefusedError(
                f"{name}: {len(found)} songs begin so, {_some(found)}: give more, or a pattern ({name}*)"
            )
    if not (found := found or [each for each in there if each.startswith(f"{name}/")]):
        raise RefusedError(f"{name}: no song of that name is {are}{_suggestion(name, there)}")
    return found


def unfinished(spool: Spool, *, recursive: bool) -> set[str]:
    """The songs that wait or run, and those in the inbox that the daemon has not seen yet. Raises OSError."""
    songs = read_songs(spool)
    return {name_of(song) for song in songs if not song.ended} | unseen(spool, songs, recursive=recursive)


def unseen(spool: Spool, songs: Iterable[Sidecar], *, recursive: bool) -> set[str]:
    """The songs in the inbox, with `recursive` below it too, of which none of the sidecars `songs` tells. Raises OSError."""
    told = {name_of(song): song for song in songs}
    return {name for name, entry in _dropped(spool.inbox, recursive=recursive) if not _tells_of(told.get(name), entry)}


def _tells_of(song: Sidecar | None, entry: os.DirEntry[str]) -> bool:
    """Whether a sidecar is that of this file, and not of one that had its name before.

    Size and time tell: on a share each machine may have inodes of its own, and finer times than another.
    """
    if song is None or not song.ended:
        return song is not None
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return True  # gone since it was listed
    return is_file_of(song, status)


def is_file_of(song: Sidecar, status: os.stat_result) -> bool:
    """Whether a file of this status can be the sidecar's song."""
    return (song.input.size, song.input.mtime_ns // 1000) == (status.st_size, status.st_mtime_ns // 1000)


def name_of(song: Sidecar) -> str:
    """The song's path below the inbox, for Python's file functions: bytes that are not UTF-8 are lone surrogates."""
    try:
        raw = song.input.raw_name
    except ValueError:
        return song.input.name
    return os.fsdecode(raw) if raw.decode("utf-8", "replace") == song.input.name else song.input.name


def _begins(name: str, beginning: str) -> bool:
    """Whether `name` begins so, and only its last part goes on."""
    return name.startswith(beginning) and "/" not in name[len(beginning) :]


def _dropped(inbox: Path, *, recursive: bool) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every song in the inbox by its path below it: a file where the daemon looks. Raises OSError."""
    root = os.fspath(inbox)
    for entry in documents.below(root):
        name = entry.path[len(root) + 1 :]
        *folders, leaf = name.split("/")
        is_walked = not folders or (recursive and not any(kind_of_folder(folder) for folder in folders))
        if is_walked and kind_of_file(leaf) is Kind.SONG and entry.is_file(follow_symlinks=False):
            yield name, entry


def is_dropped(path: Path) -> bool:
    """Whether the inbox has a file that can be a song at `path`: no link, FIFO or the like, which the daemon leaves alone."""
    return kind_of_file(path.name) is Kind.SONG and path.is_file() and not path.is_symlink()


def _suggestion(name: str, there: Sequence[str]) -> str:
    """The end of a message about an unknown name: the songs that may have been meant, else those that there are."""
    if not there:
        return "; there is none at all"
    leaf = _leaf(name).lower()
    same = [each for each in there if _leaf(each).lower() == leaf]
    if close := same or get_close_matches(name, there, MANY, 0.5):
        return f"; did you mean {' or '.join(close[:MANY])}?"
    return f"; there {'are' if len(there) > 1 else 'is'} {_some(there)}"


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {text.some(len(names) - MANY, 'other')}" if len(names) > MANY else ""
    return f"{', '.join(names[:MANY])}{more}"


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]
