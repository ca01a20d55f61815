"""A lost ledger is made again from what other programs can see: final sidecars, and manifests in the outbox.

    a final sidecar                  that job, finished
    a sidecar that is not final,     that job, done: its sidecar is made final
      and a result with its job id

Others may write these files. So what they say only answers a name, that the song is not separated again: by such a row
no original is moved or deleted, and no result stands for another song. Everything else in the inbox is new. Where
sidecars are, `seq` has been: the count of starts goes on above it.
"""

import logging
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from demixd.protocol.identity import Identity
from demixd.protocol.job import FINAL, Job, Output, OutputFile, Stage, State
from demixd.protocol.options import Options
from demixd.protocol.progress import Progress
from demixd.protocol.result_names import MANIFEST
from demixd.protocol.status import Manifest, Sidecar
from demixd.protocol.track import Track
from demixd.spool import documents
from demixd.spool.tree import DAEMON, INBOX, LEDGER, PRIVATE, Spool
from demixd.supervisor.ledger import Ledger, UnreadableError

log = logging.getLogger(__name__)


class _Seq(msgspec.Struct, frozen=True):
    seq: Annotated[int, Meta(ge=0, lt=1 << 52)]
    """A million starts: a larger number is nobody's."""


def open_ledger(state: Path, in_trouble: Callable[[str], None]) -> Ledger:
    """The ledger in `state`; one that cannot be read is kept aside. `in_trouble` is the ledger's. Raises OSError."""
    path = state / LEDGER
    try:
        return Ledger(path, in_trouble)
    except UnreadableError as error:
        aside = path.with_name(f"{LEDGER}.bad-{secrets.token_hex(4)}")
        log.error("%s; it is kept as %s, and made anew", error, aside.name)
        for suffix in ("", "-wal", "-shm"):
            if (part := path.with_name(path.name + suffix)).exists():
                part.rename(aside.with_name(aside.name + suffix))
    return Ledger(path, in_trouble)


def count_starts(ledger: Ledger, status: Path, go_on: Callable[[], None]) -> None:
    """Number this start above those that the sequence numbers in `status` tell of. `go_on` is called with each file."""
    lists = [documents.read(status / name, _Seq, largest=documents.LARGEST_LIST) for name in (DAEMON, INBOX)]
    ledger.count_on(_starts(lists))  # first: `go_on` may write the heartbeat again
    found = []
    for path, _ in documents.sidecars(status, go_on) if status.is_dir() else ():
        found.append(documents.read(path, _Seq))
    ledger.count_on(_starts(found))


def _starts(found: list[_Seq | None]) -> int:
    return max((document.seq >> 32 for document in found if document is not None), default=0)


def rebuild(ledger: Ledger, spool: Spool, go_on: Callable[[], None]) -> int:
    """Fill a new ledger from sidecars and manifests; how many jobs were found. What does not fit is left out.

    `go_on` is called with each file; where it raises, the ledger stays empty.
    """
    sidecars = {}
    for path, _ in documents.sidecars(spool.status, go_on):
        sidecar = documents.read(path, Sidecar)
        if sidecar is not None and _is_id(sidecar.job_id) and _place(sidecar, spool) == Path(path):
            sidecars[sidecar.job_id] = sidecar
    is_wanted = any(each.state not in FINAL for each in sidecars.values())
    manifests = _manifests(spool.outbox, go_on) if is_wanted else {}
    found = []
    for job_id, sidecar in sidecars.items():
        go_on()
        where = manifests.get(job_id)
        if sidecar.state in FINAL or where is not None:
            found += _if_it_fits(_job_of_sidecar, sidecar, where, spool)
    ledger.put(found)
    if found:
        log.warning("The ledger was lost; %d jobs were found again in their sidecars.", len(found))
    return len(found)


def _manifests(outbox: Path, go_on: Callable[[], None]) -> dict[str, tuple[str, Manifest]]:
    """The results in the outbox, by job: their folders below it, and their manifests."""
    found = {}
    for entry in documents.below(os.fspath(outbox), go_on=go_on):
        place = Path(entry.path).relative_to(outbox)
        if place.name != MANIFEST or PRIVATE in place.parts:
            continue
        manifest = documents.read(entry.path, Manifest)
        if manifest is not None and _is_id(manifest.job_id):
            found[manifest.job_id] = (place.parent.as_posix(), manifest)
    return found


def _is_id(job_id: str) -> bool:
    """Whether it has the form of a job's id, which becomes part of paths."""
    return re.fullmatch("[0-9a-f]{32}", job_id) is not None


def _place(sidecar: Sidecar, spool: Spool) -> Path | None:
    """Where the sidecar of this song belongs; None where its name cannot be read."""
    try:
        return spool.sidecar(os.fsdecode(sidecar.input.raw_name))
    except ValueError:
        return None


def _if_it_fits(make: Callable[..., Job], *found: object) -> list[Job]:
    try:
        return [make(*found)]
    except (msgspec.ValidationError, ValueError):
        return []  # the options of another version


def _job_of_sidecar(sidecar: Sidecar, where: tuple[str, Manifest] | None, spool: Spool) -> Job:
    given = sidecar.input
    identity = Identity(device=0, inode=given.inode, size=given.size, mtime_ns=given.mtime_ns, ctime_ns=0)
    track = None
    if given.frames is not None and given.rate is not None and given.channels is not None:
        track = _track(given.format or "", given.rate, given.channels, given.frames)
    job = Job(
        job_id=sidecar.job_id,
        raw_name=given.raw_name,
        identity=identity,
        settled=True,
        options=_options(sidecar.options),
        tag=sidecar.tag,
        max_attempts=sidecar.max_attempts,
        state=sidecar.state,
        reason=None,
        message=sidecar.message,
        attempt=sidecar.attempt,
        state_since=sidecar.state_since,
        progress=sidecar.progress,
        sha256=given.sha256,
        track=track,
        engine=sidecar.engine,
        output=sidecar.output,
        timing=sidecar.timing,
        error=sidecar.error,
        cancel=sidecar.cancel,
        warnings=sidecar.warnings,
        duplicate_of=sidecar.duplicate_of,
        previous=sidecar.previous,
        is_rebuilt=True,
        end=0 if sidecar.state in FINAL else None,
        stage=Stage.FINISHED,
    )
    if sidecar.state not in FINAL and where is not None:
        changes: dict[str, Any] = {"state": State.DONE, "message": "Done", "output": _output(*where)}
        whole = Progress(fraction=1.0, step_fraction=1.0)
        job = msgspec.structs.replace(job, stage=Stage.FINAL, engine=where[1].engine, progress=whole, **changes)
    elif _is_there(job, spool):
        job = msgspec.structs.replace(job, stage=Stage.FINAL)
    return job


def _is_there(job: Job, spool: Spool) -> bool:
    """Whether the job's original is still in the inbox."""
    try:
        return job.identity.is_same_drop(Identity.of(spool.song(job.name).lstat()))
    except OSError:
        return False


def _output(folder: str, manifest: Manifest) -> Output:
    files = (
        OutputFile(stem=file.stem, name=file.name, sha256=file.sha256, bytes=file.bytes) for file in manifest.files
    )
    return Output(dir=folder, files=tuple(files), extras=manifest.extras)


def _options(found: dict[str, Any]) -> Options:
    return msgspec.convert(found, Options)


def _track(format: str, rate: int, channels: int, frames: int) -> Track:
    return Track(
        format=format,
        subtype="",
        rate=rate,
        channels=min(channels, 2),
        song_channels=channels,
        frames=frames,
        bitrate=None,
    )
