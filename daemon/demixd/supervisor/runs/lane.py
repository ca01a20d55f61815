"""The runs of one worker, and what is done ahead for the song that comes next.

    waiting             in flight
    prefetch  -->  being separated  -->  finishing      at most one song in each
       |                  |                 |
       snapshot,          the model         mix, encode, publish, end
       decode

Songs are separated one at a time and published in that order. A `Run` is one job's way; the lane hands on to it what its
worker says, and knows which other songs were in the worker when it died.
"""

import msgspec

from demixd.protocol.job import Job, Reason, State
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.prefetch import Prefetch, has_room
from demixd.supervisor.runs.run import Run
from demixd.worker.messages import Failed, FromWorker, Prepared

AT_ONCE = 2
"""One that is being separated, or on its way there, and one that is finishing."""


class Lane:
    """The songs of one worker, `worker`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.worker = context.worker
        self.runs: list[Run] = []
        self.prefetch: Prefetch | None = None
        self.failed_at = 0.0
        """When its machine last failed with a song."""

    def reconfigure(self, context: Context) -> None:
        """From now on another configuration holds; the runs in progress end by the one that they began with."""
        self._context = msgspec.structs.replace(context, worker=self.worker)

    @property
    def has_room_beside(self) -> bool:
        """Whether another job may start beside those in flight here: the model is free."""
        return len(self.runs) < AT_ONCE and all(run.is_finishing for run in self.runs)

    @property
    def prepares(self) -> str | None:
        """The id of the job that is prefetched."""
        return self.prefetch.job.job_id if self.prefetch is not None else None

    def has_prepared(self, job: Job) -> bool:
        """Whether the job is prefetched as it is now."""
        return self.prefetch is not None and self.prefetch.is_for(job)

    # ---- what comes next

    def start(self, job: Job, prefetch: Prefetch | None) -> None:
        """Start the run of a job whose turn it is; `prefetch` is what was done ahead for it."""
        self.drop()
        run = Run(job, self._context)
        self.runs.append(run)
        run.start(prefetch)

    def prepare(self, job: Job | None) -> None:
        """Prefetch the job that comes next, once the model is at work; drop what was prefetched for another."""
        if job is None or not self.has_prepared(job):
            self.drop()
        if job is None or self.prefetch is not None or not all(run.is_decoded for run in self.runs):
            return
        if not self._context.config.limits.too_large(job.identity.size) and has_room(job, self._context):
            self.prefetch = Prefetch(job, self._context)
            self.prefetch.begin()

    def take_prefetch(self, job: Job) -> Prefetch | None:
        """What was done ahead here for the job as it is now, if anything; it is nobody's then."""
        if self.prefetch is None or self.prepares != job.job_id:
            return None
        if not self.prefetch.is_for(job):
            self.drop()
        prefetch, self.prefetch = self.prefetch, None
        return prefetch

    def drop(self) -> None:
        if self.prefetch is not None:
            self.prefetch.drop()
            self.prefetch = None

    # ---- what happens

    def on_message(self, message: FromWorker) -> None:
        """Hand on what the worker says of a song."""
        job_id = getattr(message, "job_id", None)
        if isinstance(message, Prepared):
            if self.prefetch is not None and self.prefetch.job.job_id == job_id:
                self.prefetch.on_prepared()
            return
        if isinstance(message, Failed) and message.is_machines:
            self.failed_at = self._context.clock.now()
        doubts = [run.on_message(message) for run in self.runs if run.job.job_id == job_id]
        for why in filter(None, doubts):
            self.worker.kill(self._context.clock.now(), why)
            self.on_death(why)

    def tick(self, now: float) -> None:
        """Kill a worker that has not stopped a song in time, or has stalled."""
        there = self._in_worker()
        grace_s = self._context.config.limits.cancel_grace_s
        if any(run.stopped_at is not None and now > run.stopped_at + grace_s for run in there):
            why = "it did not stop in time"
            self.worker.kill(now, why)
            self.on_fault(why)
        elif stalled := [run.job.shown for run in there if run.has_stalled(now)]:
            self.worker.kill(now, f"it has stalled with {' and '.join(stalled)}")
            self.on_death("it stalled")

    def on_fault(self, why: str) -> None:
        """The worker was ended for a reason that is none of its songs'."""
        for run in self._in_worker():
            run.on_kill(why)
        self.drop()

    def on_death(self, how: str, *, is_lost: bool = False) -> None:
        """The worker died. Its one song is charged an attempt; where it had two, neither is, and both run alone next: then it
        shows whose fault it was. `is_lost`: its machine went, which is no song's fault."""
        there, jobs = self._in_worker(), self._context.jobs
        prefetch = self.prefetch if self.prefetch is not None and self.prefetch.is_decoding else None
        for run in there:
            run.on_death(how, is_suspect=len(there) + (prefetch is not None) == 1, is_lost=is_lost)
        self.drop()
        if (
            prefetch is not None
            and not is_lost
            and (job := jobs.waiting(prefetch.job.name)) is not None
            and prefetch.is_for(job)
        ):
            message = f"The worker died ({how}) with this song in it; it is tried alone."
            job = jobs.update(job, State.WAITING, reason=Reason.RETRY, message=message, runs_alone=True)
            jobs.save_all([job])

    def _in_worker(self) -> list[Run]:
        return [run for run in self.runs if run.is_at_worker]
