"""How a job ends: points 7 to 10 of the protocol, each safe to do again after a crash."""

import logging
from pathlib import Path

import msgspec

from demixd.config import After
from demixd.protocol.identity import Identity
from demixd.protocol.job import FINAL, Cancel, CancelResult, Job, Stage, State, move
from demixd.spool import nofollow
from demixd.spool.tree import OPTIONS, Spool, companion
from demixd.supervisor import trace
from demixd.supervisor.jobs.table import Jobs
from demixd.supervisor.runs import originals

log = logging.getLogger(__name__)


def end(job: Job, state: State, jobs: Jobs, spool: Spool, after: After, **changes: object) -> Job:
    """Make `state` the job's last, then everything that follows from it."""
    trace.point("7-final")
    return conclude(_finally(job, state, jobs, **changes), jobs, spool, after)


def vanish(job: Job, jobs: Jobs, spool: Spool, *, replaced: bool) -> Job:
    """End a job whose song is not in the inbox any more: deleted, or replaced by a new drop, which is left alone.

    The sidecar goes to the new drop at once then: who waits for an end must not take this one for it.
    """
    message = "Replaced by a new drop." if replaced else "The song was deleted."
    job = _finally(job, State.CANCELLED, jobs, message=message)
    if not replaced:
        jobs.show(job)
    log.info("%s: %s", job.shown, message, extra=jobs.fields(job))
    return _finish(job, jobs, spool)


def _finally(job: Job, state: State, jobs: Jobs, **changes: object) -> Job:
    assert state in FINAL
    if state is State.CANCELLED:
        changes["cancel"] = Cancel(seen_at=jobs.now, result=CancelResult.CANCELLED)
        changes.setdefault("message", "Cancelled")
    if state is not State.DONE:
        changes["output"] = None
    return jobs.record(move(job, state, at=jobs.now, **changes), Stage.FINAL)


def conclude(job: Job, jobs: Jobs, spool: Spool, after: After) -> Job:
    """Points 8 to 10 for a job whose last state is in the ledger. While a folder is away the rest has to wait."""
    trace.point("8-sidecar")
    if not jobs.show(job) or jobs.is_away(job.name):
        jobs.parked[job.job_id] = job
        return job
    jobs.parked.pop(job.job_id, None)
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
        left, warning = _put_away(job, spool, after)
    except OSError as error:
        log.error("%s is between two names, and waits: %s", job.shown, error)
        jobs.parked[job.job_id] = job
        return job
    job = _answer_cancel(msgspec.structs.replace(job, left=left), jobs, spool)
    if warning:
        job = jobs.change(job, job.state, warnings=(*job.warnings, warning))
    trace.point("10-finished")
    return _finish(job, jobs, spool)


def _finish(job: Job, jobs: Jobs, spool: Spool) -> Job:
    job = jobs.record(job, Stage.FINISHED)
    spool.remove_work(job.job_id)
    jobs.close(job)
    return job


def _answer_cancel(job: Job, jobs: Jobs, spool: Spool) -> Job:
    """Take the job's cancel file away, and say `too-late` where it did not end the job."""
    seen = standing_cancel(job, spool)
    if seen is None:
        return job
    if _is_for_a_newer_drop(job, seen, spool):
        return job  # the next look sees to it
    job = remove_cancel(job, seen, spool.cancel(job.name), spool)
    if job.cancel is None:
        job = jobs.change(job, job.state, cancel=Cancel(seen_at=jobs.now, result=CancelResult.TOO_LATE))
    return job


def _is_for_a_newer_drop(job: Job, cancel: Identity, spool: Spool) -> bool:
    """Whether the name is that of a new drop by now, and the cancel came after it."""
    try:
        song = Identity.of(spool.song(job.name).lstat())
    except OSError:
        return False
    return not song.is_same_drop(job.identity) and cancel.ctime_ns >= song.ctime_ns


def standing_cancel(job: Job, spool: Spool) -> Identity | None:
    """The cancel file of the job's name, if there is one that has not been obeyed before."""
    try:
        found = Identity.of(spool.cancel(job.name).lstat())
    except OSError:
        return None
    return None if found == job.cancel_file else found


def remove_cancel(job: Job, seen: Identity, path: Path, spool: Spool) -> Job:
    """Delete an obeyed cancel file. One that cannot be deleted is remembered, so that it is not obeyed again."""
    try:
        nofollow.remove_file(spool.inbox, path, follow=True)
    except OSError as error:
        is_news = job.cancel_file != seen
        log.log(logging.WARNING if is_news else logging.DEBUG, "%s cannot be removed: %s", path, error)
        return msgspec.structs.replace(job, cancel_file=seen)
    return job


def _put_away(job: Job, spool: Spool, after: After) -> tuple[Identity | None, str | None]:
    """Move, keep or delete the original: what of it stays in the inbox, and a warning where that was not the plan.

    Raises OSError where it can neither be put away nor be given its name back.
    """
    if after is After.KEEP:
        return job.identity, None
    song, taken = spool.song(job.name), spool.taken(job.name, job.job_id)
    try:
        if not originals.take(song, taken, job.identity, spool.inbox):
            return None, None
        if job.state is State.DONE and after is After.DELETE:
            nofollow.remove_file(spool.inbox, taken, follow=True)
            _take_options(job, spool, None)
        else:
            root = spool.done if job.state is State.DONE else spool.failed
            stored = originals.store(spool.inbox, taken, root, job.name)
            _take_options(job, spool, stored)
        return None, None
    except OSError as error:
        reason = error.strerror
        log.warning("%s stays in the inbox: %s", job.shown, error)
    return originals.put_back(taken, song, job.identity, spool.inbox), f"The original stays in the inbox: {reason}."


def _take_options(job: Job, spool: Spool, stored: Path | None) -> None:
    """The option file goes where its song went; newer options are those of a song to come, and stay."""
    options = spool.options(job.name)
    try:
        if job.options_file is None or not job.options_file.is_same_drop(Identity.of(options.lstat())):
            return
        if stored is None:
            nofollow.remove_file(spool.inbox, options, follow=True)
        else:
            target = stored.with_name(companion(stored.name, OPTIONS))
            root = spool.done if stored.is_relative_to(spool.done) else spool.failed
            originals.move(options, target, source_root=spool.inbox, target_root=root)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s stays in the inbox: %s", options, error)
