"""The result of `demixd bench`, whose JSON has the same fields, and the lines that show it. Pure.

Seconds of a run are from the drop of the song to its stems on disk. A median is taken over all runs.
"""

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from demixd.client import text
from demixd.protocol.job import EngineFacts

SCHEMA = 2
"""Reports of schema 1 compare demixd with Demucs: tests/benchmarks writes them."""

NOT_MEASURED = "not measured"


class Song(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    seconds: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One song, separated once. `separate_s` is the model's part, `timing` that of each step; null: nobody tells.

    `gain_db` is how far all stems were turned down so that none clips.
    """

    song: Song
    seconds: float
    separate_s: float | None = None
    timing: dict[str, float] = {}
    gain_db: float | None = None


class Medians(msgspec.Struct, frozen=True, kw_only=True):
    """Over all runs. `_x` is times real time."""

    seconds: float
    speed_x: float
    separate_s: float | None
    separate_x: float | None
    timing: dict[str, float]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """`start_s` are the waits before the first song, by name; `peak_bytes` is the most that each process had resident.

    `gpu_peak_bytes` is null where it was not measured.
    """

    start_s: dict[str, float]
    peak_bytes: dict[str, int]
    gpu_peak_bytes: int | None
    medians: Medians
    runs: tuple[Run, ...]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`load` is the average of the last minute before anything was measured: what other programs kept busy."""

    processor: str
    cores: int
    load: float
    memory_bytes: int
    gpu: str | None
    filesystem: str
    kernel: str
    versions: dict[str, str]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    model: str
    device: str
    precision: str
    repeat: int
    stems: tuple[str, ...]
    format: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`engine` is what the daemon says that it separated with."""

    schema: int = SCHEMA
    date: str
    machine: Machine
    settings: Settings
    songs: tuple[Song, ...]
    engine: EngineFacts
    measured: Measured


def encode(report: msgspec.Struct) -> bytes:
    """JSON in lines, for people to read and compare."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def medians(runs: Sequence[Run]) -> Medians:
    alone = [(run.separate_s, run.song.seconds) for run in runs if run.separate_s]
    steps = list(dict.fromkeys(step for run in runs for step in run.timing))
    return Medians(
        seconds=rounded_median(run.seconds for run in runs) or 0.0,
        speed_x=rounded_median(run.song.seconds / run.seconds for run in runs) or 0.0,
        separate_s=rounded_median(separate_s for separate_s, _ in alone),
        separate_x=rounded_median(song_s / separate_s for separate_s, song_s in alone),
        timing={step: rounded_median(run.timing[step] for run in runs if step in run.timing) or 0.0 for step in steps},
    )


def rounded_median(values: Iterable[float]) -> float | None:
    """To the thousandth, since more is noise; None for no values."""
    found = list(values)
    return round(median(found), 3) if found else None


# ---- as lines


def lines(report: Report) -> list[str]:
    """The whole report."""
    how, by, measured = report.settings, report.engine, report.measured
    fallback = f"; {by.fallback}" if by.fallback else ""
    rows = {
        "seconds, drop to done": f"{measured.medians.seconds:.2f}",
        "x real time": f"{measured.medians.speed_x:.2f}",
        "model alone, x real time": number(measured.medians.separate_x) or NOT_MEASURED,
        "start to ready, s": starts(measured.start_s),
        "peak memory": " + ".join(f"{text.size(size)} {name}" for name, size in measured.peak_bytes.items()),
        "peak GPU memory": size_or_unknown(measured.gpu_peak_bytes),
    }
    return [
        machine(report.machine),
        conditions(report.date, report.machine),
        f"{by.model} on {by.device} in {by.precision}, by {by.runtime}{fallback}",
        f"{songs(report.songs)}, {text.some(how.repeat, 'time')}; medians; {' and '.join(how.stems)} as {how.format}",
        "",
        *(f"{name:26}{value}" for name, value in rows.items()),
        "",
        "seconds of each step",
        *(f"  {name:24}{seconds:.2f}" for name, seconds in steps(measured.medians).items()),
    ]


def machine(at: Machine) -> str:
    """The machine on one line."""
    return f"{at.processor}, {text.some(at.cores, 'core')}, {text.size(at.memory_bytes)}, {at.gpu or 'no GPU'}"


def conditions(date: str, at: Machine) -> str:
    """When and on which software, on one line."""
    versions = ", ".join(f"{name} {version}" for name, version in at.versions.items())
    return f"{date}; Linux {at.kernel}, files on {at.filesystem}, load {at.load:.1f} before; {versions}"


def songs(playlist: Iterable[Song]) -> str:
    return ", ".join(f"{song.name} ({text.clock(song.seconds)})" for song in playlist)


def steps(found: Medians) -> dict[str, float]:
    """Seconds by step, and as `rest` what no step accounts for. Steps may run at the same time."""
    named = {step.removesuffix("_s"): seconds for step, seconds in found.timing.items()}
    rest = found.seconds - sum(found.timing.values())
    return {**named, "rest": max(rest, 0.0), "drop to done": found.seconds}


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def starts(start_s: dict[str, float]) -> str:
    return ", ".join(f"{which} {seconds:.1f}" for which, seconds in start_s.items())


def size_or_unknown(count: int | None) -> str:
    return NOT_MEASURED if count is None else text.size(count)
