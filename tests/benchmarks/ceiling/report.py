"""The result of a benchmark of the ceiling, whose JSON has the same fields, and its table. Pure.

A ratio is the median over pairs of neighbours, as in `benchmarks.report`.
"""

from collections.abc import Sequence

import msgspec
from benchmarks.ceiling.messages import Cost
from benchmarks.tables import Table, section

from demixd.cli.bench.report import Machine, conditions, number, rounded_median
from demixd.client import text

SCHEMA = 3
"""Reports of schema 1 compare demixd with Demucs, those of schema 2 are `demixd bench`'s."""

PRESENT, OLDER = "present", "older"

MEASURE_S = 240.0
"""Seconds of song to which costs are scaled in the table."""

SPEED, WRITTEN = "x real time", "MB written"
NO_RATIO = (SPEED, WRITTEN)
"""Speed says the same as the seconds, and where next to nothing is written, times that says nothing."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One song, separated once; it and its `stems` have the same `format`."""

    format: str
    stems: tuple[str, ...]
    cost: Cost

    @property
    def title(self) -> str:
        return f"{self.format}, {len(self.stems)} stems"


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """`commits` and `rounds` are by side: the older one, where there was one, and the present one.

    The rounds of both are in the same order.
    """

    schema: int = SCHEMA
    date: str
    machine: Machine
    song_s: float
    repeat: int
    commits: dict[str, str]
    rounds: dict[str, tuple[Round, ...]]


def columns(cost: Cost, song_s: float) -> dict[str, float]:
    """The cells of one song's row."""
    scale = MEASURE_S / song_s
    return {
        **{step.removesuffix("_s"): seconds * scale for step, seconds in cost.timing.items()},
        "song to stems": cost.seconds * scale,
        SPEED: song_s / cost.seconds,
        "CPU seconds": cost.cpu_s * scale,
        WRITTEN: cost.written_bytes / 1e6 * scale,
    }


def table(report: Ceiling) -> Table:
    """A row for each kind of song and side; where there are two sides, a third one has how many times the present's it was.

    A step that only the older one has keeps its column.
    """
    sides = [columns(rounds[0].cost, report.song_s) for rounds in report.rounds.values()]
    names = max(map(list, sides), key=len)
    rows: list[tuple[str, ...]] = []
    for title in dict.fromkeys(each.title for each in report.rounds[PRESENT]):
        cells = {
            side: [columns(each.cost, report.song_s) for each in rounds if each.title == title]
            for side, rounds in report.rounds.items()
        }
        for side, found in cells.items():
            label = f"{title}: {side}" if len(cells) > 1 else title
            rows.append((label, *_medians(names, found)))
        if OLDER in cells:
            pairs = zip(cells[OLDER], cells[PRESENT], strict=True)
            rows.append((f"{title}: {OLDER} / {PRESENT}", *_medians(names, [ratios(*pair) for pair in pairs])))
    return Table(head=("", *names), rows=tuple(rows))


def ratios(older: dict[str, float], present: dict[str, float]) -> dict[str, float]:
    """How many times the present's the older one's cells are, of costs that both have."""
    return {
        name: cell / present[name]
        for name, cell in older.items()
        if cell and present.get(name) and name not in NO_RATIO
    }


def _medians(names: Sequence[str], found: Sequence[dict[str, float]]) -> list[str]:
    """Each column's median over the rows that have it."""
    return [number(rounded_median(row[name] for row in found if name in row)) for name in names]


def markdown(report: Ceiling) -> str:
    """A section of RESULTS.md."""
    facts = [
        conditions(report.date, report.machine),
        "; ".join(f"{side} is {commit}" for side, commit in report.commits.items()),
        f"a song of {text.clock(report.song_s)}, {text.some(report.repeat, 'time')} each"
        f"{' in turn' if OLDER in report.rounds else ''}; medians",
    ]
    return section(report.machine, facts, [table(report)])
