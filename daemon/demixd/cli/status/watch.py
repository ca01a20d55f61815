"""`demixd status`, once and with `--watch`: a table on a terminal, else plain lines."""

import time
from collections.abc import Iterator, Sequence

from demixd.cli import client, names, text
from demixd.cli.console import say
from demixd.cli.status import view, words
from demixd.cli.status.liveness import Liveness, age_s
from demixd.cli.status.overview import Overview, overview
from demixd.cli.status.reader import StatusReader, pause
from demixd.protocol.status import Sidecar
from demixd.spool.tree import Spool

REFRESH_S = 0.5


def show_once(spool: Spool, given: Sequence[str], *, everything: bool) -> bool:
    """The overview; whether all is well. Without a terminal, or with `everything`, a line for the daemon and one a song.

    Lines are in the order of names: those of the songs that are not over and of the last results, of the songs that
    are `given` (`names` says how), or of everything. Raises RefusedError where there is no such song.
    """
    shown, songs = next(_overviews(spool))
    if given:
        wanted = _wanted(spool, given, songs)
        for song in wanted:
            say(words.song_line(song, spool.outbox, shown.etas.get(song.job_id)))
        return shown.is_well
    if view.is_terminal() and not everything:
        view.show(shown)
        return shown.is_well
    say(words.line(shown))
    listed = songs if everything else [*(song for song in songs if not song.ended), *shown.results]
    for song in sorted(listed, key=lambda song: song.input.name):
        say(words.song_line(song, spool.outbox, shown.etas.get(song.job_id)))
    if len(listed) < len(songs):
        say(f"and {len(songs) - len(listed)} more that are over: `demixd status --all` shows them")
    return shown.is_well


def _wanted(spool: Spool, given: Sequence[str], songs: Sequence[Sidecar]) -> list[Sidecar]:
    by_name = {names.name_of(song): song for song in songs}
    there = list(by_name)
    found = [name for word in given for name in names.meant(names.below_inbox(spool, word), there)]
    return [by_name[name] for name in dict.fromkeys(found)]


def show_json(spool: Spool) -> bool:
    """The daemon's and every song's status file in one JSON object; whether all is well. Raises OSError."""
    shown, _ = next(_overviews(spool))
    say(text.as_json({"daemon": client.daemon(spool), "songs": list(client.sidecars(spool))}))
    return shown.is_well


def keep_showing(spool: Spool) -> None:
    """The overview until Ctrl-C; without a terminal a line for each change."""
    if view.is_terminal():
        with view.screen() as show:
            for shown, _ in _overviews(spool):
                show(shown)
    before = None
    for shown, _ in _overviews(spool):
        key = words.change_key(shown)
        if key != before:
            say(f"{time.strftime('%H:%M:%S')} {words.line(shown)}")
        before = key


def _overviews(spool: Spool) -> Iterator[tuple[Overview, list[Sidecar]]]:
    """What is there now, again and again."""
    reader, liveness = StatusReader(spool), Liveness(time.monotonic())
    while True:
        began = time.monotonic()
        reader.refresh()
        health = liveness.update(reader.daemon, began)
        age = age_s(reader.daemon, time.time())
        yield overview(reader, health, liveness.silence_s(began), age), reader.songs
        pause(began, REFRESH_S)
