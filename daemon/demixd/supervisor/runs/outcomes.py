"""What becomes of a job that cannot go on: it ends, or it waits again. Pure: who asks is told, and carries it out.

what happened                           outcome                                                  attempt
the song or its options are bad         ends `failed`
truncated, or a hole, within its grace  waits `truncated`; its file may grow                     not counted
truncated after its grace               ends `failed` (a hole: the song runs, with a warning)
no space                                waits `no-space`; runs alone next if others ran beside   not counted
the outbox is away                      waits `outbox-missing`                                   not counted
an input or output error                waits `retry`, longer each time                          counted
a file of the song may not be read      waits `permission`                                       not counted
the song changed or is written to       waits `changing`, `open-for-writing`                     not counted
the same song is being made             waits `queued`; does not begin before that is over       not counted
the worker died with this song alone    waits `retry`, runs alone next                           counted
the worker died with other songs too    waits `retry`, runs alone next                           not counted
a worker was lost with its machine      waits `retry`                                            from the second time on
the worker's machine failed             waits `retry`, `no-space`                                not counted
the worker was ended for another song   waits `retry`                                            not counted
a pause has stopped it                  waits `paused`                                           not counted
the daemon died                         waits `retry`, runs alone next                           counted if alone
an attempt is counted beyond the last   ends `failed`
"""

import errno

import msgspec

from demixd.errors import RETRYABLE, Code, disk_code
from demixd.protocol.job import Error, Job, Reason, Stage, State, waits_for
from demixd.supervisor.clock import told
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.runs.snapshot import Outcome

RETRY_S = 30.0
"""How long a job waits after an obstacle before it is tried again."""

LONGER = 10.0
"""How many times longer after each attempt that a failing disk or share has cost it."""

WAITS = {Code.NO_SPACE: Reason.NO_SPACE, Code.OUTBOX_MISSING: Reason.OUTBOX_MISSING, Code.TRUNCATED: Reason.TRUNCATED}
"""Errors that time can heal: the job waits, and no attempt is counted."""

AWAY = (errno.ENOENT, errno.EROFS, errno.ENOTDIR, errno.ESTALE, errno.ENODEV, errno.ENOTCONN)
"""What a share says that is not there for the moment."""


HAS_HOLES = "has-holes: a part of the song's file was never written and reads as silence or noise."


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """The job ends in `state`; `error` says why, where it failed."""

    state: State
    error: Error | None = None


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """The job waits again for `reason`."""

    reason: Reason
    message: str = ""
    is_counted: bool = False
    """Whether the attempt is one of `max_attempts`."""
    settles_anew: bool = False
    """Whether its file has to look the same for the settle time again."""
    truncated_since: float | None = None
    """Since when (monotonic, in seconds) a part of the file is missed; with it the file may grow until it settles."""
    runs_alone: bool = False
    """Whether no other song may run beside it from now on."""
    pause_s: float = 0.0
    """For how long it is not tried again."""
    is_loss: bool = False
    """Whether the song went with a machine that was lost."""


CANCELLED = Ends(state=State.CANCELLED)

STOPPED = Waits(
    reason=Reason.QUEUED, message="The daemon was stopped while this song ran; it begins again in its turn."
)
"""The daemon ends as it was told to."""

PAUSED = Waits(reason=Reason.PAUSED, message="The pause has stopped this song; it begins again in its turn.")
"""A pause that also holds songs in flight."""


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What an outcome depends on besides the job: `now` is monotonic, `wall` the time of day.

    `grace_s` is `[limits] truncated_grace_s`.
    """

    now: float
    wall: float
    grace_s: float
    beside_others: bool
    """Whether other songs are in flight, or one is prefetched."""


def fails(code: Code, message: str, detail: str | None = None) -> Ends:
    return Ends(state=State.FAILED, error=Error(code=code, message=message, detail=detail, retryable=code in RETRYABLE))


def attempts_of(job: Job) -> int:
    """How many attempts there were with this one, which the ledger may not have counted yet."""
    return job.attempt + (job.stage not in (Stage.STARTED, Stage.PUBLISHING))


def after_error(job: Job, error: Error, at: Circumstances, *, is_machines: bool = False) -> Ends | Waits:
    """A step of the job has failed with `error`; `is_machines`: through the worker's machine, and not through the song."""
    reason = WAITS.get(error.code)
    if is_machines:
        # Songs that one machine is too small for do not keep it from the others.
        small, message = error.code is Code.TOO_LARGE, f"{error.message} Trying again."
        reason = Reason.NO_SPACE if small else reason or Reason.RETRY
        return Waits(reason=reason, message=message, pause_s=RETRY_S * LONGER if small else RETRY_S)
    attempts = attempts_of(job)
    if reason is Reason.TRUNCATED:
        return after_missing_part(job, error.message, at) or Ends(state=State.FAILED, error=error)
    if error.code is Code.IO_ERROR and attempts < job.max_attempts:
        message, pause_s = f"{error.message} Trying again.", RETRY_S * LONGER ** (attempts - 1)
        return Waits(reason=Reason.RETRY, message=message, is_counted=True, pause_s=pause_s)
    if reason is None:
        return Ends(state=State.FAILED, error=error)
    if reason is Reason.NO_SPACE and at.beside_others and not job.runs_alone:
        return Waits(reason=reason, message=error.message, runs_alone=True)  # with the disk to itself it may fit
    return Waits(reason=reason, message=error.message, pause_s=RETRY_S)


