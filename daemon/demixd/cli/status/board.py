"""What status/ shows, seen by another program: songs, the daemon, and whether it lives. Files alone.

`Board` and `Pulse` are looked at again and again: the board reads only what has changed, the pulse is told the time.
"""

import os
from enum import StrEnum
from heapq import nlargest
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from demixd.protocol.job import FINAL, State
from demixd.protocol.status import DaemonStatus, Sidecar
from demixd.spool import documents
from demixd.spool.tree import DAEMON, Spool

T = TypeVar("T")

RESULTS = 10
"""How many of the last results are shown."""

SILENCES = 3
"""A daemon whose `seq` has not grown for this many of its intervals is not running."""

Mark = tuple[int, int, int, int]
"""Which file, and which content of it: inode, size, and when it was written and changed, in nanoseconds."""


class Health(StrEnum):
    NEVER_RUN = "never run"
    LISTENING = "listening"
    """It may live: three intervals have not passed since we began to look."""
    ALIVE = "alive"
    STOPPED = "stopped"
    SILENT = "silent"


class Pulse:
    """Whether the daemon lives: its `seq` changes at least once in three intervals of *our* clock (monotonic, seconds)."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._daemon: DaemonStatus | None = None
        self._beats = 0

    def hear(self, daemon: DaemonStatus | None, now: float) -> Health:
        """What `daemon`, just read, tells now."""
        if daemon is not None and (self._daemon is None or daemon.seq != self._daemon.seq):
            self._since = now
            self._beats += 1
        self._daemon = daemon if daemon is not None else self._daemon
        if self._daemon is None:
            return Health.NEVER_RUN
        if self._daemon.state == "stopping" and (self._beats == 1 or self.silence(now) > self.interval_s):
            return Health.STOPPED
        if self.silence(now) > SILENCES * self.interval_s:
            return Health.SILENT
        return Health.ALIVE if self._beats > 1 else Health.LISTENING

    @property
    def interval_s(self) -> float:
        return min(max(self._daemon.interval_s, 0.1), 3600.0) if self._daemon else 0.0

    def silence(self, now: float) -> float:
        """Seconds since the last change, or since we began to look."""
        return now - self._since


class Cached(Generic[T]):
    """One file of status/, read again only where it is another one."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self._kind = kind
        self._mark: Mark | None = None
        self.value: T | None = None

    def look(self) -> T | None:
        try:
            mark = mark_of(self._path.lstat())
        except OSError:
            self._mark = self.value = None
            return None
        if mark != self._mark:
            self._mark, self.value = mark, documents.read(self._path, self._kind)
        return self.value


class Board:
    """Every sidecar, read again only where its file is another: 10,000 of them cost a listing."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._files: dict[str, tuple[Mark, Sidecar | None]] = {}
        self._heartbeat = Cached(spool.status / DAEMON, DaemonStatus)
        self.daemon: DaemonStatus | None = None
        self.trouble: str | None = None
        """Why status/ cannot be read, in a sentence."""

    def look(self) -> None:
        """Read what has changed."""
        files = {}
        self.trouble = None
        try:
            for path, status in documents.sidecars(self._spool.status):
                mark = mark_of(status)
                known = self._files.get(path)
                files[path] = known if known is not None and known[0] == mark else (mark, documents.read(path, Sidecar))
        except OSError as error:
            self.trouble = f"{self._spool.status} cannot be read: {error.strerror}"
        self._files = files
        self.daemon = self._heartbeat.look()

    @property
    def songs(self) -> list[Sidecar]:
        return [song for _, song in self._files.values() if song is not None]


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All that is worth showing, in the order in which it is shown."""

    daemon: DaemonStatus | None
    health: Health
    silence_s: int
    running: tuple[Sidecar, ...]
    queue: tuple[Sidecar, ...]
    """In the order of work."""
    waiting: tuple[Sidecar, ...]
    """Not in the queue; the longest wait first."""
    results: tuple[Sidecar, ...]
    """The last ones, the newest first."""
    counts: dict[State, int]
    """Songs by state."""
    trouble: str | None


def picture(board: Board, health: Health, silence_s: float) -> Picture:
    """What the board shows."""
    by_state: dict[State, list[Sidecar]] = {state: [] for state in State}
    for song in board.songs:
        by_state[song.state].append(song)
    places = {each.job_id: place for place, each in enumerate(board.daemon.queue)} if board.daemon else {}
    waiting = sorted(by_state[State.WAITING], key=lambda song: (song.state_since, song.input.name))
    queue = [song for song in waiting if song.job_id in places or song.reason == "queued"]
    ended = (song for state in FINAL for song in by_state[state])
    return Picture(
        daemon=board.daemon,
        health=health,
        silence_s=int(silence_s),
        running=tuple(by_state[State.RUNNING]),
        # What the heartbeat does not know yet comes last.
        queue=tuple(sorted(queue, key=lambda song: places.get(song.job_id, len(places)))),
        waiting=tuple(song for song in waiting if song.job_id not in places and song.reason != "queued"),
        results=tuple(nlargest(RESULTS, ended, key=lambda song: (song.state_since, song.seq))),
        counts={state: len(songs) for state, songs in by_state.items() if songs},
        trouble=board.trouble,
    )


def mark_of(status: os.stat_result) -> Mark:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
