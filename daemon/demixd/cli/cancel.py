"""What `demixd cancel` asks for, and what came of it."""

import os
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

import msgspec

from demixd.cli import client, text
from demixd.cli.client import RefusedError
from demixd.cli.status.board import Board
from demixd.cli.wait import Lookout, all_cancelled, cancelled
from demixd.protocol.inbox_names import Kind, kind_of_file
from demixd.protocol.job import State
from demixd.protocol.status import Sidecar
from demixd.spool import documents
from demixd.spool.tree import Spool

MANY = 5
"""So many names of what is there help; more do not."""

Say = Callable[[str], None]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A cancel file that was written for `name`; `before` is the sidecar as it was then."""

    name: str
    before: Sidecar | None


def ask(spool: Spool, given: str, say: Say) -> Asked | None:
    """Ask for one song to stop; null where it has ended already. Raises RefusedError, OSError."""
    name = _below_inbox(spool, given)
    song = documents.read(spool.sidecar(name), Sidecar)
    is_there = kind_of_file(name.rpartition("/")[2]) is Kind.SONG and os.path.lexists(spool.song(name))
    if song is None and not is_there:
        raise RefusedError(f"{given}: no song of that name is known{_instead(spool, name)}")
    if song is not None and song.ended and not is_there:
        say(f"{name}: is {song.state} already, nothing is to be stopped")
        return None
    client.cancel(spool, name)
    doing = "not seen by the daemon yet" if song is None or song.ended else _doing(song)
    say(f"{name}: asked to stop ({doing})")
    return Asked(name=name, before=song)


def ask_all(spool: Spool, say: Say) -> list[Sidecar]:
    """Ask for everything to stop; what there was to stop. Raises OSError."""
    board = Board(spool)
    board.look()
    going = [song for song in board.songs if not song.ended]
    client.cancel_all(spool)
    running = sum(song.state is State.RUNNING for song in going)
    say(f"asked everything to stop: {running} running, {len(going) - running} waiting")
    return going


def answer(spool: Spool, asked: Asked, lookout: Lookout, say: Say, complain: Say) -> bool:
    """Wait for what came of it; whether the song is cancelled."""
    song = cancelled(spool, asked.name, asked.before, lookout, complain)
    if song is not None and song.state is State.CANCELLED:
        say(f"{asked.name}: cancelled")
        return True
    complain(f"{asked.name}: too late, it is {song.state}" if song else f"{asked.name}: the daemon knows no such job")
    return False


def answer_all(spool: Spool, going: list[Sidecar], lookout: Lookout, say: Say, complain: Say) -> bool:
    """Wait until everything has stopped; whether all that was there is cancelled."""
    all_cancelled(spool, lookout, complain)
    board = Board(spool)
    board.look()
    states = {song.job_id: song.state for song in board.songs}
    states |= {song.previous.job_id: song.previous.state for song in board.songs if song.previous}
    late = [song for song in going if states.get(song.job_id, State.CANCELLED) is not State.CANCELLED]
    for song in late:
        complain(f"{song.input.name}: too late, it is {states[song.job_id]}")
    say(f"{text.some(len(going) - len(late), 'song')} cancelled")
    return not late


def _doing(song: Sidecar) -> str:
    if song.state is State.RUNNING:
        return f"running, {text.percent(song.progress.fraction)}"
    return f"{song.state}, {song.reason}"


def _below_inbox(spool: Spool, given: str) -> str:
    """The name as the protocol has it: the path below the inbox."""
    path = Path(given)
    if path.is_absolute() and path.is_relative_to(spool.inbox):
        path = path.relative_to(spool.inbox)
    if path.is_absolute() or ".." in path.parts or path == Path():
        raise RefusedError(f"{given}: give the song's path below {spool.inbox}, such as Song.flac or karaoke/Song.flac")
    return path.as_posix()


def _instead(spool: Spool, name: str) -> str:
    """What is there, the nearest first."""
    board = Board(spool)
    board.look()
    there = list(dict.fromkeys([*(song.input.name for song in board.songs if not song.ended), *_songs(spool.inbox)]))
    if not there:
        return "; nothing is waiting or running"
    leaf = name.rpartition("/")[2].lower()
    close = [each for each in there if each.rpartition("/")[2].lower() == leaf] or get_close_matches(
        name, there, MANY, 0.5
    )
    if close:
        return f"; did you mean {' or '.join(close[:MANY])}?"
    more = f" and {len(there) - MANY} more" if len(there) > MANY else ""
    return f"; there are {', '.join(there[:MANY])}{more}" if len(there) > 1 else f"; there is {there[0]}"


def _songs(inbox: Path) -> Iterator[str]:
    for folder, _, files in os.walk(inbox):
        below = os.path.relpath(folder, inbox)
        for file in files:
            if kind_of_file(file) is Kind.SONG:
                yield file if below == "." else f"{below}/{file}"
