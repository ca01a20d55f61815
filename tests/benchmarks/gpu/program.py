"""A GPU's ten minutes: tests/benchmarks/run --gpu NAME.

The table is written row by row, so that whatever ends the program leaves what was measured before. Each row has its limit
of time: a group of rows (`rows`) is a process, which is ended where a row takes longer, and begun again with those behind it.
"""

import contextlib
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from benchmarks.contenders.resident import PYTHON
from benchmarks.gpu.messages import Network, Plan, Row
from benchmarks.models import prepare
from benchmarks.program import run

from demixd.cli.bench.measure import machine, today, warn_if_busy
from demixd.cli.bench.report import conditions
from demixd.cli.bench.report import machine as machine_line
from demixd.cli.config_option import configured
from demixd.cli.console import exit_on_sigterm, interruptible, refusing_os_errors, say
from demixd.cli.throwaway import child, last_line
from demixd.client.text import size
from demixd.config import Config

HEAD = ("| row | seconds | x real time | memory | GPU memory | |", "| --- | --- | --- | --- | --- | --- |")
NONE = "not measured"

START_S = 60.0
"""The first row of a process may take so much longer: torch is imported, and the model loaded."""
COMPILED = 2
"""So many of the fastest ways are compiled too."""


class Table:
    """The table in a file, which has each row as soon as it is known."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.write_bytes(b"")

    def line(self, text: str) -> None:
        say(text)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def row(self, row: Row) -> None:
        cells = (
            row.row,
            _seconds(row),
            "" if row.x_real_time is None else f"{row.x_real_time:.1f}",
            "" if row.bytes is None else size(row.bytes),
            "" if row.gpu_bytes is None else size(row.gpu_bytes),
            row.note,
        )
        self.line(f"| {' | '.join(cells)} |")


def _seconds(row: Row) -> str:
    if row.seconds is None:
        return NONE if row.bytes is None else ""
    return f"{row.seconds:.4f}" if row.seconds < 1 else f"{row.seconds:.2f}"


class Clock:
    """What is left of the time for everything."""

    def __init__(self, limit_s: float) -> None:
        self._ends = time.monotonic() + limit_s

    def left(self, wanted_s: float) -> float:
        return max(0.0, min(wanted_s, self._ends - time.monotonic()))


def measured(group: str, plan: Plan, limits: dict[str, float], clock: Clock, folder: Path) -> Iterator[Row]:
    """The rows of a group that `limits` names with their seconds; those that are not to be had say why."""
    left = dict(limits)
    log = folder / f"{group}.log"
    while left:
        networks = tuple(each for each in plan.networks if each.title in left)
        words = msgspec.json.encode(msgspec.structs.replace(plan, networks=networks)).decode()
        with child([*PYTHON, "benchmarks.gpu.rows", group, words], log, talks=True) as process:
            lines = _lines(process)
            spare = START_S
            while left:
                title = next(iter(left))
                given = clock.left(left[title] + spare)
                try:
                    line = lines.get(timeout=given) if given else None
                except queue.Empty:
                    yield Row(row=title, note=f"longer than {given:.0f} s")
                    del left[title]
                    if group == "daemon":
                        left.clear()  # the rows behind are of the same daemon
                    break
                if not line:
                    why = "no time was left" if not given else f"it has ended: {last_line(log)}"
                    yield from (Row(row=each, note=why) for each in left)
                    left.clear()
                    break
                row = msgspec.json.decode(line, type=Row)
                yield row
                left.pop(row.row, None)
                spare = 0.0
            if not left:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(clock.left(START_S))  # it removes what it has made


def _lines(process: "subprocess.Popen[bytes]") -> "queue.SimpleQueue[bytes]":
    """The lines that a process says, and an empty one when it has ended."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # closed meanwhile
            for line in process.stdout:
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=listen, daemon=True).start()
    return lines


