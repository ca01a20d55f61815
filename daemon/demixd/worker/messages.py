"""The messages between supervisor and worker: one JSON object a line, `type` first.

supervisor -> worker                    worker -> supervisor
warm        load and warm this model    fetching, tuning, then ready, or unready with the error
separate    this song, into this folder decoded, progressed ..., then finished, failed or stopped
stop        give the song up            stopped (or the end that came first)
prepare     decode this song ahead      prepared; a later `separate` finds it decoded
forget      it need not be prepared     nothing
(end of input)                          the worker ends

Of a worker in a cluster (`worker/ray`) there are two more: placed, and gone.

While one song is separated, the stems of the one before are written and the next one is decoded. `separate` needs no
`prepare`.
"""

import msgspec

from demixd.config import Config
from demixd.engine.models.catalog import Demand
from demixd.engine.models.store import Where
from demixd.protocol.job import EngineFacts, Error, ExtraFile, Job, StemFile
from demixd.protocol.options import Options
from demixd.protocol.progress import Tick
from demixd.protocol.track import Track
from demixd.spool.tree import SNAPSHOT, Spool

LONGEST = 1 << 20
"""Bytes of a line. One with 64 stems has 40,000; what is longer is no message, and must not be held in memory whole."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower, forbid_unknown_fields=True):
    """A line."""


class Warm(_Message, frozen=True):
    """`models` is the folder of models, `recorded` that of their first hashes, `compiled` that of converted ones (null: none
    are made or used). `memory_bytes`: for the sound of all songs in flight; the worker has one of `shares` of it."""

    model: str
    device: str
    models: str
    repo: str | None
    allow_pickle: bool
    recorded: str | None = None
    wide: bool = False
    precision: str = "auto"
    batch: int | str = "auto"
    compiled: str | None = None
    memory_bytes: int | str = "auto"
    shares: int = 1
    may_fetch: bool = True
    """Whether the model may be fetched at need: one that the configuration names. Anybody's option file names others."""

    @classmethod
    def of(cls, config: Config, demand: Demand, device: str, shares: int = 1) -> "Warm":
        """The order for `demand` under `config`, to one of so many workers."""
        return cls(
            model=demand.model,
            device=device,
            models=str(config.models),
            repo=config.model.repo or None,
            allow_pickle=config.model.allow_pickle,
            recorded=str(config.recorded),
            wide=demand.wide,
            precision=config.model.precision,
            batch=config.model.batch,
            compiled=str(config.compiled),
            memory_bytes=config.limits.memory_bytes,
            shares=shares,
            may_fetch=demand.model in config.named_models,
        )

    def where(self, name: str) -> Where:
        """A model of this name, in the folders of this order."""
        return Where(
            name=name,
            repo=self.repo,
            models=self.models,
            allow_pickle=self.allow_pickle,
            recorded=self.recorded,
        )


class Separate(_Message, frozen=True):
    """`song` is the path of the snapshot of the song `name`; stems go into `out`, decoded sound into `work`, or `tmp`."""

    job_id: str
    name: str
    song: str
    sha256: str
    tmp: str
    out: str
    work: str
    options: Options
    max_duration_s: float

    @classmethod
    def of(cls, job: Job, spool: Spool, max_duration_s: float) -> "Separate":
        """The order for a job whose snapshot lies in its work folder."""
        tmp = spool.tmp(job.job_id)
        return cls(
            job_id=job.job_id,
            name=job.shown.rpartition("/")[2],
            song=str(tmp / SNAPSHOT),
            sha256=job.sha256 or "",
            tmp=str(tmp),
            out=str(spool.out(job.job_id)),
            work=str(spool.scratch),
            options=job.options,
            max_duration_s=max_duration_s,
        )


class Stop(_Message, frozen=True):
    job_id: str


class Prepare(_Message, frozen=True):
    """Decode the snapshot ahead; the paths are those that `separate` will have."""

    job_id: str
    snapshot: str
    tmp: str
    work: str
    max_duration_s: float

    @classmethod
    def of(cls, job: Job, spool: Spool, max_duration_s: float) -> "Prepare":
        """The same song as in `Separate.of`."""
        tmp = spool.tmp(job.job_id)
        return cls(
            job_id=job.job_id,
            snapshot=str(tmp / SNAPSHOT),
            tmp=str(tmp),
            work=str(spool.scratch),
            max_duration_s=max_duration_s,
        )


class Forget(_Message, frozen=True):
    job_id: str


class Fetching(_Message, frozen=True):
    """The model is being fetched from the hub, which can take minutes."""

    message: str


class Tuning(_Message, frozen=True):
    """The fastest way to run the model is being looked for, once on a machine; `message` says how long that takes."""

    message: str


class Ready(_Message, frozen=True):
    """The model is warm, after `seconds`. `batch`: segments at once. `on_stand_in`: the CPU serves in place of a GPU.

    `gpus`: how many CUDA devices the worker sees.
    """

    engine: EngineFacts
    sources: tuple[str, ...]
    seconds: float
    batch: int = 1
    gpu_peak_bytes: int | None = None
    on_stand_in: bool = False
    gpus: int = 0


class Unready(_Message, frozen=True):
    error: Error


class Decoded(_Message, frozen=True):
    job_id: str
    track: Track


class Progressed(_Message, frozen=True):
    job_id: str
    at: Tick


class Finished(_Message, frozen=True):
    """`gpu_peak_bytes` is the most that the worker has had of the GPU's memory so far."""

    job_id: str
    files: tuple[StemFile, ...]
    gain_db: float
    engine: EngineFacts
    timing: dict[str, float]
    warnings: tuple[str, ...]
    residual_db: float | None = None
    gpu_peak_bytes: int | None = None
    extras: tuple[ExtraFile, ...] = ()

    @property
    def all_files(self) -> tuple[StemFile | ExtraFile, ...]:
        return (*self.files, *self.extras)


class Failed(_Message, frozen=True):
    job_id: str
    error: Error
    timing: dict[str, float]
    is_machines: bool = False
    """Whether the worker's machine failed, and not the song: another one may do it."""


class Stopped(_Message, frozen=True):
    job_id: str


class Prepared(_Message, frozen=True):
    """The song is decoded, or `error` says why not; `separate` will decode it once more then, and find out."""

    job_id: str
    error: Error | None = None


class Placed(_Message, frozen=True):
    """The worker is on the machine `host` of a cluster, which has so many `gpus`.

    `host` is null while no machine has room for it, and `message` says why.
    """

    host: str | None
    gpus: int = 0
    message: str = ""


class Gone(_Message, frozen=True):
    """The worker ended, `how` says it in words; `is_lost`: with its machine, or the line to it; `is_ours`: no song is the
    cause. The last line."""

    how: str
    is_lost: bool = False
    is_ours: bool = False


ToWorker = Warm | Separate | Stop | Prepare | Forget
FromWorker = (
    Fetching | Tuning | Ready | Unready | Decoded | Progressed | Finished | Failed | Stopped | Prepared | Placed | Gone
)
