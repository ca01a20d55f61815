"""`demixd status`, once and with `--watch`: a table on a terminal, else plain lines."""

import time
from collections.abc import Iterator

from demixd.cli import client, text
from demixd.cli.console import say
from demixd.cli.status import view, words
from demixd.cli.status.liveness import Liveness
from demixd.cli.status.overview import Overview, overview
from demixd.cli.status.reader import StatusReader, pause
from demixd.protocol.status import Sidecar
from demixd.spool.tree import Spool

REFRESH_S = 0.5


def show_once(spool: Spool) -> None:
    """The overview; without a terminal a line for the daemon and one for every song, in the order of names."""
    shown, songs = next(_overviews(spool))
    if view.is_terminal():
        view.show(shown)
        return
    say(words.line(shown, time.time()))
    for song in sorted(songs, key=lambda song: song.input.name):
        say(words.song_line(song, spool.outbox))


def show_json(spool: Spool) -> None:
    """The daemon's and every song's status file in one JSON object. Raises OSError."""
    say(text.as_json({"daemon": client.daemon(spool), "songs": list(client.sidecars(spool))}))


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
            say(words.line(shown, time.time()))
        before = key


def _overviews(spool: Spool) -> Iterator[tuple[Overview, list[Sidecar]]]:
    """What is there now, again and again."""
    reader, liveness = StatusReader(spool), Liveness(time.monotonic())
    while True:
        began = time.monotonic()
        reader.refresh()
        health = liveness.update(reader.daemon, began)
        yield overview(reader, health, liveness.silence_s(began)), reader.songs
        pause(began, REFRESH_S)
