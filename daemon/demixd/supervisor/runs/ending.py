"""How a job ends: points 7 to 10 of the protocol, each safe to do again after a crash."""

import logging

import msgspec

from demixd.config import After
from demixd.protocol.job import FINAL, Cancel, CancelResult, Job, Stage, State, move
from demixd.spool.tree import Spool
from demixd.supervisor import trace
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.runs.cancel_file import is_for_a_newer_drop, remove_cancel, standing_cancel
from demixd.supervisor.runs.originals import put_away

log = logging.getLogger(__name__)


def end(job: Job, state: State, jobs: JobTable, spool: Spool, after: After, **changes: object) -> Job:
    """Make `state` the job's last, then everything that follows from it."""
    trace.point("7-final")
    return conclude(_finally(job, state, jobs, **changes), jobs, spool, after)


def end_missing(job: Job, jobs: JobTable, spool: Spool, *, replaced: bool) -> Job:
    """End a job whose song is not in the inbox any more: deleted, or replaced by a new drop, which is left alone.

    The sidecar goes to the new drop at once then: who waits for an end must not take this one for it.
    """
    message = "Replaced by a new drop." if replaced else "The song was deleted."
    job = _finally(job, State.CANCELLED, jobs, message=message)
    if not replaced:
        jobs.write_sidecar(job)
    log.info("%s: %s", job.shown, message, extra=jobs.fields(job))
    return _finish(job, jobs, spool)


def _finally(job: Job, state: State, jobs: JobTable, **changes: object) -> Job:
    assert state in FINAL
    if state is State.CANCELLED:
        changes["cancel"] = Cancel(seen_at=jobs.now, result=CancelResult.CANCELLED)
        changes.setdefault("message", "Cancelled")
    if state is not State.DONE:
        changes["output"] = None
    return jobs.commit(move(job, state, at=jobs.now, **changes), Stage.FINAL)


def conclude(job: Job, jobs: JobTable, spool: Spool, after: After) -> Job:
    """Points 8 to 10 for a job whose last state is in the ledger. While a folder is away the rest has to wait."""
    trace.point("8-sidecar")
    if not jobs.write_sidecar(job) or jobs.is_away(job.name):
        jobs.unfinished_ends[job.job_id] = job
        return job
    jobs.unfinished_ends.pop(job.job_id, None)
    log.log(
        logging.WARNING if job.state is State.FAILED else logging.INFO,
        "%s: %s%s",
        job.shown,
        job.state,
        f": {job.error.message}" if job.error else "",
        extra=jobs.fields(job),
    )
    trace.point("9-original")
    try:
        left, warning = put_away(job, spool, after)
    except OSError as error:
        log.error("%s is between two names, and waits: %s", job.shown, error)
        jobs.unfinished_ends[job.job_id] = job
        return job
    job = _answer_cancel(msgspec.structs.replace(job, kept=left), jobs, spool)
    if warning:
        job = jobs.update(job, job.state, warnings=(*job.warnings, warning))
    trace.point("10-finished")
    return _finish(job, jobs, spool)


def _finish(job: Job, jobs: JobTable, spool: Spool) -> Job:
    job = jobs.commit(job, Stage.FINISHED)
    spool.remove_work(job.job_id)
    jobs.close(job)
    return job


def _answer_cancel(job: Job, jobs: JobTable, spool: Spool) -> Job:
    """Take the job's cancel file away, and say `too-late` where it did not end the job."""
    seen = standing_cancel(job, spool)
    if seen is None:
        return job
    if is_for_a_newer_drop(job, seen, spool):
        return job  # the next look sees to it
    job = remove_cancel(job, seen, spool.cancel(job.name), spool)
    if job.cancel is None:
        job = jobs.update(job, job.state, cancel=Cancel(seen_at=jobs.now, result=CancelResult.TOO_LATE))
    return job
