"""demixd against `demucs.api.Separator`, the `demucs` command and unblend, with the same weights and songs: tests/benchmarks/run.

program     from weights to report; it loads no torch, so that it takes nothing from those that are measured
weights     a process that makes the folder of models that all read; `models` says which model
contenders/ the others: a song in, its stems on disk and the seconds out; demixd is `MeasuredDaemon` of the package
quality/    the stems that were mixed into a song, and how near the contenders come to them; `sdr` is the formula
measure     turn by turn, medians, ratios
report      the result, and its JSON; `tables` show it
ceiling/    another benchmark: the pipeline alone, with a network that answers at once
gpu/        another one: what a GPU does in ten minutes, row by row
workers     one more: what two workers do in the time of one
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from benchmarks import measure, report, tables
from benchmarks.ceiling import report as ceiling
from benchmarks.contenders import demucs, unblend
from benchmarks.contenders.resident import Resident
from benchmarks.models import RANDOM, prepare
from benchmarks.quality import references
from benchmarks.quality.references import Judge
from benchmarks.report import COMMAND, DEMIXD, SEPARATOR, UNBLEND, Report
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from demixd.cli.bench.daemon import FORMAT, STEMS, MeasuredDaemon, SongFile
from demixd.cli.bench.measure import WARM_UP_S, machine, read_song, run_line, synthetic_song, today, warn_if_busy
from demixd.cli.bench.report import Measured, Run, encode, medians
from demixd.cli.bench.report import machine as machine_line
from demixd.cli.config_option import configured
from demixd.cli.console import complain, exit_on_sigterm, interruptible, refusing_os_errors, say
from demixd.config import Config
from demixd.engine.models.store import Where
from demixd.errors import AudioProcessingError, ConfigError, RefusedError
from demixd.protocol.terminal import safe

Contender = MeasuredDaemon | Resident | demucs.Command


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line; None: as configured."""

    model: str | None
    device: str
    precision: str | None
    seconds: float
    repeat: int
    with_command: bool
    with_unblend: bool
    references: Path | None = None


def bench(config: Config, paths: Sequence[Path], options: BenchOptions) -> Report:
    """Measure, in a temporary folder that is gone afterwards. Raises RefusedError where something cannot be done."""
    with tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        load = warn_if_busy()
        playlist = [read_song(path) for path in paths] or [synthetic_song(folder / "synthetic.flac", options.seconds)]
        judge = _judge(options.references, playlist)
        name = options.model or config.model.name
        where = prepare(config, name, folder / "models", say, may_be_random=options.references is None)
        demixd = _daemon(folder / "demixd", where, options)
        stack.enter_context(demixd.started_twice())
        say("demucs.api.Separator loads.")
        separator = stack.enter_context(demucs.separator(folder / "separator", where, options.device))
        field: dict[str, Contender] = {DEMIXD: demixd, SEPARATOR: separator}
        notes = []
        if options.with_unblend:
            running = unblend.running(folder / "unblend", where, separator.loaded.device, say)
            peer, note = _if_it_can(stack, running)
            field |= {} if peer is None else {UNBLEND: peer}
            notes.append(note)
        if options.with_command:
            field[COMMAND] = demucs.Command(folder / "command", where, separator.loaded.device)
        say("Each separates a short song that does not count.")
        contenders = {name: _judged(name, each, judge) for name, each in field.items()}
        warm_up = [synthetic_song(folder / "warm-up.flac", min(WARM_UP_S, options.seconds))]
        measure.alternate(contenders, warm_up, 1, lambda *_: None)
        runs = measure.alternate(contenders, playlist, options.repeat, _tell)
        assert demixd.engine is not None
        return Report(
            schema=report.SCHEMA,
            date=today(),
            machine=machine(folder, separator.loaded.gpu, load),
            settings=report.Settings(
                model=where.name,
                weights="random" if where.name == RANDOM else "real",
                device=separator.loaded.device,
                precision=options.precision,
                repeat=options.repeat,
                stems=STEMS,
                format=FORMAT,
            ),
            songs=tuple(song for _, song in playlist),
            engine=demixd.engine,
            contenders={name: _measured(each, runs[name]) for name, each in field.items()},
            ratios={name: measure.ratio(runs[DEMIXD], each) for name, each in runs.items() if name != DEMIXD},
            sdr=judge.verdict(),
            notes=(*notes, *judge.notes),
        )


