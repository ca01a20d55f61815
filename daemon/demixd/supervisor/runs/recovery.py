"""After a crash: every job that the ledger holds unfinished is brought to where the protocol says it is."""

import logging

import msgspec

from demixd.protocol.job import Job, Previous, Reason, Stage, State, move
from demixd.spool import nofollow
from demixd.supervisor.runs import outcomes, publish
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.outcomes import Ends

log = logging.getLogger(__name__)


def recover(unfinished: list[Job], context: Context) -> None:
    """Bring every unfinished job of a former life to its place."""
    jobs, ending = context.jobs, context.ending
    started = sum(job.stage is Stage.STARTED for job in unfinished)
    waiting = sum(job.state is State.WAITING for job in unfinished)
    if waiting:
        told = (
            "1 song was waiting, and waits again" if waiting == 1 else f"{waiting} songs were waiting, and wait again"
        )
        log.info("%s", told)
    ending.owe(unfinished)
    over: dict[str, Job] = {}
    for found in unfinished:
        job = found
        level = logging.DEBUG if job.state is State.WAITING else logging.INFO
        log.log(level, "%s: found %s (%s)", job.shown, job.state, job.stage)
        if (older := jobs.active.get(job.name)) is not None:
            # Its song was replaced while it ran, and its snapshot is gone.
            over[job.name] = ending.end_missing(older, replaced=True)
        if job.name in over:
            job = msgspec.structs.replace(job, previous=Previous.of(over[job.name]))
        # Only after a job that had begun: ten thousand that wait are not looked up.
        is_outlived = job.stage is not Stage.SEEN and jobs.recall_newer(job)
        if job.stage is Stage.FINAL:
            over[job.name] = ending.conclude(job)
        elif job.stage is Stage.PUBLISHING:
            if (ended := _publish(job, context)) is not None:
                over[job.name] = ended
        elif is_outlived:
            over[job.name] = ending.end_missing(job, replaced=True)
        elif job.state is State.RUNNING or job.stage is Stage.STARTED:
            _wait_again(_suspected(job, is_counted=started == 1), context)
        else:
            jobs.add([_waiting(job)])
    ending.finish_replaced()


def _waiting(job: Job) -> Job:
    """A job that goes on waiting. One that waits for the rest of its song is looked at anew, and its grace begins again.

    Whoever copies the rest may have been away along with the daemon.
    """
    if job.truncated_since is None:
        return job
    return msgspec.structs.replace(job, reason=Reason.CHANGING, message="", truncated_since=None)


def _publish(job: Job, context: Context) -> Job | None:
    """The job's files are complete and durable: it was published, or is now. None where it has to be done again."""
    assert job.output is not None
    spool = context.spool
    work, out = spool.job(job.job_id), spool.out(job.job_id)
    # The work folder stays to the end: where it is gone as well, somebody has taken it, and maybe the stems in it.
    is_renamed = nofollow.is_there(work, in_doubt=False) and not nofollow.is_there(out, in_doubt=True)
    if not is_renamed and not publish.is_ours(spool.outbox / job.output.dir, job.job_id):
        try:
            job = publish.put_out(job, context.jobs, spool, cancelled=lambda: context.cancel_files.mean(job))
        except OSError as error:
            log.warning("%s cannot be published now, and is done again: %s", job.shown, error)
            _wait_again(msgspec.structs.replace(job, output=None, attempt=job.attempt - 1), context)
            return None
    state = State.DONE if job.output is not None else State.CANCELLED
    return context.ending.end(job, state, message=state.value.capitalize())


def _suspected(job: Job, *, is_counted: bool) -> Job:
    """The daemon may have died over this job: it runs alone next. Where other songs ran too no attempt is counted."""
    attempt = job.attempt if is_counted or job.stage is not Stage.STARTED else job.attempt - 1
    return msgspec.structs.replace(job, runs_alone=True, attempt=attempt)


def _wait_again(job: Job, context: Context) -> None:
    """The job was running, and its work so far is lost."""
    context.spool.remove_work(job.job_id)
    outcome = outcomes.after_crash(job)
    if isinstance(outcome, Ends):
        assert outcome.error is not None
        context.ending.end(job, outcome.state, error=outcome.error, message=outcome.error.message)
        return
    told = {"reason": outcome.reason, "message": outcome.message, "output": None, "truncated_since": None}
    waiting = move(job, State.WAITING, at=context.jobs.now, **told)
    context.jobs.add([msgspec.structs.replace(waiting, stage=Stage.ACCEPTED)])  # nobody sees it run that does not
