"""What `demixd bench` does. It loads no torch itself: nothing here takes memory or cores from those that are measured."""

import contextlib
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from demixd.cli.bench import measure, references, report, songs, tables
from demixd.cli.bench.contenders import FORMAT, STEMS, Command, Demixd, Separator
from demixd.cli.bench.messages import Loaded
from demixd.cli.bench.models import RANDOM, prepare
from demixd.cli.bench.references import Judge
from demixd.cli.bench.report import COMMAND, DEMIXD, SEPARATOR, Report, Run
from demixd.cli.bench.songs import Piece
from demixd.cli.console import RefusedError
from demixd.config import Config
from demixd.spool.mounts import mount_of
from demixd.terminal import safe
from demixd.version import __version__

PACKAGES = ("torch", "demucs", "openvino")
WARM_UP_S = 10.0

BUSY = 0.25
"""The part of the cores that others may keep busy without a word."""

Say = Callable[[str], None]


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line; null is the configuration's."""

    model: str | None
    device: str
    precision: str | None
    seconds: float
    repeat: int
    with_command: bool
    references: Path | None = None


def bench(config: Config, paths: Sequence[Path], wishes: Wishes, say: Say) -> Report:
    """Measure, in a temporary folder that is gone afterwards. Raises RefusedError where something cannot be done."""
    with tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        load = os.getloadavg()[0]
        if load > BUSY * _cores():
            say(f"This machine is busy (load {load:.1f}): what is measured now says little.")
        playlist = songs.given(paths) or [songs.made(folder / "synthetic.flac", wishes.seconds)]
        judge = _judge(wishes.references, playlist, say)
        name = wishes.model or config.model.name
        where = prepare(config, name, folder / "models", say, may_be_random=wishes.references is None)
        demixd = Demixd(folder / "demixd", where, device=wishes.device, precision=wishes.precision)
        say("demixd starts, for the first time and once more.")
        with demixd.running("first"):
            pass
        stack.enter_context(demixd.running("second"))
        say("demucs.api.Separator loads.")
        separator = stack.enter_context(Separator.running(folder / "separator", where, wishes.device))
        field: dict[str, Demixd | Separator | Command] = {DEMIXD: demixd, SEPARATOR: separator}
        if wishes.with_command:
            field[COMMAND] = Command(folder / "command", where, separator.loaded.device)
        say("Each separates a short song that does not count.")
        contenders = {name: _judged(name, each, judge) for name, each in field.items()}
        warm_up = [songs.made(folder / "warm-up.flac", min(WARM_UP_S, wishes.seconds))]
        measure.alternate(contenders, warm_up, 1, lambda *_: None)
        runs = measure.alternate(contenders, playlist, wishes.repeat, lambda *told: say(_told(*told)))
        assert demixd.engine is not None
        return Report(
            schema=report.SCHEMA,
            date=time.strftime("%Y-%m-%d", time.gmtime()),
            machine=_machine(folder, separator.loaded, load),
            settings=report.Settings(
                model=where.name,
                weights="random" if where.name == RANDOM else "real",
                device=separator.loaded.device,
                precision=wishes.precision,
                repeat=wishes.repeat,
                stems=STEMS,
                format=FORMAT,
            ),
            songs=tuple(song for _, song in playlist),
            engine=demixd.engine,
            contenders={name: _contender(each, runs[name]) for name, each in field.items()},
            ratios={name: measure.ratio(runs[DEMIXD], each) for name, each in runs.items() if name != DEMIXD},
            sdr=judge.verdict(),
            notes=tuple(judge.notes),
        )


def _judge(folder: Path | None, playlist: Sequence[Piece], say: Say) -> Judge:
    """One who has heard the songs themselves; without references he says nothing."""
    judge = Judge({} if folder is None else references.find(folder, playlist, STEMS), say)
    judge.hear_songs(playlist, STEMS)
    return judge


def _judged(name: str, each: Demixd | Separator | Command, judge: Judge) -> Callable[[Piece], Run]:
    """Between two songs, when no clock runs, the stems are judged; then they go."""

    def run(song: Piece) -> Run:
        with each.separated(song) as (run, stems):
            judge.hear(name, song, stems)
        return run

    return run


def _told(name: str, number: int, run: Run) -> str:
    speed = run.song.seconds / run.seconds
    return f"{number}. {run.song.name}: {name}: {run.seconds:.2f} s, {speed:.2f} x real time"


def _contender(each: Demixd | Separator | Command, runs: list[Run]) -> report.Contender:
    return report.Contender(
        start_s=each.start_s,
        peak_bytes=each.peak_bytes,
        gpu_peak_bytes=each.gpu_peak_bytes,
        medians=measure.medians(runs),
        runs=tuple(runs),
    )


def _machine(folder: Path, loaded: Loaded, load: float) -> report.Machine:
    versions = {"demixd": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return report.Machine(
        processor=loaded.processor,
        cores=_cores(),
        load=round(load, 2),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=loaded.gpu,
        filesystem=mount_of(folder).kind,
        kernel=platform.release(),
        versions=versions,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def show(found: Report) -> None:
    """The report on the terminal."""
    console = Console()
    console.print(Text(tables.machine(found), style="bold"))
    for fact in tables.facts(found):
        console.print(Text(safe(fact)))
    for table in tables.all_of(found):
        shown = RichTable(*(cell.replace("`", "") for cell in table.head))
        for row in table.rows:
            shown.add_row(*(Text(safe(cell)) for cell in row))
        console.print(shown)


def read(path: Path) -> Report:
    """A report in a file. Raises RefusedError where it is none."""
    try:
        return report.decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path} is no report of `demixd bench`: {error}") from error
