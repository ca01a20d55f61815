"""A job: one song from the inbox to the outbox, and the values that belong to it. Pure.

Two rules:
1. A job's state changes only along `TRANSITIONS`; any other move is our bug and raises.
2. A job is a value: a change makes a new one. `supervisor/jobs/table.py` holds the current one of each name.

    waiting --> running --> done | failed | cancelled
       ^  \\________|_________________^
       |___________|      (stopped, crashed, worker died, truncated, no-space, outbox-missing, model-missing, retry)
"""

from enum import StrEnum
from functools import cache

import msgspec

from demixd.errors import AudioProcessingError, Code
from demixd.protocol.identity import Identity
from demixd.protocol.options import Options
from demixd.protocol.progress import Fraction, Progress, Step
from demixd.protocol.track import Amount, Channels, Rate, Track


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({State.DONE, State.FAILED, State.CANCELLED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.WAITING, State.RUNNING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.RUNNING, State.WAITING, *FINAL}),
    State.DONE: frozenset({State.DONE}),
    State.FAILED: frozenset({State.FAILED}),
    State.CANCELLED: frozenset({State.CANCELLED}),
}


class Reason(StrEnum):
    """Why a waiting job waits."""

    EMPTY = "empty"
    OPEN_FOR_WRITING = "open-for-writing"
    CHANGING = "changing"
    COMPANION_FILE = "companion-file"
    PERMISSION = "permission"
    TRUNCATED = "truncated"
    QUEUED = "queued"
    NO_SPACE = "no-space"
    MODEL_MISSING = "model-missing"
    OUTBOX_MISSING = "outbox-missing"
    PAUSED = "paused"
    NO_WORKER = "no-worker"
    RETRY = "retry"


_WAITS_FOR = {
    Reason.EMPTY: "{it} has no bytes yet.",
    Reason.OPEN_FOR_WRITING: "A program has {it} open for writing; it has to close it first.",
    Reason.CHANGING: "{it} came or changed a moment ago; it is taken once it keeps looking the same.",
    Reason.PERMISSION: "The daemon's user may not read {it}: change its owner or its mode.",
}


@cache
def waits_for(reason: Reason, it: str = "the song") -> str:
    """The sentence on why a song waits where its file, or the file `it`, is not ready."""
    sentence = _WAITS_FOR[reason].format(it=it)
    return sentence[0].upper() + sentence[1:]


class Stage(StrEnum):
    """The last point of a job that the ledger has; after a crash the job continues from there."""

    SEEN = "seen"
    ACCEPTED = "accepted"
    STARTED = "started"
    PUBLISHING = "publishing"
    FINAL = "final"
    FINISHED = "finished"


class CancelResult(StrEnum):
    CANCELLED = "cancelled"
    TOO_LATE = "too-late"


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The model and device that separate the song. `fallback`: a sentence on why they are not those of the configuration.

    `worker`: the id of the worker that has it (see `WorkerStatus`); `host`: its machine, where it is in a cluster.
    """

    model: str
    model_sha256: str
    device: str
    device_name: str
    precision: str
    """`float32`, `float16` or `bfloat16`."""
    runtime: str = "torch"
    """`torch` or `openvino`."""
    fallback: str | None = None
    worker: str | None = None
    host: str | None = None


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of a stem. `loudness_lufs`: integrated (ITU-R BS.1770), null where the stem is too short or silent.

    `true_peak_dbtp`: null where all samples are zero. `silence`: the share of its time, 0 to 1, in which it is below
    -60 dB. `silent`: whether all of it is 50 dB or more below the song.
    """

    loudness_lufs: float | None
    true_peak_dbtp: float | None
    silence: Fraction
    silent: bool


class StemFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a result. `peak`: the largest magnitude written, full scale 1; `gain_db`: the gain, the same for all stems.

    `sound` is null in results of older versions. A file of several stems has the measures of each in `streams`, and those
    of the song in `sound`.
    """

    stem: str
    name: str
    format: str
    subtype: str
    frames: Amount
    rate: Rate
    channels: Channels
    bytes: Amount
    sha256: str
    peak: float
    gain_db: float
    sound: Sound | None = None
    streams: dict[str, Sound] = {}


class ExtraFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a result that is no stem. `kind`: `peaks`, the waveforms of all stems, or `page`, which plays them."""

    kind: str
    name: str
    bytes: Amount
    sha256: str


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a result, in its sidecar; the manifest has the rest."""

    stem: str
    name: str
    sha256: str
    bytes: Amount | None = None


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A result: its folder `dir`, below the outbox, its stems in `files`, and in `extras` what lies beside them."""

    dir: str
    files: tuple[OutputFile, ...]
    extras: tuple[ExtraFile, ...] = msgspec.field(default_factory=lambda: ())


