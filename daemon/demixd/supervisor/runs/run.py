"""One job from its turn to its end: the ten points (`trace` lists them) in order.

It is told of what happens (a snapshot is ready, the worker said something, the worker died, a cancel was seen) and moves
its job on. It never waits for anything. `outcomes` says what becomes of a job that cannot go on.
"""

import logging

import msgspec

from demixd.protocol.job import Job, Reason, Stage, State
from demixd.protocol.progress import Progress, Step, Throttle, Tick
from demixd.spool import nofollow
from demixd.supervisor import trace
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.jobs.pace import FINISHING
from demixd.supervisor.runs import acceptance, outcomes, publish
from demixd.supervisor.runs.acceptance import Gone
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import DiskThread, ResultChecked, SnapshotTaken
from demixd.supervisor.runs.outcomes import CANCELLED, WITHOUT_OUTBOX, Ends, Waits
from demixd.supervisor.runs.prefetch import Prefetch
from demixd.supervisor.workers.validate import doubt_of
from demixd.worker.messages import (
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

PUBLISHING = Tick(step=Step.PUBLISH, progress=Progress(fraction=0.99), message="Publishing")


class Run:
    """One attempt at a job. `job` is its present value; `is_over` once it has ended, or waits again."""

    def __init__(self, job: Job, context: Context) -> None:
        self.job = job
        self._context = context
        self._config, self._spool = context.config, context.spool
        self._jobs, self._worker = context.jobs, context.worker
        self.disk = DiskThread(context.spool, context.post)
        self.is_over = self.is_at_worker = False
        self.stopped_at: float | None = None
        self._stopped: Ends | Waits | None = None
        """What becomes of the job once it has stopped, where it is being stopped."""
        self._is_prefetched = False
        """Whether the worker was told to decode it ahead, and not yet to separate it."""
        self._fraction = -1.0
        self._further_at = 0.0
        """When the worker last got further with the song."""
        self._throttle = Throttle(context.config.status.progress_s)

    @property
    def is_finishing(self) -> bool:
        """Whether the song needs the model no more."""
        return self.job.step in FINISHING

    @property
    def is_decoded(self) -> bool:
        """Whether the song is decoded, and the disk has been found to have room for the rest."""
        return self.job.step is Step.SEPARATE or self.is_finishing

    def has_stalled(self, now: float) -> bool:
        """Whether the worker has the song, and has got no further with it for too long, whatever it says."""
        return self.is_at_worker and now > self._further_at + self._worker.patience.of(is_finishing=self.is_finishing)

    # ---- points 1 to 3: the song becomes ours

    def start(self, prefetch: Prefetch | None) -> None:
        """Accept the job and take its snapshot on a thread, unless `prefetch` has one that still holds."""
        accepted = acceptance.accept(self.job, self._context)
        if isinstance(accepted, Job):
            self.job = accepted
            if prefetch is not None and prefetch.still_holds():
                self._go_on_from(prefetch)
                return
        if prefetch is not None:
            prefetch.drop()
        if not isinstance(accepted, Job):
            self._carry_out(accepted)
            return
        try:
            self._spool.make_work(self.job.job_id)
        except OSError as error:
            self._meet_obstacle(error)
            return
        self.disk.take(self.job)

    def _go_on_from(self, prefetch: Prefetch) -> None:
        self.disk, self._is_prefetched = prefetch.disk, prefetch.is_at_worker
        if prefetch.taken is not None:
            self.on_snapshot(prefetch.taken)

    def on_snapshot(self, taken: SnapshotTaken) -> None:
        """The snapshot is there, or the song is not what was accepted any more."""
        self.disk.join()
        if self._stopped is not None:
            self._carry_out(self._stopped)
            return
        self.job = acceptance.hashed(self.job, taken)
        judged = acceptance.judge(self.job, taken, self._context)
        if isinstance(judged, Gone):
            self._end_missing(replaced=False)
        elif isinstance(judged, Job):
            self.job = judged
            self._look_for_a_result()
        else:
            self._carry_out(judged)

    def _look_for_a_result(self) -> None:
        """Take an earlier result, let the job wait while its twin makes one, or have it made."""
        earlier = acceptance.earlier_result(self.job, self._context)
        self.job = earlier.job
        if earlier.twin is not None:
            self._carry_out(outcomes.after_twin(earlier.twin))
        elif earlier.done is not None:
            self._forget()
            self.disk.check(earlier.done)
        else:
            self._send()

    def on_result(self, checked: ResultChecked) -> None:
        """An earlier result has been looked at: take it where it is good, else have the song separated."""
        self.disk.join()
        if self._stopped is not None:
            self._carry_out(self._stopped)
        elif not checked.is_good:
            twin = dedupe.twin_of(self.job, self._jobs.running)  # may have found the same
            self._carry_out(outcomes.after_twin(twin)) if twin else self._send()
        else:
            self._end(State.DONE, **dedupe.as_result_of(checked.earlier, self.job))

    def _send(self) -> None:
        """Point 3, then the worker's turn."""
        trace.point("3-started")
        started = msgspec.structs.replace(self.job, attempt=self.job.attempt + 1, engine=self._worker.engine)
        job = self.job = self._jobs.commit(started, Stage.STARTED)
        if not self._worker.is_ready:
            self._carry_out(Waits(reason=Reason.RETRY, message="The worker is not ready."))
            return
        trace.point("4-separate")
        self._further_at = self._context.clock.now()
        self.is_at_worker, self._is_prefetched = True, False
        self._worker.send(Separate.of(job, self._spool, self._config.limits.max_duration_s))

    def _forget(self) -> None:
        """Tell the worker that it need not decode the song ahead."""
        if self._is_prefetched:
            self._worker.send(Forget(job_id=self.job.job_id))
        self._is_prefetched = False

    # ---- the worker's turn

    def on_message(self, message: FromWorker) -> str | None:
        """Take in what the worker says of the job; a sentence where that cannot be true. A worker that does not have the job
        is not believed."""
        if not self.is_at_worker:
            log.warning("%s: the worker says %s of it, and does not have it", self.job.shown, type(message).__name__)
            return None
        why = doubt_of(message, self.job, is_stopped=self._stopped is not None)
        if why is None and isinstance(message, Finished) and not self._is_away():
            why = publish.missing_from(self._spool.outbox, self._spool.out(self.job.job_id), message.all_files)
        if why is None:
            self._obey(message)
        return why

    def _obey(self, message: FromWorker) -> None:
        match message:
            case Decoded(track=track):
                self.job = self._jobs.update(self.job, State.RUNNING, track=track)
            case Progressed(at=tick):
                self._on_progress(tick)
            case Finished():
                self.is_at_worker = False
                self._publish(message)
            case Failed(error=error, timing=timing, is_machines=is_its):
                self.is_at_worker = False
                self.job = msgspec.structs.replace(self.job, timing={**self.job.timing, **timing})
                at = self._context.circumstances
                self._carry_out_unless_stopped(outcomes.after_error(self.job, error, at, is_machines=is_its))
            case Stopped():
                self.is_at_worker = False
                self._carry_out(self._stopped or CANCELLED)

    def _on_progress(self, tick: Tick) -> None:
        now = self._context.clock.now()
        if tick.segment_s is not None or tick.progress.fraction > self._fraction:
            self._fraction, self._further_at = tick.progress.fraction, now
        if self._throttle.passes(now, tick.step):
            left = self._jobs.left(self.job, tick)
            self.job = self._jobs.update(self.job, State.RUNNING, step=tick.step, progress=left, message=tick.message)

    def _publish(self, made: Finished) -> None:
        """Points 5 and 6, and on to the end. A cancel that was seen before the rename wins."""
        began = self._context.clock.uptime()
        job = self.job = self._jobs.update(
            self.job,
            State.RUNNING,
            step=Step.PUBLISH,
            progress=self._jobs.left(self.job, PUBLISHING),
            engine=self._worker.named(made.engine),
            timing={**self.job.timing, **made.timing},
            warnings=(*self.job.warnings, *made.warnings),
            message=PUBLISHING.message,
        )
        trace.point("5-publishing")
        try:
            job = self.job = publish.publish(job, made, self._jobs, self._spool, cancelled=self.sees_cancel)
        except OSError as error:
            self.job = msgspec.structs.replace(job, output=None)
            self._meet_obstacle(error)
            return
        if job.output is None:
            self._carry_out(CANCELLED)
            return
        timing = {**job.timing, "publish_s": round(self._context.clock.uptime() - began, 3)}
        self._end(State.DONE, timing=timing, message="Done", error=None)

    # ---- what stops it

    @property
    def is_cancelled(self) -> bool:
        """Whether a cancel has stopped it."""
        return self._stopped is CANCELLED

    def sees_cancel(self) -> bool:
        """Whether a cancel file means the job."""
        return self.is_cancelled or self._context.cancel_files.mean(self.job)

    def stop(self, now: float, then: Ends | Waits = CANCELLED) -> None:
        """Stop the run, and `then` have the job end or wait again; a cancel holds, whatever comes before or after it."""
        if then is CANCELLED and not self.is_cancelled:
            log.info("%s: cancel seen", self.job.shown)
        self._stopped = CANCELLED if self.is_cancelled else then
        if self.stopped_at is None:
            self.stopped_at = now
            self.disk.abandon()
            if self.is_at_worker:
                self._worker.send(Stop(job_id=self.job.job_id))

    def on_death(self, how: str, *, is_suspect: bool, is_lost: bool) -> None:
        """The worker died with this song in it; `is_suspect` where no other song was, `is_lost` where its machine went."""
        self.is_at_worker = False
        outcome = outcomes.after_death(self.job, how, is_suspect=is_suspect, is_lost=is_lost)
        if self._carry_out_unless_stopped(outcome) and isinstance(outcome, Waits):
            self._jobs.counts["retries"] += 1

    def on_kill(self, why: str) -> None:
        """The worker was ended because of another song."""
        self.is_at_worker = False
        self._carry_out(self._stopped or outcomes.after_kill(why))

    def give_back(self) -> None:
        """The daemon stops: the job waits again, and no attempt is counted."""
        self.disk.abandon()
        self.disk.join()
        self._carry_out(outcomes.STOPPED)

    # ---- how it ends

    def _meet_obstacle(self, error: OSError) -> None:
        self._carry_out(outcomes.after_obstacle(self.job, error, self._context.circumstances))

    def _carry_out_unless_stopped(self, outcome: Ends | Waits) -> bool:
        """Carry out what a failure of the worker leads to; False where a cancel or a missing outbox came first."""
        if self._stopped is not None:
            self._carry_out(self._stopped)
        elif self._is_away():
            self._carry_out(WITHOUT_OUTBOX)
        else:
            self._carry_out(outcome)
            return True
        return False

    def _is_away(self) -> bool:
        return not nofollow.is_there(self._spool.out(self.job.job_id), in_doubt=False)

    def _carry_out(self, outcome: Ends | Waits) -> None:
        """End the run: the job ends or waits again."""
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

    def _end_missing(self, *, replaced: bool) -> None:
        """End a job whose song, and snapshot, are not there any more."""
        self._close()
        self._context.ending.end_missing(self.job, replaced=replaced)

    def _wait(self, waits: Waits) -> None:
        """Let the job wait again; where a newer drop has its name, it ends instead."""
        if self.job.name in self._jobs.successors:
            self._end_missing(replaced=True)
            return
        self._close()
        if waits.pause_s:
            self._context.retry_at[self.job.job_id] = self._context.clock.now() + waits.pause_s
        self._spool.remove_work(self.job.job_id)  # first: on a full disk there is no room for the sidecar before
        job = self._jobs.update(self.job, State.WAITING, **outcomes.changes(self.job, waits))
        self._jobs.commit(job, Stage.ACCEPTED)

    def _close(self) -> None:
        self._forget()
        self._context.retry_at.pop(self.job.job_id, None)
        self.is_over = True
