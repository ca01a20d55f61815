"""How a job leaves the air: it ends for good, or waits again. What it hit decides which."""

import errno
import time

from demixd.errors import RETRYABLE, Code
from demixd.protocol.job import Error, Job, Reason, Stage, State
from demixd.supervisor.runs import ending, obstacles
from demixd.supervisor.runs.context import Ground

RETRY_S = 30.0
"""How long a job waits after an obstacle before it is tried again."""

LONGER = 10.0
"""How many times longer after each attempt that a failing disk or share has cost it."""


def end(job: Job, ground: Ground, state: State, **changes: object) -> None:
    """Points 7 to 10."""
    ending.end(job, state, ground.jobs, ground.spool, ground.config.inbox.after, **changes)
    ground.rests.pop(job.job_id, None)


def fail(job: Job, ground: Ground, code: Code, message: str, detail: str | None = None) -> None:
    error = Error(code=code, message=message, detail=detail, retryable=code in RETRYABLE)
    end(job, ground, State.FAILED, error=error, message=message)


def vanish(job: Job, ground: Ground, *, replaced: bool) -> None:
    """The song is not there any more, and neither is its snapshot."""
    ending.vanish(job, ground.jobs, ground.spool, replaced=replaced)
    ground.rests.pop(job.job_id, None)


def rest(job: Job, ground: Ground, seconds: float) -> None:
    """Leave the job alone for a while."""
    ground.rests[job.job_id] = time.monotonic() + seconds


def wait(job: Job, ground: Ground, reason: Reason, message: str, *, charge: bool = False, **changes: object) -> None:
    """Let the job wait again; with `ready_at` 0 its file has to prove itself anew."""
    if job.name in ground.jobs.behind:
        vanish(job, ground, replaced=True)
        return
    attempt = _attempts(job) - (not charge)
    lost: dict[str, object] = {"track": None, "engine": None, "output": None, "warnings": (), "timing": {}}
    moved = ground.jobs.change(
        job, State.WAITING, reason=reason, message=message, attempt=max(attempt, 0), **lost, **changes
    )
    ground.jobs.record(moved, Stage.ACCEPTED)
    ground.spool.remove_work(job.job_id)


def _attempts(job: Job) -> int:
    """How many there were, counting this one, which may not have got as far as to be written down."""
    return job.attempt + (job.stage not in (Stage.STARTED, Stage.PUBLISHING))


def has_grace(job: Job, ground: Ground) -> bool:
    """Whether what is missing of its file may still come."""
    since = job.truncated_since or time.monotonic()
    return time.monotonic() < since + ground.config.limits.truncated_grace_s


def wait_for_the_rest(job: Job, ground: Ground, message: str) -> None:
    """Its file has to settle anew, and may grow until it does."""
    since = job.truncated_since or time.monotonic()
    wait(job, ground, Reason.TRUNCATED, message, ready_at=0.0, settled=False, truncated_since=since)


def on_error(job: Job, ground: Ground, error: Error) -> None:
    """What time can heal is waited for, what another attempt can is tried again, the rest is the job's end."""
    reason = obstacles.WAITS.get(error.code)
    attempts = _attempts(job)
    if reason is Reason.TRUNCATED and has_grace(job, ground):
        wait_for_the_rest(job, ground, error.message)
    elif error.code is Code.IO_ERROR and attempts < job.max_attempts:
        rest(job, ground, RETRY_S * LONGER ** (attempts - 1))
        wait(job, ground, Reason.RETRY, f"{error.message} Trying again.", charge=True)
    elif reason is None or reason is Reason.TRUNCATED:
        end(job, ground, State.FAILED, error=error, message=error.message)
    elif reason is Reason.NO_SPACE and len(ground.in_flight()) > 1:
        wait(job, ground, reason, error.message, alone=True)  # with the disk to itself it may fit
    else:
        rest(job, ground, RETRY_S)
        wait(job, ground, reason, error.message)


def on_obstacle(job: Job, ground: Ground, error: OSError) -> None:
    """The machine, not the song, is in the way."""
    if error.errno in (errno.EACCES, errno.EPERM):
        rest(job, ground, RETRY_S)
        wait(job, ground, Reason.PERMISSION, f"{error.filename}: {error.strerror}.", ready_at=0.0)
    else:
        on_error(job, ground, obstacles.described(error))


def go_away(job: Job, ground: Ground) -> None:
    """The work folder is gone, and with it whatever the worker fell over: nobody's fault."""
    wait(job, ground, Reason.OUTBOX_MISSING, "The outbox went away during the work; it is done again.")
