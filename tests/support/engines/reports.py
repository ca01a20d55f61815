"""A report of the benchmarks, as an example."""

from benchmarks import report
from benchmarks.models import RANDOM
from benchmarks.report import DEMIXD, Report

from demixd.cli.bench.report import Machine, Measured, Run, Song, medians
from demixd.protocol.job import EngineFacts

SONG = Song(name="Song.flac", seconds=60.0)


def run(seconds: float, separate_s: float | None = None, **timing: float) -> Run:
    return Run(song=SONG, seconds=seconds, separate_s=separate_s, timing=timing)


def example() -> Report:
    timing = {"decode_s": 1.0, "separate_s": 9.0, "publish_s": 0.5}
    runs = (Run(song=SONG, seconds=12.0, separate_s=9.0, timing=timing),)
    ours = Measured(
        start_s={"first": 4.0, "second": 3.0},
        peak_bytes={"supervisor": 50_000_000, "worker": 1_500_000_000},
        gpu_peak_bytes=None,
        medians=medians(runs),
        runs=runs,
    )
    return Report(
        schema=report.SCHEMA,
        date="2026-01-31",
        machine=Machine(
            processor="A | B",
            cores=1,
            load=0.1,
            memory_bytes=8_000_000_000,
            gpu=None,
            filesystem="ext4",
            kernel="6.1",
            versions={"demixd": "0.1.0"},
        ),
        settings=report.Settings(
            model=RANDOM,
            weights="random",
            device="cpu",
            precision=None,
            repeat=3,
            stems=("vocals",),
            format="wav",
        ),
        songs=(SONG,),
        engine=EngineFacts(
            model=RANDOM, model_sha256="0", device="cpu", device_name="A", precision="float32", fallback=None
        ),
        contenders={DEMIXD: ours},
        ratios={},
    )
