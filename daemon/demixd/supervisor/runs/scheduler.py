"""Whose turn it is: the first in the queue whose model is warm; and why the others wait.

Beside a song in flight only the one that comes next matters, and only if it wants the model that is warm: it is prepared,
and begins when the model is free. Another model is loaded when nothing is in flight.
"""

from demixd.protocol.job import Job, Reason, State
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.runner import Runner
from demixd.supervisor.workers.manager import Have


class Scheduler:
    """Starts the next job once the model is free. `now` is monotonic, in seconds."""

    def __init__(self, context: Context, runner: Runner) -> None:
        self._jobs, self._workers, self._folders = context.jobs, context.workers, context.folders
        self._runner = runner
        self._marked = False
        self._were_missing = False

    def begin(self, now: float) -> None:
        """Start the next job, if its model is warm and the folders are there; prefetch the one after."""
        if not self._jobs.running:
            self._begin_first(now)
        following = self._next(now)
        if following is not None and self._runner.has_room_beside:
            self._runner.start(self._unmark(following))
            following = self._next(now)
        self._runner.prepare(following)

    def _begin_first(self, now: float) -> None:
        if self._folders.missing:
            self._were_missing = True
            self._mark_all(Reason.OUTBOX_MISSING, next(iter(self._folders.missing.values())))
            return
        if self._were_missing:
            self._runner.end_pauses()  # whoever paused, paused for what is there again
        self._choose(now)
        if self._were_missing:
            self._were_missing = False
            self._queue_again()

    def _next(self, now: float) -> Job | None:
        """The job that can run beside those in flight, with the model that is warm; None where none can."""
        running = self._jobs.running
        if not running or self._folders.missing or any(job.runs_alone for job in running):
            return None
        for job in self._jobs.queued():
            if self._is_held(job, now) or not self._folders.may_hold(job.name):
                continue
            if self._workers.serves(job.options):
                return None if job.runs_alone else job
            if not self._workers.lacks(job.options, now):
                return None  # its model is loaded first
        return None

    def _is_held(self, job: Job, now: float) -> bool:
        """Whether the job pauses, or waits for the older job of its name."""
        newer = self._jobs.successors.get(job.name)
        return self._runner.pauses(job, now) or (newer is not None and newer.job_id == job.job_id)

    def _choose(self, now: float) -> None:
        for job in self._jobs.queue():
            if self._is_held(job, now):
                continue
            if not self._folders.may_hold(job.name):
                self._mark(job, Reason.OUTBOX_MISSING, "The inbox is another folder now, without this song.")
                continue
            match self._workers.want(job.options, now):
                case Have.READY:
                    self._runner.start(self._unmark(job))
                    return
                case Have.MISSING:
                    self._mark(job, Reason.MODEL_MISSING, self._workers.why_missing(job.options))
                case Have.BUSY:
                    self._wait_for_the_worker()
                    return

    def _queue_again(self) -> None:
        """All folders are there again: jobs that waited for them wait for their turn."""
        for job in self._jobs.queue():
            if job.reason is Reason.OUTBOX_MISSING and self._folders.may_hold(job.name):
                self._unmark(job)

    def _wait_for_the_worker(self) -> None:
        """While a model is loaded, which takes seconds, the jobs are simply queued; while it is fetched they say so."""
        if self._workers.state == "fetching":
            self._mark_all(Reason.MODEL_MISSING, self._workers.message)
        elif self._marked:
            for job in self._jobs.queue():
                if job.reason is not Reason.MODEL_MISSING or not self._workers.why_missing(job.options):
                    self._unmark(job)

    def _mark_all(self, reason: Reason, message: str) -> None:
        for job in self._jobs.queue():
            self._mark(job, reason, message)

    def _mark(self, job: Job, reason: Reason, message: str) -> None:
        """Show why a job in the queue waits."""
        self._marked = True
        if (job.reason, job.message) != (reason, message):
            self._jobs.update(job, State.WAITING, reason=reason, message=message)

    def _unmark(self, job: Job) -> Job:
        if job.reason not in (Reason.MODEL_MISSING, Reason.OUTBOX_MISSING):
            return job
        return self._jobs.update(job, State.WAITING, reason=Reason.QUEUED, message="")
