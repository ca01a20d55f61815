"""Point 6 and what leads to it: the name of the result, its manifest, the last look for a cancel, the rename."""

from collections.abc import Callable

import msgspec

from demixd import __version__
from demixd.protocol import status
from demixd.protocol.identity import Identity
from demixd.protocol.job import Job, Output, OutputFile, Stage
from demixd.protocol.result_names import folder_name
from demixd.spool.tree import Spool
from demixd.supervisor import trace
from demixd.supervisor.jobs.table import Jobs
from demixd.supervisor.runs import ending, originals
from demixd.worker.messages import Finished

NOT_DURABLE = "best-effort-durability: the outbox's filesystem has no fsync; a power cut may take this result."

TRIES = 100
"""How often a name that was chosen may be gone by the time of the rename: who takes so many does it on purpose."""


def prepare(job: Job, made: Finished, jobs: Jobs, spool: Spool) -> Job:
    """Point 5: the manifest is written, everything is durable, and the ledger knows where it will go. Raises OSError."""
    if not originals.write_manifest(spool.outbox, spool.out(job.job_id), status.encode(manifest(job, made))):
        job = msgspec.structs.replace(job, warnings=(*job.warnings, NOT_DURABLE))
    files = tuple(OutputFile(stem=file.stem, name=file.name, sha256=file.sha256) for file in made.files)
    output = Output(dir=chosen_dir(job, spool), files=files)
    return jobs.record(msgspec.structs.replace(job, output=output), Stage.PUBLISHING)


def put_out(job: Job, jobs: Jobs, spool: Spool, *, cancelled: Callable[[], bool]) -> Job:
    """Point 6, for a job in the stage `publishing`: the rename, under the next free name where the chosen one went.

    Comes back without an output where a cancel was there before it. Raises OSError.
    """
    tries = 0
    while True:
        assert job.output is not None
        if cancelled():
            return msgspec.structs.replace(job, output=None)
        trace.point("6-rename")
        if cancelled():
            return msgspec.structs.replace(job, output=None)
        try:
            durable = originals.rename_into_outbox(spool.out(job.job_id), spool.outbox, job.output.dir)
        except (FileExistsError, NotADirectoryError):
            if (tries := tries + 1) == TRIES:
                raise
            output = msgspec.structs.replace(job.output, dir=chosen_dir(job, spool))
            job = jobs.record(msgspec.structs.replace(job, output=output), Stage.PUBLISHING)
        else:
            return job if durable else msgspec.structs.replace(job, warnings=(*job.warnings, NOT_DURABLE))


def chosen_dir(job: Job, spool: Spool) -> str:
    """Where below the outbox the job's result goes, as things are now."""
    return originals.free_dir(spool.outbox, job.name, folder_name(job.shown.rpartition("/")[2]))


def is_cancelled(job: Job, jobs: Jobs, spool: Spool) -> bool:
    """Whether a cancel file that means `job` is there: its own, or the bare one."""
    if ending.standing_cancel(job, spool) is not None:
        return True
    try:
        everything = Identity.of(spool.cancel_all.lstat())
    except OSError:
        return False
    return everything != jobs.cancelled_all


def manifest(job: Job, made: Finished) -> status.Manifest:
    """`stems.json` of the result."""
    assert job.track is not None
    return status.Manifest(
        schema=status.SCHEMA,
        job_id=job.job_id,
        song=job.shown,
        song_sha256=job.sha256,
        frames=job.track.frames,
        rate=job.track.rate,
        channels=job.track.channels,
        gain_db=made.gain_db,
        residual_db=made.residual_db,
        files=made.files,
        options=msgspec.to_builtins(job.options),
        engine=made.engine,
        warnings=made.warnings,
        version=__version__,
    )
