"""The benchmark of a GPU: it measures row by row, each within its limit, and says of a row why it has none."""

from pathlib import Path

import msgspec
import pytest
from benchmarks.gpu import program
from benchmarks.gpu.messages import Network, Plan, Row
from benchmarks.gpu.program import Clock, Table

from daemons import PATIENCE_S, ROOT

PLAN = Plan(
    model="demo",
    models="/nowhere",
    allow_pickle=False,
    device="cpu",
    folder="",
    seconds=1.0,
    songs=2,
    networks=tuple(Network(precision=each, batch=1) for each in ("float32", "float16")),
)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'daemon'}:{ROOT / 'tests'}")
    return msgspec.structs.replace(PLAN, folder=str(tmp_path))


@pytest.mark.daily
def test_every_row_is_measured(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small sizes on a CPU: all rows have seconds but those that only a GPU has, which say so; nothing is left."""
    monkeypatch.setattr(program, "START_S", PATIENCE_S)
    program.bench(Table(tmp_path / "table.md"), plan, 10 * PATIENCE_S, tmp_path)
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "table.md").read_text().splitlines()]
    assert [row[0] for row in rows] == [
        "separate",
        "float32, 1 at once",
        "float16, 1 at once",
        "compiled",
        "start to READY, first",
        "start to READY, second",
        "drop to done, wav",
        "drop to done, flac",
        "2 songs in a row",
        "peak memory",
    ]
    without = [row[0] for row in rows if row[1] == program.NONE]
    assert without == ["float16, 1 at once", "compiled"]
    assert {row[-1] for row in rows if row[0] in without} == {"not measured: no GPU"}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".log", ".log", ".log", ".md"]


def test_a_row_that_takes_too_long(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is ended, the rows behind it are tried by another, and what no time is left for says so."""
    monkeypatch.setattr(program, "START_S", 0.0)
    limits = {"float32, 1 at once": 0.01, "float16, 1 at once": 0.01}
    rows = list(program.measured("network", plan, limits, Clock(60.0), tmp_path))
    assert [(row.row, row.note) for row in rows] == [(title, "longer than 0 s") for title in limits]
    rows = list(program.measured("network", plan, limits, Clock(0.0), tmp_path))
    assert [row.note for row in rows] == ["no time was left"] * 2


def test_each_row_is_in_the_file_at_once(tmp_path: Path) -> None:
    """Whatever ends the program leaves what was measured before."""
    table = Table(tmp_path / "table.md")
    table.row(Row(row="float16, 8 at once", seconds=0.0136, x_real_time=430.1, gpu_bytes=2_000_000_000))
    assert (tmp_path / "table.md").read_text() == "| float16, 8 at once | 0.0136 | 430.1 |  | 2.0 GB |  |\n"
