"""The runs in progress, and what is done ahead for the song that comes next.

    waiting             in flight
    prefetch  -->  being separated  -->  finishing      at most one song in each
       |                  |                 |
       snapshot,          the model         mix, encode, publish, end
       decode

Songs are separated one at a time and published in that order. A `Run` is one job's way; the runner hands on to it what
happens, and knows which other songs were in the worker when it died.
"""

import logging

import msgspec

from demixd.config import Config
from demixd.protocol.job import Job, Reason, State
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import ResultChecked, SnapshotTaken
from demixd.supervisor.runs.prefetch import Prefetch, has_room
from demixd.supervisor.runs.run import Run
from demixd.worker.messages import FromWorker, Prepared

log = logging.getLogger(__name__)

AT_ONCE = 2
"""One that is being separated, or on its way there, and one that is finishing."""


class Runner:
    """Starts runs, and hands on to them what happens."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._runs: list[Run] = []
        self._prefetch: Prefetch | None = None
        self._jobs, self._workers = context.jobs, context.workers

    def reconfigure(self, config: Config) -> None:
        """From now on another configuration holds; the runs in progress end by the one that they began with."""
        self._context = msgspec.structs.replace(self._context, config=config)

    # ---- who there is

    @property
    def at_work(self) -> set[str]:
        """The ids of the jobs that have a work folder."""
        prefetch = {self._prefetch.job.job_id} if self._prefetch is not None else set()
        return prefetch | {run.job.job_id for run in self._runs}

    def runs(self, name: str) -> bool:
        return any(run.job.name == name for run in self._runs)

    def pauses(self, job: Job, now: float) -> bool:
        """Whether the job has hit an obstacle not long ago, and is left alone."""
        return now < self._context.retry_at.get(job.job_id, now)

    def end_pauses(self) -> None:
        """Let every paused job be tried: what was in their way is gone."""
        self._context.retry_at.clear()

    @property
    def is_stopping_some(self) -> bool:
        """Whether a job that was cancelled has not ended yet."""
        return any(run.cancelled_at is not None for run in self._runs)

    @property
    def has_room_beside(self) -> bool:
        """Whether another job may start beside those in flight: the model is free, and no job has to run alone."""
        return len(self._runs) < AT_ONCE and all(run.is_finishing and not run.job.runs_alone for run in self._runs)

    # ---- what comes next

    def start(self, job: Job) -> None:
        """Start the run of a job whose turn it is."""
        prefetch, self._prefetch = self._prefetch, None
        if prefetch is not None and not prefetch.is_for(job):
            prefetch.drop()
            prefetch = None
        self._context.prepared.clear()
        run = Run(job, self._context)
        self._runs.append(run)
        run.start(prefetch)
        self._clear()

    def prepare(self, job: Job | None) -> None:
        """Prefetch the job that comes next, once the model is at work; drop what was prefetched for another."""
        if self._prefetch is not None and (job is None or not self._prefetch.is_for(job)):
            self._prefetch.drop()
            self._prefetch = None
        if job is None or self._prefetch is not None or not all(run.is_decoded for run in self._runs):
            return
        if not self._context.config.limits.too_large(job.identity.size) and has_room(job, self._context):
            self._prefetch = Prefetch(job, self._context)
            self._prefetch.begin()

    # ---- what happens

    def on_snapshot(self, taken: SnapshotTaken) -> None:
        if self._prefetch is not None and self._prefetch.disk is taken.disk:
            self._prefetch.on_snapshot(taken)
        for run in self._runs:
            if run.disk is taken.disk:
                run.on_snapshot(taken)
        self._clear()

    def on_result(self, checked: ResultChecked) -> None:
        for run in self._runs:
            if run.disk is checked.disk:
                run.on_result(checked)
        self._clear()

    def on_message(self, message: FromWorker) -> None:
        """Hand on what the worker says of a song."""
        job_id = getattr(message, "job_id", None)
        if isinstance(message, Prepared):
            if self._prefetch is not None and self._prefetch.job.job_id == job_id:
                self._prefetch.on_prepared()
            return
        doubts = [run.on_message(message) for run in self._runs if run.job.job_id == job_id]
        self._clear()
        for why in filter(None, doubts):
            self._workers.kill(self._context.clock.now(), why)
            self.on_death(why)

    def look_for_cancels(self, now: float) -> bool:
        """Stop the runs whose cancel files are there; whether there was one."""
        seen = [run for run in self._runs if run.sees_cancel()]
        for run in seen:
            run.cancel(now)
        self._clear()
        return bool(seen)

    def cancel(self, name: str, now: float) -> None:
        """Stop the run of a name, if there is one."""
        for run in self._runs:
            if run.job.name == name:
                run.cancel(now)
        self._clear()

    def cancel_all(self, now: float) -> None:
        for run in self._runs:
            run.cancel(now)
        self._clear()

    def tick(self, now: float) -> None:
        """Kill a worker that has not stopped in time after a cancel, or has stalled."""
        there = self._in_worker()
        grace_s = self._context.config.limits.cancel_grace_s
        if any(run.cancelled_at is not None and now > run.cancelled_at + grace_s for run in there):
            why = "it did not stop in time after a cancel"
            self._workers.kill(now, why)
            for run in there:
                run.on_kill(why)
            self.prepare(None)
            self._clear()
        elif stalled := [run.job.shown for run in there if run.has_stalled(now)]:
            self._workers.kill(now, f"it has stalled with {' and '.join(stalled)}")
            self.on_death("it stalled")

    def on_death(self, how: str) -> None:
        """The worker died. Its one song is charged an attempt; where it had two, neither is, and both run alone next: then it
        shows whose fault it was."""
        there = self._in_worker()
        prefetch = self._prefetch if self._prefetch is not None and self._prefetch.is_decoding else None
        for run in there:
            run.on_death(how, is_suspect=len(there) + (prefetch is not None) == 1)
        self.prepare(None)
        if prefetch is not None and (job := self._jobs.waiting(prefetch.job.name)) is not None and prefetch.is_for(job):
            message = f"The worker died ({how}) with this song in it; it is tried alone."
            job = self._jobs.update(job, State.WAITING, reason=Reason.RETRY, message=message, runs_alone=True)
            self._jobs.save_all([job])
        self._clear()

    def give_back(self) -> None:
        """The daemon stops: the jobs in flight wait again."""
        self.prepare(None)
        for run in self._runs:
            run.give_back()
        self._clear()

    def abandon(self) -> None:
        """The daemon breaks off: end the threads, and write nothing down."""
        disks = [run.disk for run in self._runs]
        for disk in disks + ([self._prefetch.disk] if self._prefetch else []):
            disk.abandon()
            disk.join()

    def _in_worker(self) -> list[Run]:
        return [run for run in self._runs if run.is_at_worker]

    def _clear(self) -> None:
        """Let go of the runs that are over, and tell the others."""
        while any(run.is_over for run in self._runs):
            self._runs[:] = [run for run in self._runs if not run.is_over]
            for run in self._runs:
                run.on_end_of_another()
