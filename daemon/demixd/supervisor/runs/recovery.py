"""After a crash: every job that the ledger holds unfinished is brought to where the protocol says it is."""

import logging
import time

import msgspec

from demixd.config import After
from demixd.errors import Code
from demixd.protocol.job import Error, Job, Reason, Stage, State, move
from demixd.spool import nofollow
from demixd.spool.tree import Spool
from demixd.supervisor.jobs.table import JobTable, previous
from demixd.supervisor.runs import ending, publish
from demixd.supervisor.runs.cancel_file import is_cancelled
from demixd.supervisor.runs.publish import put_out

log = logging.getLogger(__name__)


def recover(unfinished: list[Job], jobs: JobTable, spool: Spool, after: After) -> None:
    """Go on with every job of a former life."""
    started = sum(job.stage is Stage.STARTED for job in unfinished)
    over: dict[str, Job] = {}
    for found in unfinished:
        job = found
        log.info("%s: found %s (%s)", job.shown, job.state, job.stage)
        if (older := jobs.active.get(job.name)) is not None:
            # Its song was replaced while it ran, and its snapshot is gone.
            over[job.name] = ending.end_missing(older, jobs, spool, replaced=True)
        if job.name in over:
            job = msgspec.structs.replace(job, previous=previous(over[job.name]))
        # Only behind one that had begun: ten thousand that wait are not looked up.
        is_outlived = job.stage is not Stage.SEEN and jobs.recall_newer(job)
        if job.stage is Stage.FINAL:
            over[job.name] = ending.conclude(job, jobs, spool, after)
        elif job.stage is Stage.PUBLISHING:
            if (ended := _publish(job, jobs, spool, after)) is not None:
                over[job.name] = ended
        elif is_outlived:
            over[job.name] = ending.end_missing(job, jobs, spool, replaced=True)
        elif job.state is State.RUNNING or job.stage is Stage.STARTED:
            _wait_again(_tried_alone(job, charge=started == 1), jobs, spool, after)
        else:
            since = time.monotonic() if job.truncated_since is not None else None
            jobs.add([msgspec.structs.replace(job, truncated_since=since)])


def _publish(job: Job, jobs: JobTable, spool: Spool, after: After) -> Job | None:
    """Its files are complete and durable: it was published, or it will be now. None where it has to be done again."""
    assert job.output is not None
    is_gone = not nofollow.is_there(spool.out(job.job_id), in_doubt=True)
    published = is_gone or publish.is_ours(spool.outbox / job.output.dir, job.job_id)
    if not published:
        try:
            job = put_out(job, jobs, spool, cancelled=lambda: is_cancelled(job, jobs, spool))
        except OSError as error:
            log.warning("%s cannot be published now, and is done again: %s", job.shown, error)
            _wait_again(msgspec.structs.replace(job, output=None, attempt=job.attempt - 1), jobs, spool, after)
            return None
    state = State.DONE if job.output is not None else State.CANCELLED
    return ending.end(job, state, jobs, spool, after, message=state.value.capitalize())


def _tried_alone(job: Job, *, charge: bool) -> Job:
    """The daemon may have died over it. Where others were in flight too no attempt counts: alone it shows whose fault it was."""
    attempt = job.attempt if charge or job.stage is not Stage.STARTED else job.attempt - 1
    return msgspec.structs.replace(job, runs_alone=True, attempt=attempt)


def _wait_again(job: Job, jobs: JobTable, spool: Spool, after: After) -> None:
    """It was running: the work so far is worth nothing, and the attempt counts if it had begun."""
    spool.remove_work(job.job_id)
    if job.attempt >= job.max_attempts:
        message = f"The daemon died {job.attempt} times over this song."
        error = Error(code=Code.GAVE_UP, message=message, retryable=True)
        ending.end(job, State.FAILED, jobs, spool, after, error=error, message=message)
        return
    message = "The daemon was interrupted; trying again."
    told = {"reason": Reason.RETRY, "message": message, "output": None, "truncated_since": None}
    waiting = move(job, State.WAITING, at=jobs.now, **told)
    jobs.add([msgspec.structs.replace(waiting, stage=Stage.ACCEPTED)])  # nobody sees it run that does not
