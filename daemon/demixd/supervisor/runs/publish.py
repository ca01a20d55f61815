"""Point 6 and what leads to it: the name of the result, its manifest, the last look for a cancel, the rename."""

import errno
import logging
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from demixd.protocol import status
from demixd.protocol.job import ExtraFile, Job, Output, OutputFile, Stage, StemFile
from demixd.protocol.result_names import MANIFEST, folder_name, mirrored, numbered
from demixd.spool import documents, nofollow, private
from demixd.spool.files import rename_new, sync, sync_folder, sync_open
from demixd.spool.tree import Spool
from demixd.supervisor import trace
from demixd.supervisor.jobs.table import JobTable
from demixd.version import __version__
from demixd.worker.messages import Finished

log = logging.getLogger(__name__)

NOT_DURABLE = "best-effort-durability: the outbox's filesystem has no fsync; a power cut may take this result."

TRIES = 100
"""How often a name that was chosen may be gone by the time of the rename: who takes so many does it on purpose."""


def publish(job: Job, made: Finished, jobs: JobTable, spool: Spool, *, cancelled: Callable[[], bool]) -> Job:
    """Points 5 and 6: the finished work becomes a result. Comes back without an output where a cancel was first.

    Raises OSError; nothing is published then.
    """
    return put_out(prepare(job, made, jobs, spool), jobs, spool, cancelled=cancelled)


def prepare(job: Job, made: Finished, jobs: JobTable, spool: Spool) -> Job:
    """Point 5: the manifest is written, everything is durable, and the ledger knows where it will go. Raises OSError."""
    if not write_manifest(spool.outbox, spool.out(job.job_id), status.encode(manifest(job, made))):
        job = msgspec.structs.replace(job, warnings=(*job.warnings, NOT_DURABLE))
    files = tuple(
        OutputFile(stem=file.stem, name=file.name, sha256=file.sha256, bytes=file.bytes) for file in made.files
    )
    output = Output(dir=chosen_dir(job, spool), files=files, extras=made.extras)
    return jobs.commit(msgspec.structs.replace(job, output=output), Stage.PUBLISHING)


def put_out(job: Job, jobs: JobTable, spool: Spool, *, cancelled: Callable[[], bool]) -> Job:
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
            durable = rename_into_outbox(spool.out(job.job_id), spool.outbox, job.output.dir)
        except (FileExistsError, NotADirectoryError):
            if (tries := tries + 1) == TRIES:
                raise
            output = msgspec.structs.replace(job.output, dir=chosen_dir(job, spool))
            job = jobs.commit(msgspec.structs.replace(job, output=output), Stage.PUBLISHING)
        else:
            return job if durable else msgspec.structs.replace(job, warnings=(*job.warnings, NOT_DURABLE))


def chosen_dir(job: Job, spool: Spool) -> str:
    """The folder below the outbox that the job's result gets, as things are now."""
    return free_dir(spool.outbox, job.name, folder_name(job.shown.rpartition("/")[2]))


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
        extras=made.extras,
        options=msgspec.to_builtins(job.options),
        engine=job.engine or made.engine,
        warnings=made.warnings,
        version=__version__,
    )


class _Owner(msgspec.Struct, frozen=True):
    """The part of a manifest that is needed here."""

    job_id: str


def free_dir(outbox: Path, song: str, wanted: str) -> str:
    """Where below the outbox the result of `song` (its path below the inbox) goes: `wanted` in the song's own folder.

    Taken names are numbered. So is a folder on the way that is a result itself, since a result never changes, and what is
    no folder: a file, or a link that leads who knows where.
    """
    place = outbox
    for raw in song.split("/")[:-1]:
        part = mirrored(os.fsencode(raw))
        name, number = part, 1
        while not _is_way(place / name):
            number += 1
            name = numbered(part, number, dot="")
        place /= name
    return (place / free_name(place, wanted)).relative_to(outbox).as_posix()


def _is_way(folder: Path) -> bool:
    """Whether a result can lie in `folder`, which may have to be made."""
    try:
        return stat.S_ISDIR(folder.lstat().st_mode) and not (folder / MANIFEST).is_file()
    except FileNotFoundError:
        return True


def free_name(folder: Path, wanted: str) -> str:
    """`wanted`, or `wanted (2)` and so on where `folder` has it already, compared without case."""
    taken = {_folded(entry.name) for entry in folder.iterdir()} if folder.is_dir() else set()
    name, number = wanted, 1
    while _folded(name) in taken:
        number += 1
        name = numbered(wanted, number, dot="")
    return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def missing_from(outbox: Path, out: Path, files: Iterable[StemFile | ExtraFile]) -> str | None:
    """Why the files in `out` are not those of the manifest, as far as sizes tell; None where they are, or none can be seen."""
    name = out.name
    try:
        with private.inside(outbox, out) as folder:
            for name, size in ((file.name, file.bytes) for file in files):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                    return f"{name} is not the file of {size} bytes that it says"
    except FileNotFoundError:
        return f"there is no {name}"
    except OSError:
        return None  # whoever publishes them meets it too, and it is no fault of the worker's
    return None


def write_manifest(outbox: Path, out: Path, data: bytes) -> bool:
    """Write `stems.json` last and make its folder durable; whether the filesystem says that it is. Raises OSError."""
    with private.inside(outbox, out) as folder:
        with os.fdopen(nofollow.new_file(folder, MANIFEST), "wb") as file:
            file.write(data)
            file.flush()
            durable = sync(file.fileno())
        for *_, each in os.fwalk(".", topdown=False, dir_fd=folder):
            durable = sync(each) and durable
        return durable


def rename_into_outbox(out: Path, outbox: Path, target: str) -> bool:
    """The one moment that decides; whether it is durable, which a filesystem may refuse to say.

    `FileExistsError` where the name has been taken since it was chosen, `NotADirectoryError` where a folder on the way to
    it has become something else. An OSError means that nothing was published: what fails after the rename cannot take it
    back, so it is no error.
    """
    place = outbox / target
    with private.reach(outbox, out.parent) as within, nofollow.reach(outbox, place.parent, make=outbox) as into:
        if not stat.S_ISDIR(os.stat(out.name, dir_fd=within, follow_symlinks=False).st_mode):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(out))
        rename_new(out.name, place.name, within=within, into=into)
        # The song's folders may be new as well: each of them is a name in the one above it.
        folders = [folder for folder in place.parent.parents if folder.is_relative_to(outbox)]
        try:
            return all([sync_open(into), *(sync_folder(folder) for folder in folders)])
        except OSError as error:
            log.warning("%s is published, but the way to it cannot be synced: %s", target, error)
            return False


def is_ours(folder: Path, job_id: str) -> bool:
    """Whether the result in `folder` is that of this job."""
    manifest = documents.read(folder / MANIFEST, _Owner)
    return manifest is not None and manifest.job_id == job_id
