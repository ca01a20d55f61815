"""What a benchmark has found. Its JSON is this, field by field. Pure.

Seconds of a run are from the song to its stems on disk. A median is taken over runs, a ratio over pairs of neighbours:
load and heat of the machine are then the same for both.
"""

import msgspec

from demixd.protocol.job import EngineFacts

SCHEMA = 1

DEMIXD, SEPARATOR, COMMAND = "demixd", "separator", "command"
"""The contenders."""

MIXTURE = "mixture"
"""Among the SDRs, the songs themselves: what is to be beaten."""


class Song(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    seconds: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One song through one contender. `separate_s` is the model's part, null where nobody tells.

    `gain_db` is how far all stems were turned down so that none clips, null where nobody tells.
    """

    song: Song
    seconds: float
    separate_s: float | None = None
    timing: dict[str, float] = {}
    gain_db: float | None = None


class Medians(msgspec.Struct, frozen=True, kw_only=True):
    """Over all runs of a contender; `_x` is times real time."""

    seconds: float
    speed_x: float
    separate_s: float | None
    separate_x: float | None
    timing: dict[str, float]


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """`start_s` are the waits before its first song, by name; `peak_bytes` the most that each process had resident.

    `gpu_peak_bytes` is null where it was not measured.
    """

    start_s: dict[str, float]
    peak_bytes: dict[str, int]
    gpu_peak_bytes: int | None
    medians: Medians
    runs: tuple[Run, ...]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times the seconds of demixd another contender takes: from song to stems, and in the model alone."""

    seconds: float
    separate: float | None


class SongSdr(msgspec.Struct, frozen=True, kw_only=True):
    """In dB by stem, of those that have a reference; null where there is no such number."""

    song: Song
    stems: dict[str, float | None]


class Sdr(msgspec.Struct, frozen=True, kw_only=True):
    """Of what came out of the first run of each song; a median is taken over songs."""

    songs: tuple[SongSdr, ...]
    medians: dict[str, float | None]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`load` is the average of the last minute before anything was measured: what else kept the cores busy."""

    processor: str
    cores: int
    load: float
    memory_bytes: int
    gpu: str | None
    filesystem: str
    kernel: str
    versions: dict[str, str]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and where Demucs ran: `device` in its own words."""

    model: str
    weights: str
    device: str
    precision: str | None
    repeat: int
    stems: tuple[str, ...]
    format: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of `demixd bench`; `engine` is what demixd says that it separated with.

    `sdr` is of the mixture and the contenders, where there were reference stems, and `notes` are what is to be known of
    it; both came later than the other fields.
    """

    schema: int
    date: str
    machine: Machine
    settings: Settings
    songs: tuple[Song, ...]
    engine: EngineFacts
    contenders: dict[str, Contender]
    ratios: dict[str, Ratio]
    sdr: dict[str, Sdr] = {}
    notes: tuple[str, ...] = ()


def encode(report: Report) -> bytes:
    """JSON in lines, for people to read and compare."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def decode(data: bytes) -> Report:
    """Raises ValueError where it is no report of this schema."""
    report = msgspec.json.decode(data, type=Report)
    if report.schema != SCHEMA:
        raise ValueError(f"its schema is {report.schema}, not {SCHEMA}")
    return report
