"""Results that need not be computed again: the same song, with the same options, by the same model and engine."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from demixd.protocol.job import Job
from demixd.protocol.result_names import MANIFEST, folder_name, template_of
from demixd.protocol.status import Manifest
from demixd.spool import documents
from demixd.spool.files import open_file, sha256_of

ENGINE = 3
"""Goes up with every change of ours after which the same song would get other stems."""


def key(job: Job, model_sha256: str) -> str:
    """One sha256 of all that the result depends on; the job must have its song's sha256."""
    options = msgspec.structs.asdict(job.options)
    del options["profile"]  # what it says is in the others
    leaf = folder_name(job.shown.rpartition("/")[2]) if "{song}" in template_of(job.options.naming) else ""
    facts = {"engine": ENGINE, "song": job.sha256, "model": model_sha256, "leaf": leaf, "options": options}
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


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


def still_good(folder: Path, job_id: str, stopped: Callable[[], bool]) -> bool:
    """Whether the result in `folder` is that job's, and every file in it is as its manifest says."""
    manifest = documents.read(folder / MANIFEST, Manifest)
    if manifest is None or manifest.job_id != job_id:
        return False
    try:
        return all(not stopped() and _hash(folder / file.name, stopped) == file.sha256 for file in manifest.files)
    except OSError:
        return False


def _hash(path: Path, stopped: Callable[[], bool]) -> str:
    with os.fdopen(open_file(path), "rb") as file:
        return sha256_of(file, stopped)
