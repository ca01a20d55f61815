"""Results that need not be computed again: the same song, with the same options, by the same model and engine."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from demixd.protocol.job import ExtraFile, Job, OutputFile
from demixd.protocol.result_names import MANIFEST, folder_name, template_of
from demixd.protocol.status import Manifest
from demixd.spool import documents, nofollow
from demixd.spool.files import sha256_of

ENGINE = 3
"""Goes up with every change of ours after which the same song would get other stems."""


def key(job: Job, model_sha256: str) -> str:
    """One sha256 of all that the result depends on; the job must have its song's sha256."""
    options = msgspec.structs.asdict(job.options)
    del (
        options["profile"],
        options["peaks"],
        options["page"],
    )  # what the first says is in the others; these make no stems
    leaf = folder_name(job.shown.rpartition("/")[2]) if "{song}" in template_of(job.options.naming) else ""
    facts = {"engine": ENGINE, "song": job.sha256, "model": model_sha256, "leaf": leaf, "options": options}
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def twin_of(job: Job, running: Iterable[Job]) -> Job | None:
    """The one of those in flight that makes the very result that `job` asks for; with `force` it has one made for itself."""
    if job.force or job.result_key is None:
        return None
    return next((each for each in running if each.result_key == job.result_key and each.job_id != job.job_id), None)


def behind(twin: Job) -> str:
    """The sentence of a song whose twin is in flight."""
    return f"The same song as {twin.shown}: its turn comes when that one is over, and takes its result if there is one."


def as_result_of(earlier: Job, job: Job) -> dict[str, object]:
    """The changes that make `job` a duplicate of `earlier`."""
    return {
        "message": "Done before",
        "duplicate_of": earlier.job_id,
        "output": earlier.output,
        "track": earlier.track,
        "engine": earlier.engine,
        "warnings": (*job.warnings, *earlier.warnings),
    }


def still_good(outbox: Path, earlier: Job, stopped: Callable[[], bool]) -> bool:
    """Whether the result of that job is still what was published.

    The ledger says what that was: the manifest lies where others may write, and has to say the same.
    """
    assert earlier.output is not None
    folder, output = outbox / earlier.output.dir, earlier.output
    manifest = documents.read(folder / MANIFEST, Manifest)
    if manifest is None or manifest.job_id != earlier.job_id:
        return False
    listed = {(file.stem, file.name, file.sha256) for file in manifest.files}
    if listed != {(file.stem, file.name, file.sha256) for file in output.files} or manifest.extras != output.extras:
        return False
    files: tuple[OutputFile | ExtraFile, ...] = (*output.files, *output.extras)
    try:
        return all(not stopped() and _is_file(outbox, folder / file.name, file, stopped) for file in files)
    except OSError:
        return False


def _is_file(outbox: Path, path: Path, published: OutputFile | ExtraFile, stopped: Callable[[], bool]) -> bool:
    with os.fdopen(nofollow.read_file(outbox, path), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != published.bytes:
            return False  # it is not read: it may have no end
        return sha256_of(file, stopped) == published.sha256
