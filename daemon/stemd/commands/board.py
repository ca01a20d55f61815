"""What status/ shows, seen by another program: songs, the daemon, and whether it lives. Files alone.

Only what is needed is looked at, so that files of other versions can be read; what cannot be is passed over. `Board` and
`Pulse` are looked at again and again: the board reads only what has changed, the pulse is told the time.
"""

import os
import stat
from collections.abc import Iterator
from enum import StrEnum
from heapq import nlargest
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from stemd.job import FINAL, Output, Progress, State
from stemd.spool import DAEMON, INBOX, SIDECAR, Spool

T = TypeVar("T")

LARGEST = 64 << 20
"""Bytes. A sidecar has two thousand and the heartbeat a hundred for each song in the queue; what is larger is not ours."""

RESULTS = 10
"""How many of the last results are shown."""

SILENCES = 3
"""A daemon whose `seq` has not grown for this many of its intervals is not running."""

Mark = tuple[int, int, int, int]
"""Which file, and which content of it: inode, size, and when it was written and changed, in nanoseconds."""


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What we look at in somebody's file: fields that we do not know are passed over."""


class Input(_Seen, frozen=True):
    name: str


class Former(_Seen, frozen=True):
    job_id: str
    state: State


class Song(_Seen, frozen=True):
    """A sidecar."""

    seq: int
    job_id: str
    state: State
    reason: str | None
    step: str | None
    message: str
    progress: Progress
    input: Input
    output: Output | None
    state_since: str
    cancel: dict[str, str] | None = None
    previous: Former | None = None

    @property
    def ended(self) -> bool:
        return self.state in FINAL

    @property
    def doing(self) -> str:
        """The reason that it waits, or the step that it is in."""
        return self.reason or self.step or ""


class Worker(_Seen, frozen=True):
    state: str
    message: str
    model: str | None
    device: str | None
    device_name: str | None
    precision: str | None
    fallback: str | None
    memory_bytes: int | None


class JobName(_Seen, frozen=True):
    job_id: str
    name: str


class Watch(_Seen, frozen=True):
    mode: str
    why: str


class Daemon(_Seen, frozen=True):
    """`_daemon.json`."""

    seq: int
    interval_s: float
    state: str
    pid: int
    worker: Worker
    queue: tuple[JobName, ...]
    watch: Watch
    warnings: tuple[str, ...]
    version: str
    updated_at: str


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
        self._daemon: Daemon | None = None
        self._beats = 0

    def hear(self, daemon: Daemon | None, now: float) -> Health:
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
            self._mark, self.value = mark, _read(self._path, self._kind)
        return self.value


class Board:
    """Every sidecar, read again only where its file is another: 10,000 of them cost a listing."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._files: dict[str, tuple[Mark, Song | None]] = {}
        self._heartbeat = Cached(spool.status / DAEMON, Daemon)
        self.daemon: Daemon | None = None
        self.trouble: str | None = None
        """Why status/ cannot be read, in a sentence."""

    def look(self) -> None:
        """Read what has changed."""
        files = {}
        self.trouble = None
        try:
            for path, mark in _sidecars(os.fspath(self._spool.status), at_root=True):
                known = self._files.get(path)
                files[path] = known if known is not None and known[0] == mark else (mark, read_song(Path(path)))
        except OSError as error:
            self.trouble = f"{self._spool.status} cannot be read: {error.strerror}"
        self._files = files
        self.daemon = self._heartbeat.look()

    @property
    def songs(self) -> list[Song]:
        return [song for _, song in self._files.values() if song is not None]


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All that is worth showing, in the order in which it is shown."""

    daemon: Daemon | None
    health: Health
    silence_s: int
    running: tuple[Song, ...]
    queue: tuple[Song, ...]
    """In the order of work."""
    waiting: tuple[Song, ...]
    """Not in the queue; the longest wait first."""
    results: tuple[Song, ...]
    """The last ones, the newest first."""
    counts: dict[State, int]
    """Songs by state."""
    trouble: str | None


def picture(board: Board, health: Health, silence_s: float) -> Picture:
    """What the board shows."""
    by_state: dict[State, list[Song]] = {state: [] for state in State}
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


# ---- reading


def mark_of(status: os.stat_result) -> Mark:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_song(path: Path) -> Song | None:
    """The sidecar at `path`; None where it is not there or none."""
    return _read(path, Song)


def read_bytes(path: Path) -> bytes | None:
    """A status file; None where it is not there or no such file. A pipe that somebody has put there is not waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        status = os.fstat(handle)
        return file.read() if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST else None


def sidecar_paths(spool: Spool) -> list[Path]:
    """Every sidecar, by path. Raises OSError where status/ itself cannot be read."""
    return sorted(Path(path) for path, _ in _sidecars(os.fspath(spool.status), at_root=True))


def _read(path: Path, kind: type[T]) -> T | None:
    data = read_bytes(path)
    try:
        return None if data is None else msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _sidecars(folder: str, *, at_root: bool) -> Iterator[tuple[str, Mark]]:
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _sidecars(entry.path, at_root=False)
            elif (
                entry.name.endswith(SIDECAR)
                and not entry.name.startswith(".")
                and not (at_root and entry.name in (DAEMON, INBOX))
            ):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield entry.path, mark_of(status)
        except OSError:
            continue  # It went since it was listed, or is closed to us: the rest can still be seen.
