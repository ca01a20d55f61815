"""`demixd status`, once and with `--watch`: a table on a terminal, else plain lines."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from demixd.cli.config_option import start_command
from demixd.cli.console import complain, require_reader, say
from demixd.cli.status import view
from demixd.client import names, reader, text, words
from demixd.client.liveness import RUNNING, Liveness, age_s, is_overdue
from demixd.client.overview import Overview, newest_first, overview
from demixd.client.reader import StatusReader, pause
from demixd.config import Config
from demixd.errors import RefusedError
from demixd.protocol.status import InboxEntry, Sidecar
from demixd.spool.tree import Spool

REFRESH_S = 0.5


class Wanted(msgspec.Struct, frozen=True):
    """What words of the command line mean: songs, those that no daemon has seen, and entries that are none."""

    songs: list[Sidecar]
    unseen: list[str]
    entries: list[InboxEntry]
    complaints: list[str]
    """A sentence for each word that means nothing that there is."""

    def complain(self) -> bool:
        """Say what is not there; whether all is."""
        for each in self.complaints:
            complain(f"demixd: {each}")
        return not self.complaints


def show_once(config: Config, given: Sequence[str], *, everything: bool, told: str = "") -> bool:
    """The overview; whether all is well. Without a terminal, or with `everything`, a line for the daemon and one a song.

    The lines are in the overview's order: songs that run, that wait in the queue, that are not ready, that no daemon has seen,
    then the last results (with `everything` all of them), the newest first, and with `everything` what is no song. Of the
    songs, and other entries of the inbox, that are `given` there is a line each and nothing else, and at the end a complaint
    for each that there is not. `told`: see `Overview`. Raises BadWordError.
    """
    spool = Spool(config)
    shown, songs = next(_overviews(spool, recursive=config.inbox.recursive))
    shown = msgspec.structs.replace(shown, told=told)
    wanted = _wanted(spool, given, songs, shown)
    others: Sequence[InboxEntry] = shown.entries if everything else wanted.entries
    going: Sequence[Sidecar] = (*shown.running, *shown.queue, *shown.waiting)
    unseen: Sequence[str] = shown.unseen
    over: Sequence[Sidecar] = newest_first(songs) if everything else shown.results
    if given:
        going, unseen, over = wanted.songs, wanted.unseen, ()
        shown = msgspec.structs.replace(shown, says_worker=False)
    elif view.is_terminal() and not everything:
        view.show(shown)
        return shown.is_well
    else:
        say(words.line(shown))
    for song in going:
        say(words.song_line(song, shown, spool.outbox))
        for line in words.warning_lines(song) if given else ():
            say(line)
    for name in unseen:
        say(words.unseen_line(name))
    for song in over:
        say(words.song_line(song, shown, spool.outbox))
    for entry in others:
        say(words.entry_line(entry, [song.input.name for song in songs]))
    if not given and len(going) + len(over) < len(songs):
        say(f"and {len(songs) - len(going) - len(over)} more that are over: `demixd status --all` shows them")
    return wanted.complain() and shown.is_well


def _wanted(spool: Spool, given: Sequence[str], songs: Sequence[Sidecar], shown: Overview | None = None) -> Wanted:
    """What is `given`: songs, and with `shown` also those that are unseen, and entries of the inbox. Raises BadWordError."""
    by_name = {names.name_of(song): song for song in songs}
    unseen = set(shown.unseen) if shown else set()
    there = {*by_name, *unseen}
    others = {each.name: each for each in (shown.entries if shown else ()) if each.name not in there}
    wanted = [names.below_inbox(spool, word) for word in given]
    found: dict[str, None] = {}
    complaints = []
    for word in wanted:
        try:
            found |= dict.fromkeys(() if word in others else names.meant(word, there, "known", several=True))
        except RefusedError as error:
            complaints.append(str(error))
    return Wanted(
        [by_name[name] for name in found if name in by_name],
        [name for name in found if name in unseen],
        [others[word] for word in wanted if word in others],
        complaints,
    )


def show_json(config: Config, given: Sequence[str]) -> bool:
    """The daemon's and the songs' status files in one JSON object, those of all songs where none are `given`.

    Whether all is well. It complains of names that no song has, and prints nothing else where no song is meant. Raises OSError,
    BadWordError.
    """
    spool = Spool(config)
    shown, songs = next(_overviews(spool))
    wanted = _wanted(spool, given, songs)
    ids = {song.job_id for song in wanted.songs}
    files = [each for each in reader.sidecars(spool) if not given or each["job_id"] in ids]
    if ids or not given:
        say(text.as_json({"daemon": reader.heartbeat(spool), "songs": files}))
    return wanted.complain() and shown.is_well


def keep_showing(config: Config) -> None:
    """The overview until Ctrl-C; without a terminal a line for each change."""
    overviews = _overviews(Spool(config), recursive=config.inbox.recursive)
    if view.is_terminal():
        with view.screen() as show:
            for shown, _ in overviews:
                show(shown)
    before = None
    for shown, _ in overviews:
        key = words.change_key(shown)
        if key != before:
            say(f"{time.strftime('%H:%M:%S')} {words.line(shown)}")
        before = key
        require_reader()


def _overviews(spool: Spool, *, recursive: bool | None = None) -> Iterator[tuple[Overview, list[Sidecar]]]:
    """What is there now, again and again; `recursive`: see `names.unseen`, None to leave these songs out."""
    reader, liveness = StatusReader(spool), Liveness(time.monotonic())
    while True:
        began = time.monotonic()
        reader.refresh()
        health = liveness.update(reader.daemon, began)
        age = age_s(reader.daemon, time.time())
        unseen: set[str] = set()
        is_down = health not in RUNNING or is_overdue(reader.daemon, age)
        if recursive is not None and is_down and reader.trouble is None:
            with suppress(OSError):  # there is no inbox yet, or none that this user may look into: `check` says which
                unseen = names.unseen(spool, reader.songs, recursive=recursive)
        shown = overview(reader, health, liveness.silence_s(began), age, unseen)
        yield msgspec.structs.replace(shown, start=start_command()), reader.songs
        pause(began, REFRESH_S)
