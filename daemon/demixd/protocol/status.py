"""The files that other programs read: a job's sidecar, the daemon's heartbeat, the inbox's listing, a result's manifest. Pure.

These types are the protocol; `config/status.schema.json` and those in config/schemas/ are generated from them. No text in
them has a lone surrogate, which other JSON readers reject.
"""

import base64
import hashlib
from typing import Any, Literal

import msgspec

from demixd.protocol.job import (
    FINAL,
    Cancel,
    EngineFacts,
    Error,
    ExtraFile,
    Job,
    Output,
    Previous,
    Reason,
    State,
    StemFile,
)
from demixd.protocol.progress import NotNegative, Progress, Step
from demixd.protocol.track import Amount, Channels, Rate, SongChannels

SCHEMA = 1


class DaemonFacts(msgspec.Struct, frozen=True, kw_only=True):
    instance: str
    version: str


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's process, to be found by programs on its own machine.

    `boot` is the kernel's random name of this start of the machine, `namespace` that of its process ids, `started` when the
    process was started, in ticks since the boot. Empty and 0 in files of former versions.
    """

    host: str = ""
    boot: str = ""
    namespace: int = 0
    started: int = 0


class ConfigurationFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration that the daemon goes by: its `file`, empty for the built-in defaults, and the hash of its values.

    Both are empty in files of former versions.
    """

    file: str = ""
    sha256: str = ""

    @classmethod
    def of(cls, file: str, values: msgspec.Struct) -> "ConfigurationFacts":
        """Those of `values`, whatever else the text of their `file` holds."""
        text = msgspec.json.encode(values, order="deterministic")
        return cls(file=file.encode("utf-8", "replace").decode(), sha256=hashlib.sha256(text).hexdigest())


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """The song. `name_b64` is exact, `name` has U+FFFD for bytes that are not UTF-8. Null until decoded: `duration_s` on."""

    name: str
    name_b64: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str | None
    duration_s: NotNegative | None
    frames: Amount | None
    rate: Rate | None
    channels: SongChannels | None
    format: str | None

    @property
    def raw_name(self) -> bytes:
        """The name in the kernel's bytes. Raises ValueError where `name_b64`, which others may have written, is not base64."""
        return base64.b64decode(self.name_b64, validate=True)


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one job. `status/NAME.json`."""

    schema: int
    seq: int
    job_id: str
    state: State
    reason: Reason | None
    step: Step | None
    message: str
    progress: Progress
    input: Input
    options: dict[str, Any]
    tag: str | None
    attempt: int
    max_attempts: int
    engine: EngineFacts | None
    output: Output | None
    timing: dict[str, float]
    error: Error | None
    cancel: Cancel | None
    warnings: tuple[str, ...]
    duplicate_of: str | None
    next: str | None
    previous: Previous | None
    daemon: DaemonFacts
    state_since: str
    updated_at: str

    @property
    def ended(self) -> bool:
        return self.state in FINAL

    @property
    def doing(self) -> str:
        """The reason why it waits, or the step that runs."""
        return self.reason or self.step or ""


class End(Sidecar, frozen=True, kw_only=True):
    """A job that has ended, as its last sidecar shows it. A line of `status/_ends.jsonl`.

    `end` grows from line to line, over all songs. A number that was there already is the same end, told again after a crash.
    """

    end: int


class JobName(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    job_id: str
    name: str


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker. `state`: `starting`, `fetching`, `tuning`, `ready`, `asleep` (ended because it was idle), `missing-model`,
    `dead`, `without-gpu` (there is one worker fewer until its GPU is back), or `no-worker` (no machine of the cluster has room
    for it).

    `tuning`: the fastest way to run the model is being looked for, once on a machine. `batch`: segments computed at once.
    `id`: its number, from 1, which a song's `engine.worker` has; `host`: the machine that it is on; `in_flight`: its songs.
    `memory_bytes`: its resident memory. `gpu_peak_bytes`: the most of the GPU's memory that it has used; null without a GPU.
    """

    state: str
    pid: int | None
    message: str
    model: str | None
    device: str | None
    device_name: str | None
    precision: str | None
    fallback: str | None
    memory_bytes: int | None
    runtime: str | None = None
    batch: int | None = None
    gpu_peak_bytes: int | None = None
    id: str = "1"
    host: str = ""
    in_flight: tuple[JobName, ...] = msgspec.field(default_factory=lambda: ())


class WatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How changes in the inbox are noticed: `events` or `poll`, and why."""

    mode: str
    why: str


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is begun at present: `by` `file`, as long as the inbox has `.pause`, or `schedule`, outside `[schedule] hours`.

    `until`: when it ends by itself, UTC; null where that is not known. `now`: whether songs in flight wait, too.
    """

    by: Literal["file", "schedule"]
    until: str | None = None
    now: bool = False


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The heartbeat, `status/_daemon.json`. `seq` grows every `interval_s`; `running` is the first of `in_flight`,
    and `worker` the first of `workers`.

    `queue_eta_s`: for each song in `queue`, the seconds until it is done, null while unknown.
    """

    schema: int
    seq: int
    interval_s: float
    state: str
    pid: int
    worker: WorkerStatus
    workers: tuple[WorkerStatus, ...] = msgspec.field(default_factory=lambda: ())
    running: JobName | None
    in_flight: tuple[JobName, ...] = msgspec.field(default_factory=lambda: ())  # files of former versions have none
    queue: tuple[JobName, ...]
    watch: WatchStatus
    counts: dict[str, int]
    warnings: tuple[str, ...]
    version: str
    daemon: DaemonFacts
    updated_at: str
    process: ProcessFacts = ProcessFacts()
    queue_eta_s: tuple[NotNegative | None, ...] = msgspec.field(default_factory=lambda: ())
    configuration: ConfigurationFacts = ConfigurationFacts()
    paused: Paused | None = None


class InboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    name_b64: str
    reason: str


class InboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Every entry of the inbox that is not a job, and why. `status/_inbox.json`."""

    schema: int
    seq: int
    entries: tuple[InboxEntry, ...]
    updated_at: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a result, `outbox/SONG/stems.json`.

    `residual_db`: the energy of the song minus its stems, against the song's, in dB; null where the stems do not make up
    the song.
    """

    schema: int
    job_id: str
    song: str
    song_sha256: str | None
    frames: Amount
    rate: Rate
    channels: Channels
    gain_db: float
    residual_db: float | None = None
    files: tuple[StemFile, ...]
    extras: tuple[ExtraFile, ...] = msgspec.field(default_factory=lambda: ())
    options: dict[str, Any]
    engine: EngineFacts
    warnings: tuple[str, ...]
    version: str


def sidecar(
    job: Job, *, seq: int, position: int | None = None, eta_s: float | None = None, daemon: DaemonFacts, now: str
) -> Sidecar:
    """The sidecar of `job` as of `now` (UTC); `position` is its place in the queue, from 1, and `eta_s` when it is done."""
    track = job.track
    place = {} if position is None else {"queue_position": position, "eta_s": eta_s}
    return Sidecar(
        schema=SCHEMA,
        seq=seq,
        job_id=job.job_id,
        state=job.state,
        reason=job.reason,
        step=job.step,
        message=job.message,
        progress=msgspec.structs.replace(job.progress, **place),
        input=Input(
            name=job.shown,
            name_b64=base64.b64encode(job.raw_name).decode(),
            size=job.identity.size,
            mtime_ns=job.identity.mtime_ns,
            inode=job.identity.inode,
            sha256=job.sha256,
            duration_s=round(track.duration_s, 3) if track else None,
            frames=track.frames if track else None,
            rate=track.rate if track else None,
            channels=track.song_channels if track else None,
            format=track.format if track else None,
        ),
        options=msgspec.to_builtins(job.options),
        tag=job.tag,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        engine=job.engine,
        output=job.output,
        timing=job.timing,
        error=job.error,
        cancel=job.cancel,
        warnings=job.warnings,
        duplicate_of=job.duplicate_of,
        next=job.next,
        previous=job.previous,
        daemon=daemon,
        state_since=job.state_since,
        updated_at=now,
    )


def encode(status: msgspec.Struct) -> bytes:
    """`status` as UTF-8 JSON with a final newline."""
    return msgspec.json.encode(status) + b"\n"
