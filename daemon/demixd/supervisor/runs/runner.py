"""The jobs in flight, and what is done ahead for the one that comes next.

    waiting          in flight
    ahead  -->  being separated  -->  finishing      at most one song in each
      |                |                 |
      snapshot,        the model         mix, encode, publish, end
      decode

Songs are separated one at a time and published in that order. `flight` is one job's way; this hands on what happens to
whom it concerns, and knows who else was in the worker when it died.
"""

import logging
import time
from collections.abc import Callable

import msgspec

from demixd.config import Config
from demixd.protocol.job import Job, Reason, State
from demixd.spool.tree import Spool
from demixd.supervisor.folders import Places
from demixd.supervisor.jobs.table import Jobs
from demixd.supervisor.runs.context import Ground
from demixd.supervisor.runs.disk_thread import ResultChecked, SnapshotTaken
from demixd.supervisor.runs.prefetch import Ahead, has_room
from demixd.supervisor.runs.run import Flight
from demixd.supervisor.workers.manager import Keeper
from demixd.worker.messages import FromWorker, Prepared

log = logging.getLogger(__name__)

AT_ONCE = 2
"""One that is being separated, or on its way there, and one that is finishing."""


class Runner:
    """`post` takes what happens on other threads to the main loop."""

    def __init__(
        self,
        config: Config,
        spool: Spool,
        jobs: Jobs,
        places: Places,
        keeper: Keeper,
        post: Callable[[SnapshotTaken | ResultChecked], None],
    ) -> None:
        self._jobs = jobs
        self._keeper = keeper
        self._flights: list[Flight] = []
        self._ahead: Ahead | None = None
        self._ground = Ground(
            config=config,
            spool=spool,
            jobs=jobs,
            places=places,
            keeper=keeper,
            post=post,
            in_flight=lambda: self.in_flight,
        )

    def go_by(self, config: Config) -> None:
        """Of another configuration from now on; those in flight end by the one that they began with."""
        self._ground = msgspec.structs.replace(self._ground, config=config)

    # ---- who there is

    @property
    def in_flight(self) -> list[Job]:
        """The jobs in flight, the one that is furthest along first."""
        return [flight.job for flight in self._flights]

    @property
    def at_work(self) -> set[str]:
        """The ids of the jobs that have a work area."""
        ahead = {self._ahead.job.job_id} if self._ahead is not None else set()
        return ahead | {job.job_id for job in self.in_flight}

    def runs(self, name: str) -> bool:
        return any(job.name == name for job in self.in_flight)

    def pauses(self, job: Job, now: float) -> bool:
        """Whether the job has hit an obstacle not long ago, and is left alone."""
        return now < self._ground.rests.get(job.job_id, now)

    def end_pauses(self) -> None:
        """What was in the way is not any more."""
        self._ground.rests.clear()

    @property
    def is_stopping_some(self) -> bool:
        """Whether a job that was cancelled has not ended yet."""
        return any(flight.cancelled_at is not None for flight in self._flights)

    @property
    def has_room_beside(self) -> bool:
        """Whether another job may start beside those in flight: the model is free, and nobody has to run alone."""
        return len(self._flights) < AT_ONCE and all(
            flight.is_finishing and not flight.job.alone for flight in self._flights
        )

    # ---- what comes next

    def start(self, job: Job) -> None:
        """It is the job's turn."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.is_for(job):
            ahead.drop()
            ahead = None
        flight = Flight(job, self._ground)
        self._flights.append(flight)
        flight.start(ahead)
        self._clear()

    def prepare(self, job: Job | None) -> None:
        """Do ahead what can be done for the job that comes next, once the model is at work; for another nothing any more."""
        if self._ahead is not None and (job is None or not self._ahead.is_for(job)):
            self._ahead.drop()
            self._ahead = None
        if job is None or self._ahead is not None or not all(flight.is_decoded for flight in self._flights):
            return
        if job.identity.size <= self._ground.config.limits.max_bytes and has_room(job, self._ground):
            self._ahead = Ahead(job, self._ground)
            self._ahead.begin()

    # ---- what happens

    def on_snapshot(self, taken: SnapshotTaken) -> None:
        if self._ahead is not None and self._ahead.capture is taken.capture:
            self._ahead.on_snapshot(taken)
        for flight in self._flights:
            if flight.capture is taken.capture:
                flight.on_snapshot(taken)
        self._clear()

    def on_result(self, checked: ResultChecked) -> None:
        for flight in self._flights:
            if flight.capture is checked.capture:
                flight.on_result(checked)
        self._clear()

    def on_message(self, message: FromWorker) -> None:
        """What the worker says of a song."""
        job_id = getattr(message, "job_id", None)
        if isinstance(message, Prepared):
            if self._ahead is not None and self._ahead.job.job_id == job_id:
                self._ahead.on_prepared()
            return
        doubts = [flight.on_message(message) for flight in self._flights if flight.job.job_id == job_id]
        self._clear()
        for why in filter(None, doubts):
            self._keeper.kill(time.monotonic(), why)
            self.on_death(why)

    def look_for_cancels(self, now: float) -> bool:
        """Obey the cancel files of the jobs in flight; whether there was one."""
        seen = [flight for flight in self._flights if flight.sees_cancel()]
        for flight in seen:
            flight.cancel(now)
        self._clear()
        return bool(seen)

    def cancel(self, name: str, now: float) -> None:
        """Stop the job of a name, where it is in flight."""
        for flight in self._flights:
            if flight.job.name == name:
                flight.cancel(now)
        self._clear()

    def cancel_all(self, now: float) -> None:
        for flight in self._flights:
            flight.cancel(now)
        self._clear()

    def tick(self, now: float) -> None:
        """What only time brings: a worker that does not stop, or has stalled."""
        there = self._in_worker()
        grace_s = self._ground.config.limits.cancel_grace_s
        if any(flight.cancelled_at is not None and now > flight.cancelled_at + grace_s for flight in there):
            why = "it did not stop in time after a cancel"
            self._keeper.kill(now, why)
            for flight in there:
                flight.on_kill(why)
            self.prepare(None)
            self._clear()
        elif there and self._keeper.has_stalled(now):
            self._keeper.kill(now, f"it has stalled with {' and '.join(flight.job.shown for flight in there)}")
            self.on_death("it stalled")

    def on_death(self, how: str) -> None:
        """The worker died. It costs the one song that was in it an attempt; where there were two, neither, but both are
        tried again alone: then it shows whose fault it was."""
        there = self._in_worker()
        ahead = self._ahead if self._ahead is not None and self._ahead.is_decoding else None
        for flight in there:
            flight.on_death(how, is_suspect=len(there) + (ahead is not None) == 1)
        self.prepare(None)
        if ahead is not None and (job := self._jobs.waiting(ahead.job.name)) is not None and ahead.is_for(job):
            message = f"The worker died ({how}) with this song in it; it is tried alone."
            job = self._jobs.change(job, State.WAITING, reason=Reason.RETRY, message=message, alone=True)
            self._jobs.settle([job])
        self._clear()

    def give_back(self) -> None:
        """The daemon stops: what is in flight waits again."""
        self.prepare(None)
        for flight in self._flights:
            flight.give_back()
        self._clear()

    def abandon(self) -> None:
        """The daemon breaks off: threads end, and nothing is written down."""
        captures = [flight.capture for flight in self._flights]
        for capture in captures + ([self._ahead.capture] if self._ahead else []):
            capture.abandon()
            capture.join()

    def _in_worker(self) -> list[Flight]:
        return [flight for flight in self._flights if flight.is_at_worker]

    def _clear(self) -> None:
        """Let go of those that are over; who waited for them goes on."""
        while any(flight.is_over for flight in self._flights):
            self._flights[:] = [flight for flight in self._flights if not flight.is_over]
            for flight in self._flights:
                flight.on_end_of_another()