def _if_it_can(
    stack: contextlib.ExitStack, running: contextlib.AbstractContextManager[Resident]
) -> tuple[Resident | None, str]:
    """unblend where it can be measured, and what must be known of it, or why it cannot."""
    try:
        peer = stack.enter_context(running)
    except RefusedError as error:
        say(f"unblend is left out: {error}.")
        return None, f"unblend is left out: {error}"
    return peer, peer.loaded.about or ""


def _daemon(folder: Path, where: Where, options: BenchOptions) -> MeasuredDaemon:
    model: dict[str, Any] = {"name": where.name, "device": options.device, "allow_pickle": where.allow_pickle}
    if options.precision is not None:
        model["precision"] = options.precision
    return MeasuredDaemon(folder, model, Path(where.models))


def _judge(folder: Path | None, playlist: Sequence[SongFile]) -> Judge:
    """A judge who has heard the songs themselves; without references nothing is judged."""
    judge = Judge({} if folder is None else references.find(folder, playlist, STEMS), say)
    judge.hear_songs(playlist, STEMS)
    return judge


def _judged(name: str, each: Contender, judge: Judge) -> Callable[[SongFile], Run]:
    """A run of the contender. Its stems are judged after its time was taken, and before they are removed."""

    def run(song: SongFile) -> Run:
        with each.separated(song) as (run, stems):
            judge.hear(name, song, stems)
        return run

    return run


def _tell(name: str, number: int, run: Run) -> None:
    say(f"{number}. {name}: {run_line(run)}")


def _measured(each: Contender, runs: list[Run]) -> Measured:
    return Measured(
        start_s=each.start_s,
        peak_bytes=each.peak_bytes,
        gpu_peak_bytes=each.gpu_peak_bytes,
        medians=medians(runs),
        runs=tuple(runs),
    )


def show(found: Report) -> None:
    """The report on the terminal."""
    console = Console()
    console.print(Text(machine_line(found.machine), style="bold"))
    for fact in tables.facts(found):
        console.print(Text(safe(fact)))
    for table in tables.all_of(found):
        shown = RichTable(*(cell.replace("`", "") for cell in table.head))
        for row in table.rows:
            shown.add_row(*(Text(safe(cell)) for cell in row))
        console.print(shown)


def markdown(path: Path) -> str:
    """The section of RESULTS.md for the report in a file, of either kind. Raises RefusedError where there is none."""
    try:
        data = path.read_bytes()
        if msgspec.json.decode(data, type=report.Schema).schema == ceiling.SCHEMA:
            return ceiling.markdown(msgspec.json.decode(data, type=ceiling.Ceiling))
        return tables.markdown(report.decode(data))
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path} is no report of a benchmark: {error}") from error


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("songs", metavar="[SONG...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", help="A name that `demixd models list` shows; default: the configuration's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N, for all contenders.")
@click.option("--precision", help="As in [model], for demixd alone: Demucs knows only float32.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=240, show_default=True, help="Length of a made song."
)
@click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Rounds.")
@click.option("--json", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write everything to FILE.")
@click.option("--skip-command", is_flag=True, help="Leave out the demucs command, which loads the model each time.")
@click.option(
    "--with-unblend", is_flag=True, help="unblend too, in an environment of its own, which is made first (6 GB)."
)
@click.option(
    "--references",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The stems that were mixed into each SONG, for SDR: FOLDER/SONG/vocals.flac, FOLDER/SONG.vocals.flac, or for one "
    "SONG FOLDER/vocals.flac.",
)
@click.option("--show", "as_text", is_flag=True, help="Measure nothing: the arguments are reports, shown in Markdown.")
@configured
def command(
    config: Config, /, songs: tuple[Path, ...], file: Path | None, skip_command: bool, as_text: bool, **options: Any
) -> None:
    """Measure demixd against Demucs' Separator and its command, with each SONG or with a synthetic one."""
    if as_text:
        for each in songs:
            for line in markdown(each).splitlines():
                say(line)
        return
    if options["references"] is not None and not songs:
        raise click.UsageError("--references needs the songs that they belong to.")
    exit_on_sigterm()
    with refusing_os_errors(), interruptible("Interrupted: there is no result."):
        found = bench(config, songs, BenchOptions(with_command=not skip_command, **options))
        show(found)
        if file is not None:
            file.write_bytes(encode(found))


def run(command: click.Command, name: str) -> None:
    """Run one of the benchmarks' commands: an error is one sentence on standard error, and status 1."""
    try:
        command(prog_name=name)
    except AudioProcessingError as error:
        complain(error.message)
        sys.exit(1)
    except (RefusedError, ConfigError) as error:
        complain(str(error))
        sys.exit(1)


if __name__ == "__main__":
    run(command, "tests/benchmarks/run NAME")
