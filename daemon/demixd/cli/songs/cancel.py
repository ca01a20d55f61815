"""`demixd cancel`: asks for jobs to stop, and with `--wait` tells what came of it."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from demixd.cli.console import complain, say
from demixd.cli.status.notice import SilenceNotice, complain_if_absent
from demixd.client import actions, names, text
from demixd.client.reader import CachedDocument, read_songs
from demixd.config import Config
from demixd.errors import RefusedError
from demixd.protocol.job import State
from demixd.protocol.status import Sidecar
from demixd.spool import documents
from demixd.spool.tree import Spool

POLL_S = 0.2


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A song for which a cancel file was written; `before` is its sidecar as it was then."""

    name: str
    before: Sidecar | None


def cancel(config: Config, given: Sequence[str], notice: SilenceNotice | None) -> bool:
    """Ask for songs to stop (`names` says which), and with `notice` wait for the answers.

    Whether all went as asked: there are such songs, and with `notice` all are cancelled. A song that is over is told of. A
    name that no song has is complained of, and the others are asked for all the same. Raises BadWordError, OSError.
    """
    spool = Spool(config)
    wanted: list[str] = []
    is_good = True
    for name in [names.below_inbox(spool, word) for word in given]:
        try:
            wanted += [name] if _is_known(spool, name) else _meant(spool, name, recursive=config.inbox.recursive)
        except RefusedError as error:
            is_good = False
            complain(f"demixd: {error}")
    asked = []
    for name in dict.fromkeys(wanted):
        song = documents.read(spool.sidecar(name), Sidecar)
        if song is not None and song.ended and not names.is_dropped(spool.song(name)):
            say(f"{name}: it {_over(song.state)} already, there is nothing to stop")
            is_good = is_good and (notice is None or song.state is State.CANCELLED)
        else:
            asked.append(_ask(spool, name, song))
    if notice is not None:
        for each in asked:
            is_good = _answer(spool, each, notice) and is_good
    elif asked:
        complain_if_absent(spool)
    return is_good


def cancel_all(spool: Spool, notice: SilenceNotice | None) -> bool:
    """Ask for every job to stop, and with `notice` wait for it; whether all that there were are cancelled. Raises OSError."""
    going = [song for song in read_songs(spool) if not song.ended]
    actions.cancel_all(spool)
    running = sum(song.state is State.RUNNING for song in going)
    say(f"asked everything to stop: {running} running, {len(going) - running} waiting")
    if notice is None:
        complain_if_absent(spool)
        return True
    while os.path.lexists(spool.cancel_all):
        _wait(notice)
    songs = read_songs(spool)
    states = {song.job_id: song.state for song in songs}
    states |= {song.previous.job_id: song.previous.state for song in songs if song.previous}
    late = [song for song in going if states.get(song.job_id, State.CANCELLED) is not State.CANCELLED]
    for song in late:
        complain(f"{song.input.name}: too late, it {_over(states[song.job_id])}")
    say(f"{text.some(len(going) - len(late), 'song')} cancelled")
    return not late


def _is_known(spool: Spool, name: str) -> bool:
    """Whether a song has exactly that name, and lies in the inbox or has a status."""
    return names.is_dropped(spool.song(name)) or documents.read(spool.sidecar(name), Sidecar) is not None


def _meant(spool: Spool, name: str, *, recursive: bool) -> list[str]:
    """The songs that `name` means: those that are over only where none that waits or runs fits. Raises RefusedError, OSError."""
    going, are = names.unfinished(spool, recursive=recursive), "waiting or running"
    try:
        names.meant(name, going, are, several=True)
    except RefusedError:
        with suppress(RefusedError):
            return names.meant(name, {names.name_of(song) for song in read_songs(spool)}, "over", several=True)
    return names.meant(name, going, are)


def _ask(spool: Spool, name: str, song: Sidecar | None) -> Asked:
    """Ask for one song to stop, whose sidecar is `song`. Raises OSError."""
    actions.cancel(spool, name)
    doing = "not seen by the daemon yet" if song is None or song.ended else _doing(song)
    say(f"{name}: asked to stop ({doing})")
    return Asked(name=name, before=song)


def _answer(spool: Spool, asked: Asked, notice: SilenceNotice) -> bool:
    """Wait for the daemon's answer, and tell it; whether the song is cancelled."""
    song = _await_answer(spool, asked, notice)
    if song is not None and song.state is State.CANCELLED:
        say(f"{asked.name}: cancelled")
        return True
    complain(
        f"{asked.name}: too late, it {_over(song.state)}" if song else f"{asked.name}: the daemon knows no such job"
    )
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


def _over(state: State) -> str:
    return "has failed" if state is State.FAILED else f"is {state}"


def _doing(song: Sidecar) -> str:
    if song.state is State.RUNNING:
        return f"running, {text.percent(song.progress.fraction)}"
    return f"{song.state}, {song.reason}"
