"""Looking again and again: `status` with `--watch`, and `submit --wait`. Each in a picture, or in plain lines."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence

from demixd.cli import client, text
from demixd.cli.status import view, words
from demixd.cli.status.board import Board, Picture, Pulse, picture
from demixd.cli.wait import GENTLE, Follower, Lookout, follow, lines
from demixd.protocol.job import State
from demixd.protocol.status import Sidecar
from demixd.spool.tree import Spool

REFRESH_S = 0.5

Say = Callable[[str], None]


def once(spool: Spool, say: Say) -> None:
    """A picture of now; no terminal: a line for the daemon and one for every song, by name."""
    shown, songs = next(_pictures(spool))
    if view.is_terminal():
        view.show(shown)
        return
    say(words.line(shown, time.time()))
    for song in sorted(songs, key=lambda song: song.input.name):
        say(words.song_line(song, spool.outbox))


def live(spool: Spool, say: Say) -> None:
    """The live table until Ctrl-C; no terminal: a line whenever something has changed."""
    if view.is_terminal():
        with view.screen() as show:
            for shown, _ in _pictures(spool):
                show(shown)
    before = None
    for shown, _ in _pictures(spool):
        gist = words.gist(shown)
        if gist != before:
            say(words.line(shown, time.time()))
        before = gist


def _pictures(spool: Spool) -> Iterator[tuple[Picture, list[Sidecar]]]:
    board, pulse = Board(spool), Pulse(time.monotonic())
    while True:
        began = time.monotonic()
        board.look()
        health = pulse.hear(board.daemon, began)
        yield picture(board, health, pulse.silence(began)), board.songs
        time.sleep(max(REFRESH_S, GENTLE * (time.monotonic() - began)))


def to_their_ends(
    spool: Spool, followed: Sequence[Follower], lookout: Lookout, *, as_json: bool, say: Say, complain: Say
) -> bool:
    """Follow songs until all have ended; whether all are done. `complain` says what went wrong, and of the daemon."""
    if as_json:
        return follow(followed, lookout, lambda _: None, lambda each: say(_json(each)), complain)
    if not view.is_terminal():
        return follow(followed, lookout, lines(say), _told(spool, say, complain), complain)
    with view.bars() as bars:
        # An error belongs above the bars, unless it is meant for a file.
        aside = bars.say if sys.stderr.isatty() else complain

        def draw(_changed: Sequence[Follower]) -> None:
            bars.show([view.Row(name=each.name, song=each.song, text=each.text) for each in followed if not each.ended])

        return follow(followed, lookout, draw, _told(spool, bars.say, aside), aside)


def _told(spool: Spool, say: Say, complain: Say) -> Callable[[Follower], None]:
    return lambda each: (say if each.state is State.DONE else complain)(each.result(spool))


def _json(each: Follower) -> str:
    return text.as_json(client.read(each.path))
