"""`demixd cancel`: asks for jobs to stop, and with `--wait` tells what came of it."""

import os
import time
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

import msgspec

from demixd.cli import client, text
from demixd.cli.console import RefusedError, complain, say
from demixd.cli.status.liveness import SilenceNotice
from demixd.cli.status.reader import CachedDocument, read_songs
from demixd.protocol.inbox_names import Kind, kind_of_file
from demixd.protocol.job import State
from demixd.protocol.status import Sidecar
from demixd.spool import documents
from demixd.spool.tree import Spool

POLL_S = 0.2

MANY = 5
"""The number of songs that a message about an unknown name lists."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A song for which a cancel file was written; `before` is its sidecar as it was then."""

    name: str
    before: Sidecar | None


def cancel(spool: Spool, names: Sequence[str], notice: SilenceNotice | None) -> bool:
    """Ask for the songs to stop, and with `notice` wait for the answers; whether all went as asked. Raises OSError.

    A name that no song has is complained of, and the others are asked for all the same.
    """
    asked, is_good = [], True
    for name in names:
        try:
            asked.append(_ask(spool, name))
        except RefusedError as error:
            is_good = False
            complain(f"demixd: {error}")
    for each in asked:
        if notice is not None and each is not None:
            is_good = _answer(spool, each, notice) and is_good
    return is_good


def cancel_all(spool: Spool, notice: SilenceNotice | None) -> bool:
    """Ask for every job to stop, and with `notice` wait for it; whether all that there were are cancelled. Raises OSError."""
    going = [song for song in read_songs(spool) if not song.ended]
    client.cancel_all(spool)
    running = sum(song.state is State.RUNNING for song in going)
    say(f"asked everything to stop: {running} running, {len(going) - running} waiting")
    if notice is None:
        return True
    while os.path.lexists(spool.cancel_all):
        _wait(notice)
    songs = read_songs(spool)
    states = {song.job_id: song.state for song in songs}
    states |= {song.previous.job_id: song.previous.state for song in songs if song.previous}
    late = [song for song in going if states.get(song.job_id, State.CANCELLED) is not State.CANCELLED]
    for song in late:
        complain(f"{song.input.name}: too late, it is {states[song.job_id]}")
    say(f"{text.some(len(going) - len(late), 'song')} cancelled")
    return not late


def _ask(spool: Spool, given: str) -> Asked | None:
    """Ask for one song to stop; None where it has ended already. Raises RefusedError, OSError."""
    name = _below_inbox(spool, given)
    song = documents.read(spool.sidecar(name), Sidecar)
    is_there = kind_of_file(name.rpartition("/")[2]) is Kind.SONG and os.path.lexists(spool.song(name))
    if song is None and not is_there:
        raise RefusedError(f"{given}: no song of that name is known{_suggestion(spool, name)}")
    if song is not None and song.ended and not is_there:
        say(f"{name}: it is {song.state} already, there is nothing to stop")
        return None
    client.cancel(spool, name)
    doing = "not seen by the daemon yet" if song is None or song.ended else _doing(song)
    say(f"{name}: asked to stop ({doing})")
    return Asked(name=name, before=song)


def _answer(spool: Spool, asked: Asked, notice: SilenceNotice) -> bool:
    """Wait for the daemon's answer, and tell it; whether the song is cancelled."""
    song = _await_answer(spool, asked, notice)
    if song is not None and song.state is State.CANCELLED:
        say(f"{asked.name}: cancelled")
        return True
    complain(f"{asked.name}: too late, it is {song.state}" if song else f"{asked.name}: the daemon knows no such job")
    return False


def _await_answer(spool: Spool, asked: Asked, notice: SilenceNotice) -> Sidecar | None:
    """The song's sidecar once the daemon has answered the cancel; None where the daemon knew no such song.

    The daemon removes the cancel file after it has written the sidecar. One that it cannot remove is answered by `cancel`
    in the sidecar.
    """
    file, path = CachedDocument(spool.sidecar(asked.name), Sidecar), spool.cancel(asked.name)
    while True:
        is_there = os.path.lexists(path)
        song = file.refresh()
        is_told = song is not None and song.cancel is not None and (asked.before is None or song.seq > asked.before.seq)
        if not is_there or (is_told and song is not None and song.ended):
            return song
        _wait(notice)


def _wait(notice: SilenceNotice) -> None:
    if sentence := notice.due(time.monotonic()):
        complain(sentence)
    time.sleep(POLL_S)


def _doing(song: Sidecar) -> str:
    if song.state is State.RUNNING:
        return f"running, {text.percent(song.progress.fraction)}"
    return f"{song.state}, {song.reason}"


def _below_inbox(spool: Spool, given: str) -> str:
    """The path below the inbox that `given` means: the song's name in the protocol."""
    path = Path(given)
    if path.is_absolute() and path.is_relative_to(spool.inbox):
        path = path.relative_to(spool.inbox)
    if path.is_absolute() or ".." in path.parts or path == Path():
        raise RefusedError(f"{given}: give the song's path below {spool.inbox}, such as Song.flac or karaoke/Song.flac")
    return path.as_posix()


def _suggestion(spool: Spool, name: str) -> str:
    """The end of a message about an unknown name: the songs that may have been meant, else those that there are."""
    going = (song.input.name for song in read_songs(spool) if not song.ended)
    there = list(dict.fromkeys([*going, *_songs(spool.inbox)]))
    if not there:
        return "; nothing is waiting or running"
    leaf = name.rpartition("/")[2].lower()
    same = [each for each in there if each.rpartition("/")[2].lower() == leaf]
    if close := same or get_close_matches(name, there, MANY, 0.5):
        return f"; did you mean {' or '.join(close[:MANY])}?"
    more = f" and {len(there) - MANY} more" if len(there) > MANY else ""
    return f"; there are {', '.join(there[:MANY])}{more}" if len(there) > 1 else f"; there is {there[0]}"


def _songs(inbox: Path) -> Iterator[str]:
    """Every song in the inbox, by its path below it."""
    for folder, _, files in os.walk(inbox):
        below = os.path.relpath(folder, inbox)
        for file in files:
            if kind_of_file(file) is Kind.SONG:
                yield file if below == "." else f"{below}/{file}"
