"""How a job ends: points 7 to 10 of the protocol, each safe to do again after a crash."""

import logging
from pathlib import Path

import msgspec

from stemd import trace
from stemd.config import After
from stemd.identity import Identity
from stemd.job import FINAL, Cancel, CancelResult, Job, Stage, State, move
from stemd.jobs import Jobs
from stemd.spool import Spool
from stemd.steps import publish

log = logging.getLogger(__name__)


def end(job: Job, state: State, jobs: Jobs, spool: Spool, after: After, **changes: object) -> Job:
    """Make `state` the job's last, then everything that follows from it."""
    assert state in FINAL
    if state is State.CANCELLED:
        changes["cancel"] = Cancel(seen_at=jobs.now, result=CancelResult.CANCELLED)
        changes["message"] = "Cancelled"
    trace.point("7-final")
    final = jobs.record(move(job, state, at=jobs.now, **changes), Stage.FINAL)
    return conclude(final, jobs, spool, after)


def conclude(job: Job, jobs: Jobs, spool: Spool, after: After) -> Job:
    """Points 8 to 10 for a job whose last state is in the ledger."""
    trace.point("8-sidecar")
    jobs.show(job)
    log.info("%s: %s%s", job.shown, job.state, f": {job.error.message}" if job.error else "")
    trace.point("9-original")
    left, warning = _put_away(job, spool, after)
    late = _remove(spool.cancel(job.name))
    if warning or (late and job.cancel is None):
        cancel = job.cancel or (Cancel(seen_at=jobs.now, result=CancelResult.TOO_LATE) if late else None)
        job = jobs.change(job, job.state, cancel=cancel, warnings=(*job.warnings, *([warning] if warning else [])))
    trace.point("10-finished")
    job = jobs.record(msgspec.structs.replace(job, left=left), Stage.FINISHED)
    spool.remove_work(job.job_id)
    jobs.close(job)
    return job


def _remove(cancel: Path) -> bool:
    """Take a cancel file away; whether there was one."""
    try:
        cancel.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("%s cannot be removed: %s", cancel, error)
    return True


def _put_away(job: Job, spool: Spool, after: After) -> tuple[Identity | None, str | None]:
    """Move, keep or delete the original: what of it stays in the inbox, and a warning where that was not the plan."""
    if after is After.KEEP:
        return job.identity, None
    song, taken = spool.song(job.name), spool.taken(job.name, job.job_id)
    try:
        if not publish.take(song, taken, job.identity):
            return None, None
        if job.state is State.DONE and after is After.DELETE:
            taken.unlink()
        else:
            publish.store(taken, (spool.done if job.state is State.DONE else spool.failed) / job.name)
        return None, None
    except OSError as error:
        reason = error.strerror
        log.warning("%s stays in the inbox: %s", job.shown, error)
    try:
        return publish.put_back(taken, song), f"The original stays in the inbox: {reason}."
    except OSError as second:
        log.error("%s cannot be named %s again: %s", taken, song.name, second)
        return None, f"The original is left in the inbox as {taken.name}: {second.strerror}."
