"""One job from its turn to its end: the ten points of the protocol in order.

It is told of what happens (a snapshot is ready, the worker said something, the worker died, a cancel was seen) and moves
its job on. It never waits for anything. `outcomes` says what becomes of a job that cannot go on.
"""

import logging
import stat

import msgspec

from demixd.errors import Code
from demixd.protocol.identity import Identity
from demixd.protocol.job import Error, Job, Progress, Reason, Stage, State, Step, Tick
from demixd.spool import nofollow
from demixd.supervisor import trace
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.runs import outcomes, publish
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import DiskThread, ResultChecked, SnapshotTaken
from demixd.supervisor.runs.outcomes import CANCELLED, WITHOUT_OUTBOX, Ends, Waits
from demixd.supervisor.runs.prefetch import Prefetch
from demixd.supervisor.runs.snapshot import Outcome, Snapshot
from demixd.supervisor.workers.validate import doubt_of
from demixd.worker.messages import (
    Began,
    Decoded,
    Failed,
    Finished,
    Forget,
    FromWorker,
    Progressed,
    Separate,
    Stop,
    Stopped,
)

log = logging.getLogger(__name__)

FINISHING = frozenset({Step.MIX, Step.ENCODE, Step.PUBLISH})
"""The steps that need no model."""


class Run:
    """`job` as it is now; `is_over` once it has ended, or waits again."""

    def __init__(self, job: Job, context: Context) -> None:
        self.job = job
        self._context = context
        self._config, self._spool = context.config, context.spool
        self._jobs, self._workers = context.jobs, context.workers
        self.disk = DiskThread(context.spool, context.post)
        self.is_over = False
        self.is_at_worker = False
        self.cancelled_at: float | None = None
        self._is_prefetched = False
        """Whether the worker was told to decode it prefetch, and not yet to separate it."""
        self._awaits_twin = False
        self._last_progress = 0.0

    @property
    def is_finishing(self) -> bool:
        """Whether it needs the model no more."""
        return self.job.step in FINISHING

    @property
    def is_decoded(self) -> bool:
        """Whether the disk has been found to have room for the rest of it."""
        return self.job.step is Step.SEPARATE or self.is_finishing

    # ---- points 1 to 3: the song becomes ours

    def start(self, prefetch: Prefetch | None) -> None:
        """Points 1 and 2: accept the job and take its snapshot on a thread, unless `ahead` has one that still holds."""
        is_accepted = self._accept()
        if is_accepted and prefetch is not None and prefetch.still_holds():
            self.disk, self._is_prefetched = prefetch.disk, prefetch.is_at_worker
            if prefetch.taken is not None:
                self.on_snapshot(prefetch.taken)
            return
        if prefetch is not None:
            prefetch.drop()
        if not is_accepted:
            return
        try:
            self._spool.make_work(self.job.job_id)
        except OSError as error:
            self._meet_obstacle(error)
            return
        self.disk.take(self.job)

    def _accept(self) -> bool:
        job = self.job
        if self._options_file(job) != job.options_file:
            self._jobs.update(job, State.WAITING, reason=Reason.CHANGING, message="", ready_at=0.0)
            self.is_over = True
            return False
        allowed = self._config.limits.max_bytes
        if job.identity.size > allowed:
            message = f"The song has {job.identity.size} bytes; [limits] max_bytes allows {allowed}."
            self._carry_out(outcomes.fails(Code.TOO_LARGE, message))
            return False
        trace.point("1-accepted")
        job = self._jobs.commit(job, Stage.ACCEPTED)
        self.job = self._jobs.update(job, State.RUNNING, step=Step.SNAPSHOT, message="Copying", timing={})
        trace.point("2-snapshot")
        return True

    def _options_file(self, job: Job) -> Identity | None:
        try:
            status = self._spool.options(job.name).lstat()
        except OSError:
            return None
        return Identity.of(status) if stat.S_ISREG(status.st_mode) else None

    def on_snapshot(self, taken: SnapshotTaken) -> None:
        """The song is copied and hashed, or is not what was accepted any more."""
        self.disk.join()
        if self.cancelled_at is not None:
            self._carry_out(CANCELLED)
        elif isinstance(taken.result, OSError):
            self._meet_obstacle(taken.result)
        elif taken.result.sha256 is None:
            self._lose_song(taken.result.outcome)
        else:
            self.job = msgspec.structs.replace(
                self.job, sha256=taken.result.sha256, timing={"snapshot_s": taken.seconds}
            )
            self._judge(self.job, taken.result)

    def _lose_song(self, outcome: Outcome) -> None:
        """There is no snapshot. What the file is now, the next look finds out."""
        if outcome is Outcome.GONE and self._context.folders.are_away():
            message = "The inbox is away, and the song with it."
            self._carry_out(Waits(reason=Reason.OUTBOX_MISSING, message=message))
        elif outcome is Outcome.GONE:
            self._end_missing(replaced=False)
        elif outcome is Outcome.BUSY:
            self._carry_out(Waits(reason=Reason.OPEN_FOR_WRITING, settles_anew=True))
        else:
            message = "The song changed while it was being copied."
            self._carry_out(Waits(reason=Reason.CHANGING, message=message, settles_anew=True))

    def _judge(self, job: Job, taken: Snapshot) -> None:
        """Whether the snapshot is the whole song, and whether its result is there already."""
        if job.wait_for_sha256 not in (None, job.sha256):
            message = (
                f"The song's sha256 is {job.sha256}, and wait_for_sha256 is {job.wait_for_sha256}: it is not complete."
            )
            self._fail(Error(code=Code.TRUNCATED, message=message, retryable=True))
            return
        if not job.settled:
            job = self.job = self._jobs.save(msgspec.structs.replace(job, settled=True))  # by its hash
        if taken.has_hole:
            message = "A part of the song was never written; waiting for it to come."
            waits = outcomes.after_missing_part(job, message, self._context.circumstances)
            if waits is not None:
                self._carry_out(waits)
                return
            warning = "has-holes: a part of the song's file was never written and reads as silence or noise."
            self.job = msgspec.structs.replace(job, warnings=(*job.warnings, warning))
        self._look_for_a_result()

    def _look_for_a_result(self) -> None:
        """Take the one that is there, wait for the one that is being made, or have it made."""
        engine = self._workers.engine
        if engine is not None:
            self.job = msgspec.structs.replace(self.job, result_key=dedupe.key(self.job, engine.model_sha256))
            self._awaits_twin = self._context.twin(self.job) is not None
            earlier = None if self.job.force else self._jobs.result(self.job)
            if self._awaits_twin or earlier is not None:
                self._forget()
                if not self._awaits_twin and earlier is not None:
                    self.disk.check(earlier)
                return
        self._send()

    def on_end_of_another(self) -> None:
        """Another job is not in flight any more: if it made what this one asks for, there is a result to look at."""
        if self._awaits_twin:
            self._look_for_a_result()

    def on_result(self, checked: ResultChecked) -> None:
        """An earlier result of the same has been looked at: it is good, or the song is separated after all."""
        self.disk.join()
        if self.cancelled_at is not None:
            self._carry_out(CANCELLED)
        elif not checked.is_good:
            self._send()
        else:
            earlier = checked.earlier
            self._end(
                State.DONE,
                message="Done before",
                duplicate_of=earlier.job_id,
                output=earlier.output,
                track=earlier.track,
                engine=earlier.engine,
                warnings=(*self.job.warnings, *earlier.warnings),
            )

    def _send(self) -> None:
        """Point 3, then the worker's turn."""
        trace.point("3-started")
        started = msgspec.structs.replace(self.job, attempt=self.job.attempt + 1)
        job = self.job = self._jobs.commit(started, Stage.STARTED)
        if self._workers.process is None or not self._workers.is_ready:
            self._carry_out(Waits(reason=Reason.RETRY, message="The worker is not ready."))
            return
        trace.point("4-separate")
        self._workers.touch(self._context.clock.now())
        self.is_at_worker, self._is_prefetched = True, False
        tmp = self._spool.tmp(job.job_id)
        self._workers.process.send(
            Separate(
                job_id=job.job_id,
                name=job.shown.rpartition("/")[2],
                song=str(tmp / "song"),
                sha256=job.sha256 or "",
                tmp=str(tmp),
                out=str(self._spool.out(job.job_id)),
                options=job.options,
                max_duration_s=self._config.limits.max_duration_s,
            )
        )

    def _forget(self) -> None:
        """The worker need not decode it: the result is there, or will be, or nobody wants it any more."""
        if self._is_prefetched and self._workers.process is not None:
            self._workers.process.send(Forget(job_id=self.job.job_id))
        self._is_prefetched = False

    # ---- the worker's turn

    def on_message(self, message: FromWorker) -> str | None:
        """What the worker says of the job; why it cannot be true, where it cannot. Of a job that it does not have it says
        nothing that counts."""
        if not self.is_at_worker:
            log.warning("%s: the worker says %s of it, and does not have it", self.job.shown, type(message).__name__)
            return None
        why = doubt_of(message, self.job, is_stopped=self.cancelled_at is not None)
        if why is None and isinstance(message, Finished) and not self._is_away():
            why = publish.missing_from(self._spool.outbox, self._spool.out(self.job.job_id), message.files)
        if why is None:
            self._obey(message)
        return why

    def _obey(self, message: FromWorker) -> None:
        match message:
            case Began(step=step):
                self.job = self._jobs.update(self.job, State.RUNNING, step=step)
            case Decoded(track=track):
                self.job = self._jobs.update(self.job, State.RUNNING, track=track)
            case Progressed(at=tick):
                self._show_progress(tick)
            case Finished():
                self.is_at_worker = False
                self._publish(message)
            case Failed(error=error, timing=timing):
                self.is_at_worker = False
                self.job = msgspec.structs.replace(self.job, timing={**self.job.timing, **timing})
                self._carry_out_unless_stopped(outcomes.after_error(self.job, error, self._context.circumstances))
            case Stopped():
                self.is_at_worker = False
                self._carry_out(CANCELLED)

    def _show_progress(self, at: Tick) -> None:
        progress = Progress(
            fraction=round(at.fraction, 4),
            step_fraction=round(at.step_fraction, 4),
            eta_s=at.eta_s,
            speed_x=at.speed_x,
        )
        now = self._context.clock.now()
        if at.step is self.job.step and now < self._last_progress + self._config.status.progress_s:
            return
        self._last_progress = now
        self.job = self._jobs.update(self.job, State.RUNNING, step=at.step, progress=progress, message=at.message)

    def _publish(self, made: Finished) -> None:
        """Points 5 and 6, and on to the end. A cancel that was seen before the rename wins."""
        began = self._context.clock.now()
        job = self.job = self._jobs.update(
            self.job,
            State.RUNNING,
            step=Step.PUBLISH,
            engine=made.engine,
            timing={**self.job.timing, **made.timing},
            warnings=(*self.job.warnings, *made.warnings),
            message="Publishing",
        )
        trace.point("5-publishing")
        try:
            job = self.job = publish.prepare(job, made, self._jobs, self._spool)
            job = self.job = publish.put_out(job, self._jobs, self._spool, cancelled=self.sees_cancel)
        except OSError as error:
            self.job = msgspec.structs.replace(job, output=None)
            self._meet_obstacle(error)
            return
        if job.output is None:
            self._carry_out(CANCELLED)
            return
        timing = {**job.timing, "publish_s": round(self._context.clock.now() - began, 3)}
        self._end(State.DONE, timing=timing, message="Done", error=None)

    # ---- what stops it

    def sees_cancel(self) -> bool:
        """Whether a cancel file for the job is there."""
        return self.cancelled_at is not None or self._context.cancel_files.mean(self.job)

    def cancel(self, now: float) -> None:
        """Stop; once is enough."""
        if self.cancelled_at is not None:
            return
        log.info("%s: cancel seen", self.job.shown)
        self.cancelled_at = now
        self.disk.abandon()
        if self.is_at_worker and self._workers.process:
            self._workers.process.send(Stop(job_id=self.job.job_id))
        elif not self.disk.is_busy:
            self._carry_out(CANCELLED)  # it waits for the result of another

    def on_death(self, how: str, *, is_suspect: bool) -> None:
        """The worker died, with this song in it; `is_suspect` where no other song was."""
        self.is_at_worker = False
        outcome = outcomes.after_death(self.job, how, is_suspect=is_suspect)
        if self._carry_out_unless_stopped(outcome) and isinstance(outcome, Waits):
            self._jobs.counts["retries"] += 1

    def on_kill(self, why: str) -> None:
        """The worker was ended for a reason that is none of this song's."""
        self.is_at_worker = False
        self._carry_out(CANCELLED if self.cancelled_at is not None else outcomes.after_kill(why))

    def give_back(self) -> None:
        """The daemon stops: the job waits again, and no attempt is counted."""
        self.disk.abandon()
        self.disk.join()
        self._carry_out(Waits(reason=Reason.QUEUED, message="The daemon was stopped; this song is next."))

    # ---- how it ends

    def _fail(self, error: Error) -> None:
        self._carry_out(outcomes.after_error(self.job, error, self._context.circumstances))

    def _meet_obstacle(self, error: OSError) -> None:
        self._carry_out(outcomes.after_obstacle(self.job, error, self._context.circumstances))

    def _carry_out_unless_stopped(self, outcome: Ends | Waits) -> bool:
        """Carry out what the worker's failure leads to, and say so; a cancel, or an outbox that is away, comes first."""
        if self.cancelled_at is not None:
            self._carry_out(CANCELLED)
        elif self._is_away():
            self._carry_out(WITHOUT_OUTBOX)
        else:
            self._carry_out(outcome)
            return True
        return False

    def _is_away(self) -> bool:
        return not nofollow.is_there(self._spool.out(self.job.job_id), in_doubt=True)

    def _carry_out(self, outcome: Ends | Waits) -> None:
        """The run is over."""
        if isinstance(outcome, Waits):
            self._wait(outcome)
        elif outcome.error is not None:
            self._end(outcome.state, error=outcome.error, message=outcome.error.message)
        else:
            self._end(outcome.state)

    def _end(self, state: State, **changes: object) -> None:
        """Points 7 to 10."""
        self._close()
        self._context.ending.end(self.job, state, **changes)
        self._context.retry_at.pop(self.job.job_id, None)

    def _end_missing(self, *, replaced: bool) -> None:
        """The song is not there any more, and neither is its snapshot."""
        self._close()
        self._context.ending.end_missing(self.job, replaced=replaced)
        self._context.retry_at.pop(self.job.job_id, None)

    def _wait(self, waits: Waits) -> None:
        """Let the job wait again; where a newer drop has its name, it ends instead."""
        if self.job.name in self._jobs.successors:
            self._end_missing(replaced=True)
            return
        self._close()
        if waits.pause_s:
            self._context.retry_at[self.job.job_id] = self._context.clock.now() + waits.pause_s
        job = self._jobs.update(self.job, State.WAITING, **outcomes.changes(self.job, waits))
        self._jobs.commit(job, Stage.ACCEPTED)
        self._spool.remove_work(self.job.job_id)

    def _close(self) -> None:
        self._forget()
        self.is_over = True
