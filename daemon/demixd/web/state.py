"""What the page shows, read from status/ by one reader for all who look, and never more often than it is asked for."""

import os
import threading
import time
import unicodedata
from contextlib import suppress
from typing import Any

import msgspec

from demixd.client import names
from demixd.client.liveness import RUNNING, Liveness, age_s, is_overdue
from demixd.client.overview import Overview, newest_first, overview
from demixd.client.reader import StatusReader
from demixd.protocol.job import State as JobState
from demixd.protocol.status import Sidecar
from demixd.spool.tree import PAUSE, Spool
from demixd.web import view

FRESH_S = 0.25
"""A look that is no older than this answers for another one."""

LONGEST_QUERY = 200
"""Characters of a search."""


class State:
    """The songs and the daemon as they are now. Any thread may ask; each look is one thread's."""

    def __init__(self, spool: Spool, *, recursive: bool, start: str) -> None:
        self._spool, self._recursive, self._start = spool, recursive, start
        self._lock = threading.Lock()
        self._reader, self._liveness = StatusReader(spool), Liveness(time.monotonic())
        self._looked: float | None = None
        self._shown: Overview | None = None
        self._songs: list[Sidecar] = []

    def look(self) -> tuple[Overview, list[Sidecar]]:
        """The overview, and every song."""
        with self._lock:
            began = time.monotonic()
            if self._shown is None or self._looked is None or began - self._looked > FRESH_S:
                self._shown = self._read(began)
                self._songs = self._reader.songs
                self._looked = time.monotonic()
            return self._shown, self._songs

    def _read(self, began: float) -> Overview:
        reader = self._reader
        reader.refresh()
        health = self._liveness.update(reader.daemon, began)
        age = age_s(reader.daemon, time.time())
        unseen: set[str] = set()
        if (health not in RUNNING or is_overdue(reader.daemon, age)) and reader.trouble is None:
            with suppress(OSError):  # there is no inbox yet, or none that this user may look into
                unseen = names.unseen(self._spool, reader.songs, recursive=self._recursive)
        shown = overview(reader, health, self._liveness.silence_s(began), age, unseen)
        return msgspec.structs.replace(shown, start=self._start)

    def parts(self) -> dict[str, bytes]:
        """What the page keeps on show, in parts that change apart from each other."""
        shown, songs = self.look()
        ended = [(song.job_id, song.seq) for song in songs if song.ended]
        return {
            "now": view.encode(view.now(shown, is_paused=os.path.lexists(self._spool.inbox / PAUSE))),
            "queue": view.encode(view.queue(shown)),
            # Not the songs, of which a browser has a page and perhaps a search: it asks for them again.
            "songs": b"%d" % hash(tuple(sorted(ended))),
        }

    def find(self, job_id: str) -> Sidecar | None:
        """The song of a job; of one that was tried again, the job after it."""
        songs = self.look()[1]
        later = (song for song in songs if song.previous is not None and song.previous.job_id == job_id)
        return next((song for song in songs if song.job_id == job_id), None) or next(later, None)

    def search(self, query: str, state: str, start: int) -> dict[str, Any]:
        """The songs that are over and have `query` in their names or tags, the newest first, from the number `start` on."""
        shown, songs = self.look()
        wanted = _plain(query[:LONGEST_QUERY])
        states = [each for each in JobState if each == state]
        matching = [
            song
            for song in songs
            if (not states or song.state in states) and wanted in _plain(f"{song.input.name}\n{song.tag or ''}")
        ]
        return view.found(newest_first(matching), shown, start)


def _plain(text: str) -> str:
    """`text` as it is compared: without case, and whether its marks are apart from the letters or not."""
    return unicodedata.normalize("NFC", text).casefold()
