"""Hundreds of workers and thousands of songs in simulated time, by the supervisor's own scheduler and queue.

No process, file or table is there: a song is a few numbers, and takes its time for decoding, the model and writing. As in a
lane of the supervisor, a song is decoded ahead while the one before it has the model, and written while the next one has it.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec

from demixd.protocol.job import Job, State
from demixd.supervisor.jobs.queue import JobQueue
from demixd.supervisor.runs.scheduler import Scheduler
from demixd.supervisor.workers.manager import Have
from jobs import job

WRITE_S, DECODE_S, RESTART_S = 3.0, 2.0, 20.0


class Song(msgspec.Struct, kw_only=True, eq=False):
    """`model_s`: seconds of the model. `waited_s`: from its coming to its start. `starts`: how often it was begun."""

    job: Job
    model_s: float
    came_at: float
    waited_s: float = 0.0
    starts: int = 0
    done_at: float | None = None


class _Running(msgspec.Struct, kw_only=True, eq=False):
    song: Song
    model_at: float
    """When it has the model for itself."""
    is_finishing: bool = False


class SimulatedLane:
    """A worker, to the scheduler: `runs` is what it has, and `prepares` the id of the job that it has decoded ahead."""

    takes_songs = True
    state, message = "ready", ""

    def __init__(self, pool: "SimulatedPool") -> None:
        self._pool = pool
        self.is_ready = True
        self.runs: list[_Running] = []
        self.failed_at = 0.0
        self.prepares: str | None = None
        self._prepared_at = 0.0
        self.busy_s = 0.0

    @property
    def worker(self) -> "SimulatedLane":
        return self

    def serves(self, _options: object) -> bool:
        return self.is_ready

    def lacks(self, _options: object, _now: float) -> bool:
        return False

    def want(self, _options: object, _now: float) -> Have:
        return Have.READY if self.is_ready else Have.BUSY

    @property
    def has_room_beside(self) -> bool:
        return len(self.runs) < 2 and all(run.is_finishing for run in self.runs)

    def has_prepared(self, each: Job) -> bool:
        return self.prepares == each.job_id

    def prepare(self, each: Job | None) -> None:
        if (job_id := each.job_id if each else None) != self.prepares:
            self.prepares, self._prepared_at = job_id, self._pool.now

    def start(self, song: Song) -> None:
        since = self._pool.now - self._prepared_at if self.prepares == song.job.job_id else 0.0
        run = _Running(song=song, model_at=self._pool.now + max(0.0, DECODE_S - since))
        self.prepares = None
        self.runs.append(run)
        self._pool.at(run.model_at + song.model_s, lambda: self._separated(run))

    def _separated(self, run: _Running) -> None:
        if run in self.runs:
            run.is_finishing = True
            self.busy_s += run.song.model_s
            self._pool.at(self._pool.now + WRITE_S, lambda: self._written(run))

    def _written(self, run: _Running) -> None:
        if run in self.runs:
            self.runs.remove(run)
            self._pool.over(run.song)

    def die(self) -> None:
        """What it has is lost, and it is back after a while."""
        for run in self.runs:
            begun_s = self._pool.now - run.model_at
            self._pool.lost_s += min(run.song.model_s, max(0.0, begun_s))
            self.busy_s -= run.song.model_s if run.is_finishing else 0.0
            self._pool.again(run.song)
        self.runs, self.prepares, self.is_ready = [], None, False
        self._pool.deaths += 1
        self._pool.at(self._pool.now + RESTART_S, lambda: setattr(self, "is_ready", True))


class SimulatedPool:
    """All of them. To the scheduler it is the context, the table of jobs, the folders, the runner and the pool."""

    def __init__(self, workers: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.lanes = [SimulatedLane(self) for _ in range(workers)]
        self.songs: dict[str, Song] = {}
        self._queue = JobQueue()
        self._running: dict[str, Job] = {}
        self.lost_s, self.deaths, self.left = 0.0, 0, 0
        self.jobs = self.folders = self.pool = self.context = self
        self.missing: dict[str, str] = {}
        self.successors: dict[str, Job] = {}
        self.clock = SimpleNamespace(wall=lambda: self.now)
        self.pause = SimpleNamespace(told=None, message="", is_now=False, holds=lambda _: False)
        self.changes = 0
        context: Any = self
        self._scheduler = Scheduler(context, context)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    def drop(self, when: float, priority: int, model_s: float) -> None:
        """A song comes at that time."""
        number = len(self.songs)
        each = job(f"{number}.wav", job_id=str(number), ready_at=1 + when + number * 1e-9, priority=priority)
        song = self.songs[each.job_id] = Song(job=each, model_s=model_s, came_at=when)
        self.left += 1
        self.at(when, lambda: self._ready(song))

    def failing(self, each_s: float) -> None:
        """From now on each worker dies every so many seconds on average."""

        def again(lane: SimulatedLane) -> None:
            if self.left:
                lane.die()
                self.at(self.now + self.random.expovariate(1 / each_s), lambda: again(lane))

        for lane in self.lanes:
            self.at(self.random.expovariate(1 / each_s), lambda lane=lane: again(lane))  # type: ignore[misc]

    def run(self) -> None:
        """Until every song is done."""
        while self.left:
            self.now, _, what = heapq.heappop(self._events)
            what()
            self._scheduler.begin(self.now)

    def _ready(self, song: Song) -> None:
        self._queue.put(song.job)

    def again(self, song: Song) -> None:
        del self._running[song.job.job_id]
        self._queue.put(song.job)

    def over(self, song: Song) -> None:
        assert song.done_at is None
        del self._running[song.job.job_id]
        song.done_at = self.now
        self.left -= 1

    # ---- as the scheduler sees them

    @property
    def running(self) -> list[Job]:
        return list(self._running.values())

    @property
    def queue_length(self) -> int:
        return len(self._queue)

    def queued(self) -> Iterator[Job]:
        return (self.songs[job_id].job for job_id in self._queue)

    def queue(self) -> list[Job]:
        return list(self.queued())

    def update(self, each: Job, _state: State, **_changes: object) -> Job:
        return each

    def may_hold(self, _name: str) -> bool:
        return True

    def pauses(self, _job: Job, _now: float) -> bool:
        return False

    @property
    def best(self) -> SimulatedLane:
        return next((lane for lane in self.lanes if lane.is_ready), self.lanes[0])

    def start(self, each: Job, lane: SimulatedLane) -> None:
        song = self.songs[each.job_id]
        for other in self.lanes:
            if other is not lane and other.prepares == each.job_id:
                other.prepares = None
        self._queue.drop(each.job_id)
        self._running[each.job_id] = each
        song.starts += 1
        song.waited_s = self.now - song.came_at
        lane.start(song)
