"""`demixd bench` from its options to its report. No torch here: only the daemon's own processes load it."""

import contextlib
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from demixd.audio import sndfile
from demixd.audio.streams import NotReadableError
from demixd.cli.bench.daemon import FORMAT, STEMS, MeasuredDaemon, SongFile
from demixd.cli.bench.report import Machine, Measured, Report, Run, Settings, Song, medians
from demixd.cli.console import say
from demixd.config import Config
from demixd.config.sections import Model
from demixd.engine import host
from demixd.engine.models import store
from demixd.engine.models.catalog import AUTO
from demixd.engine.models.configured import known
from demixd.engine.models.demo.recording import record
from demixd.errors import RefusedError
from demixd.protocol import devices
from demixd.protocol.inbox_names import Kind, kind_of_file
from demixd.protocol.typed import typed
from demixd.spool.mounts import mount_of
from demixd.version import __version__

WARM_UP_S = 10.0

BUSY = 0.25
"""The share of the cores that other programs may keep busy without a warning."""

PACKAGES = ("torch", "demucs", "openvino")


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line; None: as configured. `seconds` is the length of a synthetic song."""

    model: str | None
    device: str | None
    precision: str | None
    seconds: float
    repeat: int


def bench(config: Config, paths: Sequence[Path], options: BenchOptions) -> Report:
    """Measure each song, or a synthetic one where none is given. Nothing is left behind. Raises RefusedError."""
    with tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary:
        folder = Path(temporary)
        load = warn_if_busy()
        playlist = [read_song(path) for path in paths] or [synthetic_song(folder / "synthetic.flac", options.seconds)]
        model = _model(config, options)
        daemon = MeasuredDaemon(folder / "demixd", msgspec.to_builtins(model), config.models)
        runs: list[Run] = []
        with daemon.started_twice():
            say("A short song that does not count is separated first.")
            with daemon.separated(synthetic_song(folder / "warm-up.flac", min(WARM_UP_S, options.seconds))):
                pass
            for number in range(1, options.repeat + 1):
                for song in playlist:
                    with daemon.separated(song) as (run, _stems):
                        runs.append(run)
                    say(f"{number}. {run_line(run)}")
        assert daemon.engine is not None
        return Report(
            date=today(),
            machine=machine(folder, None if daemon.engine.device == "cpu" else daemon.engine.device_name, load),
            settings=Settings(
                model=model.name,
                device=str(model.device),
                precision=model.precision,
                repeat=options.repeat,
                stems=STEMS,
                format=FORMAT,
            ),
            songs=tuple(song for _, song in playlist),
            engine=daemon.engine,
            measured=Measured(
                start_s=daemon.start_s,
                peak_bytes=daemon.peak_bytes,
                gpu_peak_bytes=daemon.gpu_peak_bytes,
                medians=medians(runs),
                runs=tuple(runs),
            ),
        )


def _model(config: Config, options: BenchOptions) -> Model:
    """The model of the configuration, with what the command line asks for. It must be there: nothing is fetched.

    Raises RefusedError, `bad-options`, `model-missing` and `bad-model`.
    """
    device = options.device or devices.all_of(config.model.device)[0]
    asked = {"name": options.model, "device": device, "precision": options.precision, "keep_alive_s": -1}
    keys = msgspec.to_builtins(config.model) | {key: value for key, value in asked.items() if value is not None}
    try:
        model = typed(keys, Model)
    except ValueError as error:
        raise RefusedError(f"[model] {error}") from error
    if model.name != AUTO:
        store.Where.of(config, known(model.name, config)).locate()
    return model


def synthetic_song(path: Path, seconds: float) -> SongFile:
    """A song of that length, made at `path`."""
    return path, Song(name=path.name, seconds=record(path, seconds))


def read_song(path: Path) -> SongFile:
    """A song of the command line. Raises OSError, and RefusedError for one that is not WAV, FLAC, MP3 or Ogg."""
    path.stat()  # libsndfile does not say why it cannot open a file.
    try:
        str(path).encode()  # The name is to be in the report, as JSON.
        seconds = sndfile.duration_s(path)
    except (UnicodeError, NotReadableError) as error:
        raise RefusedError(f"{path} cannot be read ({error}): take WAV, FLAC, MP3 or Ogg") from error
    if kind_of_file(path.name) is not Kind.SONG or not seconds:
        raise RefusedError(f"{path} is no song that a daemon would take from its inbox")
    return path.absolute(), Song(name=path.name, seconds=round(seconds, 3))


def run_line(run: Run) -> str:
    return f"{run.song.name}: {run.seconds:.2f} s, {run.song.seconds / run.seconds:.2f} x real time"


def warn_if_busy() -> float:
    """The load of the machine; a warning where other programs would spoil the measurement."""
    load = os.getloadavg()[0]
    if load > BUSY * _cores():
        say(f"This machine is busy (load {load:.1f}): what is measured now says little.")
    return load


def machine(folder: Path, gpu: str | None, load: float) -> Machine:
    """The facts of this machine; `folder` is where the spool lies."""
    versions = {"demixd": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return Machine(
        processor=host.cpu_name(),
        cores=_cores(),
        load=round(load, 2),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=gpu,
        filesystem=mount_of(folder).kind,
        kernel=platform.release(),
        versions=versions,
    )


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _cores() -> int:
    return len(os.sched_getaffinity(0))
