"""`demixd status`, once and with `--watch`: a table on a terminal, else plain lines."""

import time
from collections.abc import Iterator, Sequence

import msgspec

from demixd.cli import client, names, text
from demixd.cli.console import say
from demixd.cli.status import view, words
from demixd.cli.status.liveness import Liveness, age_s
from demixd.cli.status.overview import Overview, newest_first, overview
from demixd.cli.status.reader import StatusReader, pause
from demixd.protocol.status import InboxEntry, Sidecar
from demixd.spool.tree import Spool

REFRESH_S = 0.5


def show_once(spool: Spool, given: Sequence[str], *, everything: bool, told: str = "") -> bool:
    """The overview; whether all is well. Without a terminal, or with `everything`, a line for the daemon and one a song.

    The lines are in the overview's order: songs that run, that wait in the queue, that are not ready, then the last results
    (with `everything` all of them), the newest first, and with `everything` what is no song. Of the songs, and other entries
    of the inbox, that are `given` there is a line each and nothing else. `told`: see `Overview`. Raises RefusedError where
    there is no such song.
    """
    shown, songs = next(_overviews(spool))
    shown = msgspec.structs.replace(shown, told=told)
    others: Sequence[InboxEntry] = shown.not_songs if everything else ()
    if given:
        listed, others = _wanted(spool, given, songs, shown.entries)
    elif view.is_terminal() and not everything:
        view.show(shown)
        return shown.is_well
    else:
        say(words.line(shown))
        listed = [*shown.running, *shown.queue, *shown.waiting, *(newest_first(songs) if everything else shown.results)]
    for song in listed:
        say(words.song_line(song, spool.outbox, shown.etas.get(song.job_id)))
    for entry in others:
        say(words.entry_line(entry))
    if not given and len(listed) < len(songs):
        say(f"and {len(songs) - len(listed)} more that are over: `demixd status --all` shows them")
    return shown.is_well


def _wanted(
    spool: Spool, given: Sequence[str], songs: Sequence[Sidecar], entries: Sequence[InboxEntry] = ()
) -> tuple[list[Sidecar], list[InboxEntry]]:
    """The songs that are `given`, and of what is no song those entries that have exactly such a name."""
    by_name = {names.name_of(song): song for song in songs}
    others = {each.name: each for each in entries if each.name not in by_name}
    wanted = [names.below_inbox(spool, word) for word in given]
    found = [name for word in wanted if word not in others for name in names.meant(word, by_name, "known")]
    return [by_name[name] for name in dict.fromkeys(found)], [others[word] for word in wanted if word in others]


def show_json(spool: Spool, given: Sequence[str]) -> bool:
    """The daemon's and the songs' status files in one JSON object, those of all songs where none are `given`.

    Whether all is well. Raises OSError, and RefusedError where there is no such song.
    """
    shown, songs = next(_overviews(spool))
    wanted = {song.job_id for song in _wanted(spool, given, songs)[0]}
    files = [each for each in client.sidecars(spool) if not given or each["job_id"] in wanted]
    say(text.as_json({"daemon": client.daemon(spool), "songs": files}))
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
