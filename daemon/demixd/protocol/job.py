"""A job: one song on its way from the inbox to the outbox.

Two rules:
1. A job changes only along `TRANSITIONS`; any other move is our mistake and raises.
2. A job is a value. Whoever changes it makes a new one; `jobs.py` keeps the current one of each name.

    waiting --> running --> done | failed | cancelled
       ^  \\________|_________________^
       |___________|      (stopped, crashed, worker died, truncated, no-space, outbox-missing, model-missing, retry)
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from demixd.errors import AudioProcessingError, Code
from demixd.protocol.identity import Identity
from demixd.protocol.options import Options
from demixd.protocol.track import Amount, Channels, Rate, Track

Fraction = Annotated[float, Meta(ge=0, le=1)]
"""0 to 1."""

NotNegative = Annotated[float, Meta(ge=0)]

SegmentSeconds = Annotated[float, Meta(ge=0, le=86_400)]
"""No segment takes a day; a worker is given up after 20 times what its segments have taken."""


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
    RETRY = "retry"


class Step(StrEnum):
    """What a running job is doing, in this order."""

    SNAPSHOT = "snapshot"
    DECODE = "decode"
    SEPARATE = "separate"
    MIX = "mix"
    ENCODE = "encode"
    PUBLISH = "publish"


class Stage(StrEnum):
    """How far the ledger has followed a job; recovery after a crash starts from here."""

    SEEN = "seen"
    ACCEPTED = "accepted"
    STARTED = "started"
    PUBLISHING = "publishing"
    FINAL = "final"
    FINISHED = "finished"


class CancelResult(StrEnum):
    CANCELLED = "cancelled"
    TOO_LATE = "too-late"


class Progress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`fraction` is of the whole job, `step_fraction` of the present step; `speed_x` is times real time."""

    fraction: Fraction = 0.0
    step_fraction: Fraction = 0.0
    eta_s: NotNegative | None = None
    speed_x: NotNegative | None = None
    queue_position: int | None = None


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """How far a song is. `message` is a line for people; `segment_s` what the last segment took, where one was done."""

    step: Step
    fraction: Fraction
    step_fraction: Fraction
    message: str
    eta_s: NotNegative | None = None
    speed_x: NotNegative | None = None
    segment_s: SegmentSeconds | None = None


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What separated the song. `fallback` says in a sentence why it was not what the configuration asks for."""

    model: str
    model_sha256: str
    device: str
    device_name: str
    precision: str
    """`float32`, `float16` or `bfloat16`."""
    runtime: str = "torch"
    """`torch` or `openvino`."""
    fallback: str | None = None


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """What a stem is like. `loudness_lufs` is integrated (ITU-R BS.1770), null where it is too short or silent.

    `true_peak_dbtp` is null where there is nothing but zeros. `silence` is the share of its time, from 0 to 1, in which
    it is below -60 dB; `silent`: all of it lies 50 dB or more below the song.
    """

    loudness_lufs: float | None
    true_peak_dbtp: float | None
    silence: Fraction
    silent: bool


class StemFile(msgspec.Struct, frozen=True, kw_only=True):
    """One published file. `peak` is linear, of what was written; `gain_db` is the gain that all stems share.

    `sound` is null in results of older versions. A file of several stems says in `streams` what each of its streams is,
    and has the song's own `sound`.
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


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    stem: str
    name: str
    sha256: str


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """Where the result is: `dir` below the outbox."""

    dir: str
    files: tuple[OutputFile, ...]


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
    """The job that had this name before."""

    job_id: str
    state: State
    output: Output | None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one job. `raw_name` is the song's path below the inbox, as the bytes that the kernel has."""

    job_id: str
    raw_name: bytes
    identity: Identity
    settled: bool = False
    """Whether the song has once looked complete. Until then its growth belongs to this job, from then on to a new one."""
    options: Options
    options_file: Identity | None = None
    """The option file that `options` were read from."""
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
    runs_alone: bool = False
    """Whether it is tried again with no other song beside it: something died with it, and it or the other was the cause."""
    priority: int = 0
    ready_at: float = 0.0
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
    """Monotonic, in seconds: its grace must not end, or never end, because the clock was put right. Anew at each start."""
    duplicate_of: str | None = None
    result_key: str | None = None
    """What the result depends on, in one hash: see `results.py`."""
    previous: Previous | None = None
    next: str | None = None
    """The job of a newer drop of this name, which waits for the end of this one."""
    kept: Identity | None = None
    """The original as it was left in the inbox, by policy or because it could not be moved; null once it is gone."""
    cancel_file: Identity | None = None
    """A cancel file that means nothing to it: it was for the job before, or has been obeyed and cannot be removed."""

    @property
    def name(self) -> str:
        """The name as Python's file functions take it: stray bytes are lone surrogates."""
        return self.raw_name.decode("utf-8", "surrogateescape")

    @property
    def shown(self) -> str:
        """The name as people and JSON can read it: stray bytes are U+FFFD."""
        return self.raw_name.decode("utf-8", "replace")

    @property
    def order(self) -> tuple[int, float, bytes]:
        """The order of work: priority (high first), then the time it became ready, then name."""
        return (-self.priority, self.ready_at, self.raw_name)


class IllegalMoveError(Exception):
    """A transition that is not in the table: a bug of ours."""


def move(job: Job, state: State, *, at: str, **changes: object) -> Job:
    """`job` in `state` with `changes`; `at` is the UTC time that becomes `state_since` where the state changes.

    Keeps what every state promises: waiting has a reason, running a step, and `fraction` never falls within an attempt
    and is 1.0 only in `done`.
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
    if after.state is State.DONE:
        return msgspec.structs.replace(progress, fraction=1.0, step_fraction=1.0, eta_s=0.0, queue_position=None)
    if after.state is State.WAITING and before.state is State.RUNNING:
        return Progress()
    floor = before.progress.fraction if before.attempt == after.attempt and after.state is before.state else 0.0
    fraction = min(max(progress.fraction, floor), 0.999)
    # Ten thousand that wait share one.
    return progress if fraction == progress.fraction else msgspec.structs.replace(progress, fraction=fraction)
