"""How a job leaves the air: it ends for good, or waits again. What it hit decides which."""

import errno
import time

from demixd.errors import RETRYABLE, Code
from demixd.protocol.job import Error, Job, Reason, Stage, State
from demixd.supervisor.runs import ending, obstacles
from demixd.supervisor.runs.context import Context

RETRY_S = 30.0
"""How long a job waits after an obstacle before it is tried again."""

LONGER = 10.0
"""How many times longer after each attempt that a failing disk or share has cost it."""


def end(job: Job, context: Context, state: State, **changes: object) -> None:
    """Points 7 to 10."""
    ending.end(job, state, context.jobs, context.spool, context.config.inbox.after, **changes)
    context.retry_at.pop(job.job_id, None)


def fail(job: Job, context: Context, code: Code, message: str, detail: str | None = None) -> None:
    error = Error(code=code, message=message, detail=detail, retryable=code in RETRYABLE)
    end(job, context, State.FAILED, error=error, message=message)


def end_missing(job: Job, context: Context, *, replaced: bool) -> None:
    """The song is not there any more, and neither is its snapshot."""
    ending.end_missing(job, context.jobs, context.spool, replaced=replaced)
    context.retry_at.pop(job.job_id, None)


def rest(job: Job, context: Context, seconds: float) -> None:
    """Leave the job alone for a while."""
    context.retry_at[job.job_id] = time.monotonic() + seconds


def wait(job: Job, context: Context, reason: Reason, message: str, *, charge: bool = False, **changes: object) -> None:
    """Let the job wait again; with `ready_at` 0 its file has to prove itself anew."""
    if job.name in context.jobs.successors:
        end_missing(job, context, replaced=True)
        return
    attempt = _attempts(job) - (not charge)
    lost: dict[str, object] = {"track": None, "engine": None, "output": None, "warnings": (), "timing": {}}
    moved = context.jobs.update(
        job, State.WAITING, reason=reason, message=message, attempt=max(attempt, 0), **lost, **changes
    )
    context.jobs.commit(moved, Stage.ACCEPTED)
    context.spool.remove_work(job.job_id)


def _attempts(job: Job) -> int:
    """How many there were, counting this one, which may not have got as far as to be written down."""
    return job.attempt + (job.stage not in (Stage.STARTED, Stage.PUBLISHING))


def has_grace(job: Job, context: Context) -> bool:
    """Whether what is missing of its file may still come."""
    since = job.truncated_since or time.monotonic()
    return time.monotonic() < since + context.config.limits.truncated_grace_s


def wait_for_the_rest(job: Job, context: Context, message: str) -> None:
    """Its file has to settle anew, and may grow until it does."""
    since = job.truncated_since or time.monotonic()
    wait(job, context, Reason.TRUNCATED, message, ready_at=0.0, settled=False, truncated_since=since)


def on_error(job: Job, context: Context, error: Error) -> None:
    """What time can heal is waited for, what another attempt can is tried again, the rest is the job's end."""
    reason = obstacles.WAITS.get(error.code)
    attempts = _attempts(job)
    if reason is Reason.TRUNCATED and has_grace(job, context):
        wait_for_the_rest(job, context, error.message)
    elif error.code is Code.IO_ERROR and attempts < job.max_attempts:
        rest(job, context, RETRY_S * LONGER ** (attempts - 1))
        wait(job, context, Reason.RETRY, f"{error.message} Trying again.", charge=True)
    elif reason is None or reason is Reason.TRUNCATED:
        end(job, context, State.FAILED, error=error, message=error.message)
    elif reason is Reason.NO_SPACE and len(context.in_flight()) > 1:
        wait(job, context, reason, error.message, runs_alone=True)  # with the disk to itself it may fit
    else:
        rest(job, context, RETRY_S)
        wait(job, context, reason, error.message)


def on_obstacle(job: Job, context: Context, error: OSError) -> None:
    """The machine, not the song, is in the way."""
    if error.errno in (errno.EACCES, errno.EPERM):
        rest(job, context, RETRY_S)
        wait(job, context, Reason.PERMISSION, f"{error.filename}: {error.strerror}.", ready_at=0.0)
    else:
        on_error(job, context, obstacles.described(error))


def go_away(job: Job, context: Context) -> None:
    """The work folder is gone, and with it whatever the worker fell over: nobody's fault."""
    wait(job, context, Reason.OUTBOX_MISSING, "The outbox went away during the work; it is done again.")
