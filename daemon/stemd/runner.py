"""The running job, from its turn to its end: the ten points of the protocol in order. One job at a time.

It is told of what happens (a snapshot is ready, the worker said something, the worker died, a cancel was seen, time
passes) and moves the job on. It never waits for anything.
"""

import errno
import logging
import stat
import time
from collections.abc import Callable

import msgspec

from stemd import ending, obstacles, publishing, results, trace
from stemd.capture import Capture, ResultChecked, SnapshotTaken
from stemd.config import Config
from stemd.errors import RETRYABLE, Code
from stemd.identity import Identity
from stemd.job import Error, Job, Progress, Reason, Stage, State, Step, Tick
from stemd.jobs import Jobs
from stemd.places import Places
from stemd.snapshot import Outcome, Snapshot
from stemd.spool import Spool
from stemd.worker.keeper import Keeper
from stemd.worker.messages import Began, Decoded, Failed, Finished, FromWorker, Progressed, Separate, Stop, Stopped

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""How long a job waits after an obstacle before it is tried again."""


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
        self._config = config
        self._spool = spool
        self._jobs = jobs
        self._places = places
        self._keeper = keeper
        self._capture = Capture(spool, post)
        self.job: Job | None = None
        self._at_worker = False
        self._cancelled_at: float | None = None
        self._last_progress = 0.0
        self.not_before: dict[str, float] = {}
        """Until when (monotonic) a job that hit an obstacle is left alone, by job id."""

    # ---- points 1 to 3: the song becomes ours

    def start(self, job: Job) -> None:
        """Points 1 and 2: accept the job and take the snapshot on a thread of its own."""
        self._cancelled_at, self._at_worker = None, False
        if self._options_file(job) != job.options_file:
            self._jobs.change(job, State.WAITING, reason=Reason.CHANGING, message="", ready_at=0.0)
            return
        if job.identity.size > self._config.limits.max_bytes:
            self.job = job
            allowed = self._config.limits.max_bytes
            self._fail(Code.TOO_LARGE, f"The song has {job.identity.size} bytes; [limits] max_bytes allows {allowed}.")
            return
        trace.point("1-accepted")
        job = self._jobs.record(job, Stage.ACCEPTED)
        self.job = self._jobs.change(job, State.RUNNING, step=Step.SNAPSHOT, message="Copying", timing={})
        trace.point("2-snapshot")
        try:
            self._spool.make_work(job.job_id)
        except OSError as error:
            self._obstacle(error)
            return
        self._began = time.monotonic()
        self._capture.take(self.job)

    def _options_file(self, job: Job) -> Identity | None:
        try:
            status = self._spool.options(job.name).lstat()
        except OSError:
            return None
        return Identity.of(status) if stat.S_ISREG(status.st_mode) else None

    def on_snapshot(self, taken: SnapshotTaken) -> None:
        """The song is copied and hashed, or is not what was accepted any more."""
        self._capture.join()
        job = self.job
        if job is None or taken.job_id != job.job_id:
            return
        if self._cancelled_at is not None:
            self._end(State.CANCELLED)
        elif isinstance(taken.result, OSError):
            self._obstacle(taken.result)
        elif taken.result.sha256 is None:
            self._lost(taken.result.outcome)
        else:
            self._judge(job, taken.result, taken.result.sha256)

    def _lost(self, outcome: Outcome) -> None:
        """There is no snapshot. What the file is now, the next look finds out."""
        if outcome is Outcome.GONE and self._places.are_away():
            self._back_to_waiting(Reason.OUTBOX_MISSING, "The inbox is away, and the song with it.")
        elif outcome is Outcome.GONE:
            self._vanish(replaced=False)
        elif outcome is Outcome.BUSY:
            self._back_to_waiting(Reason.OPEN_FOR_WRITING, "", ready_at=0.0)
        else:
            self._back_to_waiting(Reason.CHANGING, "The song changed while it was being copied.", ready_at=0.0)

    def _judge(self, job: Job, taken: Snapshot, sha256: str) -> None:
        """Whether the snapshot is the whole song, and whether its result is there already."""
        job = self.job = msgspec.structs.replace(job, sha256=sha256)
        if job.wait_for_sha256 is not None and job.wait_for_sha256 != sha256:
            message = (
                f"The song's sha256 is {sha256}, and wait_for_sha256 is {job.wait_for_sha256}: it is not complete."
            )
            self._on_error(Error(code=Code.TRUNCATED, message=message, retryable=True))
            return
        if taken.has_hole:
            if self._has_grace(job):
                message = "A part of the song was never written; waiting for it to come."
                self._wait_for_the_rest(job, message)
                return
            warning = "has-holes: a part of the song's file was never written and reads as silence or noise."
            job = self.job = msgspec.structs.replace(job, warnings=(*job.warnings, warning))
        engine = self._keeper.engine
        if engine is not None:
            job = self.job = msgspec.structs.replace(job, result_key=results.key(job, engine.model_sha256))
            earlier = None if job.force else self._jobs.result(job)
            if earlier is not None:
                self._capture.check(job, earlier)
                return
        self._send(job)

    def on_result(self, checked: ResultChecked) -> None:
        """An earlier result of the same has been looked at: it is good, or the song is separated after all."""
        self._capture.join()
        job = self.job
        if job is None or checked.job_id != job.job_id:
            return
        if self._cancelled_at is not None:
            self._end(State.CANCELLED)
        elif not checked.is_good:
            self._send(job)
        else:
            earlier = checked.earlier
            self._end(
                State.DONE,
                message="Done before",
                duplicate_of=earlier.job_id,
                output=earlier.output,
                track=earlier.track,
                engine=earlier.engine,
                warnings=(*job.warnings, *earlier.warnings),
            )

    def _send(self, job: Job) -> None:
        """Point 3, then the worker's turn."""
        assert job.sha256 is not None
        trace.point("3-started")
        timing = {"snapshot_s": round(time.monotonic() - self._began, 3)}
        started = msgspec.structs.replace(job, attempt=job.attempt + 1, timing=timing)
        job = self.job = self._jobs.record(started, Stage.STARTED)
        if self._keeper.handle is None or not self._keeper.is_ready:
            self._back_to_waiting(Reason.RETRY, "The worker is not ready.")
            return
        trace.point("4-separate")
        self._keeper.touch(time.monotonic())
        self._at_worker = True
        self._keeper.handle.send(
            Separate(
                job_id=job.job_id,
                name=job.shown.rpartition("/")[2],
                song=str(self._spool.tmp(job.job_id) / "song"),
                sha256=started.sha256 or "",
                tmp=str(self._spool.tmp(job.job_id)),
                out=str(self._spool.out(job.job_id)),
                options=job.options,
                max_duration_s=self._config.limits.max_duration_s,
            )
        )

    # ---- the worker's turn

    def on_message(self, message: FromWorker) -> None:
        """What the worker says of the running job."""
        job = self.job
        if job is None or getattr(message, "job_id", None) != job.job_id:
            return
        match message:
            case Began(step=step):
                self.job = self._jobs.change(job, State.RUNNING, step=step)
            case Decoded(track=track):
                self.job = self._jobs.change(job, State.RUNNING, track=track)
            case Progressed(at=tick):
                self._show_progress(job, tick)
            case Finished():
                self._at_worker = False
                self._publish(job, message)
            case Failed(error=error, timing=timing):
                self._at_worker = False
                self.job = msgspec.structs.replace(job, timing={**job.timing, **timing})
                if self._cancelled_at is not None:
                    self._end(State.CANCELLED)
                elif not self._spool.out(job.job_id).exists():
                    self._go_away()
                else:
                    self._on_error(error)
            case Stopped():
                self._at_worker = False
                self._end(State.CANCELLED)

    def _show_progress(self, job: Job, at: Tick) -> None:
        progress = Progress(
            fraction=round(at.fraction, 4),
            step_fraction=round(at.step_fraction, 4),
            eta_s=at.eta_s,
            speed_x=at.speed_x,
        )
        now = time.monotonic()
        if at.step is job.step and now < self._last_progress + self._config.status.progress_s:
            return
        self._last_progress = now
        self.job = self._jobs.change(job, State.RUNNING, step=at.step, progress=progress, message=at.message)

    def _publish(self, job: Job, made: Finished) -> None:
        """Points 5 and 6, and on to the end. A cancel that was seen before the rename wins."""
        began = time.monotonic()
        job = self.job = self._jobs.change(
            job,
            State.RUNNING,
            step=Step.PUBLISH,
            engine=made.engine,
            timing={**job.timing, **made.timing},
            warnings=(*job.warnings, *made.warnings),
            message="Publishing",
        )
        trace.point("5-publishing")
        try:
            job = self.job = publishing.prepare(job, made, self._jobs, self._spool)
            job = self.job = publishing.put_out(job, self._jobs, self._spool, cancelled=self.sees_cancel)
        except OSError as error:
            self.job = msgspec.structs.replace(job, output=None)
            self._obstacle(error)
            return
        if job.output is None:
            self._end(State.CANCELLED)
            return
        timing = {**job.timing, "publish_s": round(time.monotonic() - began, 3)}
        self._end(State.DONE, timing=timing, message="Done", error=None)

    def sees_cancel(self) -> bool:
        """Whether a cancel file for the running job is there."""
        if self.job is None:
            return False
        return self._cancelled_at is not None or publishing.is_cancelled(self.job, self._jobs, self._spool)

    def cancel(self, now: float) -> None:
        """Stop the running job; once is enough."""
        if self.job is None or self._cancelled_at is not None:
            return
        log.info("%s: cancel seen", self.job.shown)
        self._cancelled_at = now
        self._capture.abandon()
        if self._at_worker and self._keeper.handle:
            self._keeper.handle.send(Stop(job_id=self.job.job_id))

    def tick(self, now: float) -> None:
        """What only time brings: a worker that does not stop, or has stalled."""
        if self.job is None or not self._at_worker:
            return
        if self._cancelled_at is not None and now > self._cancelled_at + self._config.limits.cancel_grace_s:
            self._keeper.kill(now, "it did not stop in time after a cancel")
            self._at_worker = False
            self._end(State.CANCELLED)
        elif self._keeper.has_stalled(now):
            self._keeper.kill(now, f"it has stalled with {self.job.shown}")
            self.on_death("it stalled")

    def on_death(self, how: str) -> None:
        """The worker died. It costs the running job an attempt, nobody else anything."""
        job = self.job
        if job is None or not self._at_worker:
            return
        self._at_worker = False
        if self._cancelled_at is not None:
            self._end(State.CANCELLED)
        elif not self._spool.out(job.job_id).exists():
            self._go_away()
        elif job.attempt >= job.max_attempts:
            self._fail(Code.GAVE_UP, f"The worker died {job.attempt} times over this song; the last time {how}.", how)
        else:
            self._jobs.counts["retries"] += 1
            self._back_to_waiting(Reason.RETRY, f"The worker died ({how}); trying again.", charge=True)

    def give_back(self) -> None:
        """The daemon stops: the running job waits again, and no attempt is charged."""
        self._capture.abandon()
        self._capture.join()
        if self.job is not None:
            self._back_to_waiting(Reason.QUEUED, "The daemon was stopped; this song is next.")

    def _on_error(self, error: Error) -> None:
        assert self.job is not None
        reason = obstacles.WAITS.get(error.code)
        if reason is Reason.TRUNCATED:
            if self._has_grace(self.job):
                self._wait_for_the_rest(self.job, error.message)
                return
        elif reason is not None:
            self.not_before[self.job.job_id] = time.monotonic() + RETRY_S
            self._back_to_waiting(reason, error.message)
            return
        self._end(State.FAILED, error=error, message=error.message)

    def _go_away(self) -> None:
        """The work folder is gone, and with it whatever the worker fell over: nobody's fault."""
        self._back_to_waiting(Reason.OUTBOX_MISSING, "The outbox went away during the work; it is done again.")

    def _has_grace(self, job: Job) -> bool:
        since = job.truncated_since or time.time()
        return time.time() < since + self._config.limits.truncated_grace_s

    def _wait_for_the_rest(self, job: Job, message: str) -> None:
        """Its file has to settle anew, and may grow until it does."""
        since = job.truncated_since or time.time()
        self._back_to_waiting(Reason.TRUNCATED, message, ready_at=0.0, settled=False, truncated_since=since)

    def _obstacle(self, error: OSError) -> None:
        """The machine, not the song, is in the way."""
        assert self.job is not None
        if error.errno in (errno.EACCES, errno.EPERM):
            self.not_before[self.job.job_id] = time.monotonic() + RETRY_S
            self._back_to_waiting(Reason.PERMISSION, f"{error.filename}: {error.strerror}.", ready_at=0.0)
        else:
            self._on_error(obstacles.described(error))

    def _back_to_waiting(self, reason: Reason, message: str, *, charge: bool = False, **changes: object) -> None:
        """Let the job wait again; with `ready_at` 0 its file has to prove itself anew."""
        job = self.job
        assert job is not None
        if job.name in self._jobs.behind:
            self._vanish(replaced=True)
            return
        attempt = job.attempt if charge or job.stage is not Stage.STARTED else job.attempt - 1
        lost: dict[str, object] = {"track": None, "engine": None, "output": None, "warnings": (), "timing": {}}
        moved = self._jobs.change(
            job, State.WAITING, reason=reason, message=message, attempt=max(attempt, 0), **lost, **changes
        )
        self._jobs.record(moved, Stage.ACCEPTED)
        self._spool.remove_work(job.job_id)
        self.job = None

    def _fail(self, code: Code, message: str, detail: str | None = None) -> None:
        error = Error(code=code, message=message, detail=detail, retryable=code in RETRYABLE)
        self._end(State.FAILED, error=error, message=message)

    def _end(self, state: State, **changes: object) -> None:
        assert self.job is not None
        ending.end(self.job, state, self._jobs, self._spool, self._config.inbox.after, **changes)
        self.not_before.pop(self.job.job_id, None)
        self.job = None

    def _vanish(self, *, replaced: bool) -> None:
        """The song is not there any more, and neither is its snapshot."""
        assert self.job is not None
        ending.vanish(self.job, self._jobs, self._spool, replaced=replaced)
        self.not_before.pop(self.job.job_id, None)
        self.job = None
