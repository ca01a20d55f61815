"""Results that need not be computed again: the same song, with the same options, by the same model and engine."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from stemd.job import Job
from stemd.naming import MANIFEST, folder_name
from stemd.status import Manifest

ENGINE = 1
"""Goes up with every change of ours after which the same song would get other stems."""

CHUNK = 1 << 20


def key(job: Job, model_sha256: str) -> str:
    """One sha256 of all that the result depends on; `job` has its song's sha256."""
    options = msgspec.structs.asdict(job.options)
    del options["profile"]  # what it says is in the others
    leaf = folder_name(job.shown.rpartition("/")[2]) if "{song}" in job.options.naming else ""
    facts = {"engine": ENGINE, "song": job.sha256, "model": model_sha256, "leaf": leaf, "options": options}
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def still_good(folder: Path, job_id: str, stopped: Callable[[], bool]) -> bool:
    """Whether the result in `folder` is that job's, with every file as its manifest says."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        return manifest.job_id == job_id and all(
            not stopped() and _hash(folder / file.name, stopped) == file.sha256 for file in manifest.files
        )
    except (OSError, msgspec.DecodeError):
        return False


def _hash(path: Path, stopped: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while (chunk := file.read(CHUNK)) and not stopped():
            digest.update(chunk)
    return digest.hexdigest()
