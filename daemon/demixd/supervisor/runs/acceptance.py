"""Points 1 to 3: the song becomes ours, whole, and unless its result is there already it has to be separated."""

import msgspec

from demixd.errors import AudioProcessingError, Code
from demixd.protocol.job import Error, Job, Reason, Stage, State, waits_for
from demixd.protocol.progress import Step
from demixd.supervisor import trace
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.runs import outcomes
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import SnapshotTaken
from demixd.supervisor.runs.outcomes import Ends, Waits
from demixd.supervisor.runs.snapshot import Outcome, identity_of


class Gone(msgspec.Struct, frozen=True):
    """The song is not in the inbox any more."""


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """Where the result of `job` may be: `twin` is making it, or `done` has made it. With neither it has to be computed."""

    job: Job
    twin: Job | None = None
    done: Job | None = None


def accept(job: Job, context: Context) -> Job | Ends | Waits:
    """Point 1: the ledger knows that the song is accepted. The running job, or what becomes of it instead."""
    if identity_of(context.spool.options(job.name)) != job.options_file:
        return Waits(reason=Reason.CHANGING, message=waits_for(Reason.CHANGING, "its option file"), settles_anew=True)
    if message := context.config.limits.too_large(job.identity.size):
        return outcomes.fails(Code.TOO_LARGE, message)
    trace.point("1-accepted")
    job = context.jobs.commit(job, Stage.ACCEPTED)
    job = context.jobs.update(job, State.RUNNING, step=Step.SNAPSHOT, message="Copying", timing={})
    trace.point("2-snapshot")
    return job


def hashed(job: Job, taken: SnapshotTaken) -> Job:
    """The job with the hash of its song, where the snapshot has one: also a job that waits for more of it shows that."""
    if isinstance(taken.result, Exception) or taken.result.sha256 is None:
        return job
    return msgspec.structs.replace(job, sha256=taken.result.sha256, timing={"snapshot_s": taken.seconds})


def judge(job: Job, taken: SnapshotTaken, context: Context) -> Job | Ends | Waits | Gone:
    """Whether the snapshot is the whole song of `job`, which has its hash: the job as it goes on, or what becomes of it."""
    found = taken.result
    if isinstance(found, OSError):
        return outcomes.after_obstacle(job, found, context.circumstances)
    if isinstance(found, AudioProcessingError):
        return outcomes.after_error(job, Error.of(found), context.circumstances)
    if found.sha256 is None and found.outcome is Outcome.GONE:
        return outcomes.WITHOUT_INBOX if context.folders.are_away() else Gone()
    if found.sha256 is None:
        return outcomes.without_snapshot(found.outcome)
    judged = outcomes.after_snapshot(job, has_hole=found.has_hole, at=context.circumstances)
    if isinstance(judged, Job) and not job.settled:
        return context.jobs.save(judged)
    return judged


def earlier_result(job: Job, context: Context) -> Earlier:
    """Where the result that `job` asks for may be; with `force` it is computed anyway."""
    engine = context.worker.engine
    if engine is None:
        return Earlier(job=job)
    job = msgspec.structs.replace(job, result_key=dedupe.key(job, engine.model_sha256))
    if (twin := dedupe.twin_of(job, context.jobs.running)) is not None:
        return Earlier(job=job, twin=twin)
    return Earlier(job=job, done=None if job.force else context.jobs.result(job))