def networks(table: Table, plan: Plan, clock: Clock, folder: Path) -> None:
    """Every precision and batch, and the fastest of them compiled."""
    found: dict[str, float] = {}
    limits = {each.title: 5.0 + 2 * each.batch for each in plan.networks}
    for row in measured("network", plan, limits, clock, folder):
        table.row(row)
        if row.seconds is not None:
            found[row.row] = row.seconds
    ways = {each.title: each for each in plan.networks if each.precision != "float32"}
    best = sorted((title for title in found if title in ways), key=found.__getitem__)[:COMPILED]
    again = tuple(msgspec.structs.replace(ways[title], compiled=True) for title in best)
    if not again:
        table.row(Row(row="compiled", note="not measured: no GPU"))
    plan = msgspec.structs.replace(plan, networks=again)
    for row in measured("network", plan, {each.title: 150.0 for each in again}, clock, folder):
        table.row(row)


def bench(table: Table, plan: Plan, limit_s: float, folder: Path) -> None:
    """All groups, the short ones first."""
    clock = Clock(limit_s)
    length = plan.seconds
    for row in measured("song", plan, {"separate": 30 + length}, clock, folder):
        table.row(row)
    networks(table, plan, clock, folder)
    rows = {
        "start to READY, first": 240.0,
        "start to READY, second": 90.0,
        "drop to done, wav": 30 + length,
        "drop to done, flac": 30 + length,
        f"{plan.songs} songs in a row": 30 + plan.songs * length,
        "peak memory": 10.0,
    }
    for row in measured("daemon", plan, rows, clock, folder):
        table.row(row)


def _numbers(_context: object, _parameter: object, value: str) -> tuple[int, ...]:
    return tuple(int(each) for each in value.split(","))


def _words(_context: object, _parameter: object, value: str) -> tuple[str, ...]:
    return tuple(value.split(","))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", default="htdemucs", show_default=True, help="Random weights stand in where it is not there.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--seconds", type=float, default=240.0, show_default=True, help="Length of the songs.")
@click.option("--songs", type=click.IntRange(1, 100), default=20, show_default=True, help="How many in a row.")
@click.option("--precisions", default="float16,bfloat16", show_default=True, callback=_words)
@click.option("--batches", default="1,4,8,16,32,64", show_default=True, callback=_numbers)
@click.option("--limit", type=float, default=600.0, show_default=True, help="Seconds for everything.")
@click.option("--table", "path", type=click.Path(path_type=Path), help="Write the table to this file, row by row.")
@configured
def command(
    config: Config,
    /,
    model: str,
    device: str,
    seconds: float,
    songs: int,
    precisions: tuple[str, ...],
    batches: tuple[int, ...],
    limit: float,
    path: Path | None,
) -> None:
    """Measure a GPU in ten minutes: the network in each precision and batch, compiled, a song, and the daemon."""
    exit_on_sigterm()
    with (
        refusing_os_errors(),
        interruptible("Interrupted: the rows so far are in the table."),
        tempfile.TemporaryDirectory(prefix="demixd-bench-") as temporary,
    ):
        folder, load = Path(temporary).resolve(), warn_if_busy()
        where = prepare(config, model, folder / "models", say, may_be_random=True)
        plan = Plan(
            model=where.name,
            models=where.models,
            allow_pickle=where.allow_pickle,
            device=device,
            folder=str(folder),
            seconds=seconds,
            songs=songs,
            networks=tuple(Network(precision=each, batch=batch) for each in precisions for batch in batches),
        )
        table, here = Table(path), machine(folder, None, load)
        table.line(f"## {machine_line(here)}\n")
        table.line(f"- {conditions(today(), here)}")
        table.line(f"- {where.name}; songs of {seconds:g} s; no settle time\n")
        for line in HEAD:
            table.line(line)
        bench(table, plan, limit, folder)


if __name__ == "__main__":
    run(command, "tests/benchmarks/run --gpu NAME")