class Error(msgspec.Struct, frozen=True, kw_only=True):
    code: Code
    message: str
    detail: str | None = None
    retryable: bool = False

    @classmethod
    def of(cls, error: AudioProcessingError) -> "Error":
        return cls(code=error.code, message=error.message, detail=error.detail, retryable=error.retryable)


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    seen_at: str
    result: CancelResult


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """The job before this one, of an earlier drop of the name."""

    job_id: str
    state: State
    output: Output | None

    @classmethod
    def of(cls, job: "Job") -> "Previous":
        return cls(job_id=job.job_id, state=job.state, output=job.output)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job, as the ledger stores it. `raw_name`: the song's path below the inbox, in the kernel's bytes."""

    job_id: str
    raw_name: bytes
    identity: Identity
    settled: bool = False
    """Whether the song has settled once. A change before that belongs to this job, one after it is a new drop."""
    options: Options
    options_file: Identity | None = None
    """The option file from which `options` were read."""
    tag: str | None = None
    force: bool = False
    wait_for_sha256: str | None = None
    max_attempts: int
    state: State = State.WAITING
    reason: Reason | None = Reason.CHANGING
    step: Step | None = None
    message: str = ""
    stage: Stage = Stage.SEEN
    attempt: int = 0
    losses: int = 0
    """How often a machine was lost with it."""
    runs_alone: bool = False
    """Whether it runs with no other song in the worker: one died with it and another song, and either may be the cause."""
    priority: int = 0
    ready_at: float = 0.0
    place: float = 0.0
    """Its `ready_at` while a newer option file is being read, which leaves a song where it was among those of its priority."""
    state_since: str = ""
    progress: Progress = Progress()
    sha256: str | None = None
    track: Track | None = None
    engine: EngineFacts | None = None
    output: Output | None = None
    timing: dict[str, float] = {}
    error: Error | None = None
    cancel: Cancel | None = None
    warnings: tuple[str, ...] = ()
    truncated_since: float | None = None
    """Seconds of the monotonic clock, so that setting the clock does not end or prolong the grace. Set anew at each start."""
    duplicate_of: str | None = None
    result_key: str | None = None
    """The hash of all that the result depends on: see `supervisor/jobs/dedupe.py`."""
    previous: Previous | None = None
    next: str | None = None
    """The id of the job of a newer drop of this name, which waits for the end of this one."""
    kept: Identity | None = None
    """The original that stayed in the inbox, by policy or because it could not be moved; null once it is gone."""
    is_rebuilt: bool = False
    """Whether it was found in files of the share after a loss of the ledger: then it only answers its name."""
    end: int | None = None
    """Its number in the list of ends, from when on it is to be told there; 0: it was told before the ledger was lost."""
    cancel_file: Identity | None = None
    """A cancel file that does not cancel this job: it was meant for the one before, or was obeyed and cannot be removed."""

    @property
    def name(self) -> str:
        """The name for Python's file functions: bytes that are not UTF-8 are lone surrogates."""
        return self.raw_name.decode("utf-8", "surrogateescape")

    @property
    def shown(self) -> str:
        """The name for people and JSON: bytes that are not UTF-8 are U+FFFD."""
        return self.raw_name.decode("utf-8", "replace")

    @property
    def order(self) -> tuple[int, float, bytes]:
        """The key by which jobs are sorted: priority (high first), then the time at which it became ready, then name."""
        return (-self.priority, self.ready_at, self.raw_name)


class IllegalMoveError(Exception):
    """A transition that is not in the table: a bug of ours."""


def move(job: Job, state: State, *, at: str, **changes: object) -> Job:
    """`job` in `state`, with `changes`. Where the state changes, `at` (UTC) becomes `state_since`. Raises `IllegalMoveError`.

    A waiting job has a reason and a running one a step; `fraction` never falls within an attempt, and is 1.0 only in `done`.
    """
    if state not in TRANSITIONS[job.state]:
        raise IllegalMoveError(f"job {job.job_id} cannot go from {job.state} to {state}")
    if state is not State.WAITING:
        changes.setdefault("reason", None)
    if state is not State.RUNNING:
        changes.setdefault("step", None)
    if state is not job.state:
        changes["state_since"] = at
    moved: Job = msgspec.structs.replace(job, state=state, **changes)
    if state is State.WAITING and moved.reason is None:
        raise IllegalMoveError(f"job {job.job_id} waits without a reason")
    if state is State.RUNNING and moved.step is None:
        raise IllegalMoveError(f"job {job.job_id} runs without a step")
    return msgspec.structs.replace(moved, progress=_monotone(job, moved))


def _monotone(before: Job, after: Job) -> Progress:
    progress = after.progress
    if after.state in FINAL:  # no time is left, and nothing goes on at any speed
        progress = msgspec.structs.replace(progress, eta_s=None, speed_x=None)
    if after.state is State.DONE:
        return msgspec.structs.replace(progress, fraction=1.0, step_fraction=1.0, queue_position=None)
    if after.state is State.WAITING and before.state is State.RUNNING:
        return Progress()
    floor = before.progress.fraction if before.attempt == after.attempt and after.state is before.state else 0.0
    fraction = min(max(progress.fraction, floor), 0.999)
    # No new object where nothing changes: ten thousand waiting jobs share one.
    return progress if fraction == progress.fraction else msgspec.structs.replace(progress, fraction=fraction)