def after_missing_part(job: Job, message: str, at: Circumstances) -> Waits | None:
    """A part of the song's file is missing; None once its grace is over and nothing more is waited for."""
    since = job.truncated_since or at.now
    left_s = since + at.grace_s - at.now
    if left_s <= 0:
        return None
    remedy = "" if job.wait_for_sha256 else " If the song is damaged for good, convert it, and drop what comes of that."
    message = f"{message} The rest is waited for until {told(at.wall + left_s)}.{remedy}"
    return Waits(reason=Reason.TRUNCATED, message=message, settles_anew=True, truncated_since=since)


def after_snapshot(job: Job, *, has_hole: bool, at: Circumstances) -> Job | Ends | Waits:
    """The song is copied, and `job` has its hash: the job as it goes on, or what becomes of an incomplete song."""
    if job.wait_for_sha256 not in (None, job.sha256):
        message = (
            f"The song's sha256 is {job.sha256}, and wait_for_sha256 is {job.wait_for_sha256}: it is not complete."
        )
        return after_error(job, Error(code=Code.TRUNCATED, message=message, retryable=True), at)
    job = msgspec.structs.replace(job, settled=True)  # by its hash, where it had not by its looks
    if not has_hole:
        return job
    message = "A part of the song was never written; waiting for it to come."
    if (waits := after_missing_part(job, message, at)) is not None:
        return waits
    return msgspec.structs.replace(job, warnings=(*job.warnings, HAS_HOLES))


def without_snapshot(outcome: Outcome) -> Waits:
    """The song could not be copied as it was accepted; the next look finds out what its file is now."""
    if outcome is Outcome.BUSY:
        return Waits(reason=Reason.OPEN_FOR_WRITING, message=waits_for(Reason.OPEN_FOR_WRITING), settles_anew=True)
    message = "The song changed while it was being copied."
    return Waits(reason=Reason.CHANGING, message=message, settles_anew=True)


def after_twin(twin: Job) -> Waits:
    """The song's twin, which makes the very result that it asks for, is in flight."""
    return Waits(reason=Reason.QUEUED, message=dedupe.behind(twin))


def after_obstacle(job: Job, error: OSError, at: Circumstances) -> Ends | Waits:
    """The machine, not the song, is in the way."""
    if error.errno in (errno.EACCES, errno.EPERM):
        message = f"{error.filename}: {error.strerror}."
        return Waits(reason=Reason.PERMISSION, message=message, settles_anew=True, pause_s=RETRY_S)
    return after_error(job, described(error), at)


def after_death(job: Job, how: str, *, is_suspect: bool, is_lost: bool = False) -> Ends | Waits:
    """The worker died. Where no other song was in it the attempt is counted; the next one is made alone anyway.

    A machine that is lost (`is_lost`) takes its song along once for nothing; songs can bring machines down, too.
    """
    if is_lost and not job.losses:
        return Waits(reason=Reason.RETRY, message=f"The worker was lost ({how}); trying again.", is_loss=True)
    if is_suspect and job.attempt >= job.max_attempts:
        message = f"The worker died {job.attempt} times over this song; the last time {how}."
        return fails(Code.GAVE_UP, message, how)
    message = f"The worker died ({how}); trying again."
    return Waits(reason=Reason.RETRY, message=message, is_counted=is_suspect, runs_alone=True)


def after_kill(why: str) -> Waits:
    """The worker was ended for a reason that is none of this song's."""
    return Waits(reason=Reason.RETRY, message=f"The worker was ended, since {why}; trying again.")


def after_crash(job: Job) -> Ends | Waits:
    """The daemon died while the job ran; `job.attempt` counts what is to be counted."""
    if job.attempt >= job.max_attempts:
        return fails(Code.GAVE_UP, f"The daemon died {job.attempt} times over this song.")
    return Waits(reason=Reason.RETRY, message="The daemon was interrupted; trying again.")


def changes(job: Job, waits: Waits) -> dict[str, object]:
    """The changes that `waits` makes to a job that ran. What the run has found out is lost."""
    changed: dict[str, object] = {
        "reason": waits.reason,
        "message": waits.message,
        "attempt": max(attempts_of(job) - (not waits.is_counted), 0),
        "runs_alone": job.runs_alone or waits.runs_alone,
        "track": None,
        "engine": None,
        "output": None,
        "warnings": (),
        "timing": {},
    }
    if waits.is_loss:
        changed["losses"] = job.losses + 1
    if waits.settles_anew:
        changed |= {"ready_at": 0.0, "place": job.ready_at if waits.truncated_since is None else 0.0}
    if waits.truncated_since is not None:
        changed |= {"settled": False, "truncated_since": waits.truncated_since}
    return changed


WITHOUT_INBOX = Waits(reason=Reason.OUTBOX_MISSING, message="The inbox is away, and the song with it.")

WITHOUT_OUTBOX = Waits(reason=Reason.OUTBOX_MISSING, message="The outbox went away during the work; it is done again.")
"""The work folder is gone, and with it whatever the worker fell over: nobody's fault."""


def described(error: OSError) -> Error:
    """An error of the operating system as one of ours."""
    if disk_code(error) is Code.NO_SPACE:
        is_named = isinstance(error.filename, str) and error.filename.startswith("/")  # and no leaf of an open folder
        disk = f"the disk of {error.filename}" if is_named else "the outbox's disk"
        full = f"No space left for the work on {disk}: {error.strerror}."
        code, message = Code.NO_SPACE, f"{full} Make room there; it goes on then."
    elif error.errno in AWAY:
        code, message = Code.OUTBOX_MISSING, f"The outbox cannot be used: {error}. It goes on when it is back."
    else:
        code, message = Code.IO_ERROR, f"Reading or writing failed: {error}."
    return Error(code=code, message=message, detail=repr(error), retryable=True)
