"""A report as tables: the cells, and Markdown for RESULTS.md. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from benchmarks.report import COMMAND, DEMIXD, MIXTURE, SEPARATOR, UNBLEND, Report

from demixd.cli.bench.report import Machine, conditions, machine, number, size_or_unknown, songs, starts
from demixd.cli.bench.report import steps as seconds_of_steps
from demixd.client import text

NAMES = {
    MIXTURE: "the song itself",
    DEMIXD: "demixd",
    SEPARATOR: "`Separator`, loaded once",
    UNBLEND: "`unblend`, loaded once",
    COMMAND: "`demucs` command, cold",
}
BAR = r"\|"
"""In a cell of Markdown: a song may be called `A | B`."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def contenders(report: Report) -> Table:
    """What each takes from song to stems, and what the model takes of it; and how many times what demixd takes."""
    found = {name: (each, each.medians, report.ratios.get(name)) for name, each in report.contenders.items()}
    rows = {
        "seconds, song to stems": (number(medians.seconds) for _, medians, _ in found.values()),
        "x real time": (number(medians.speed_x) for _, medians, _ in found.values()),
        "times demixd's": (number(ratio.seconds if ratio else None) for *_, ratio in found.values()),
        "model alone, x real time": (number(medians.separate_x) for _, medians, _ in found.values()),
        "times demixd's model": (number(ratio.separate if ratio else None) for *_, ratio in found.values()),
        "start to ready, s": (starts(each.start_s) for each, *_ in found.values()),
        "peak memory": (" + ".join(map(text.size, each.peak_bytes.values())) for each, *_ in found.values()),
        "peak GPU memory": (size_or_unknown(each.gpu_peak_bytes) for each, *_ in found.values()),
    }
    return Table(
        head=("", *(NAMES[name] for name in found)), rows=tuple((title, *cells) for title, cells in rows.items())
    )


def sdr(report: Report) -> Table:
    """Over the songs, and where there are several, of each; no rows where there were no references."""
    found = report.sdr.values()
    rows = _by_stem("", [each.medians for each in found])
    by_song = [[song.stems for song in each.songs] for each in found]
    titles = [song.song.name for song in next(iter(found)).songs] if found else []
    if len(titles) > 1:
        for title, stems in zip(titles, zip(*by_song, strict=True), strict=True):
            rows += _by_stem(f"{title}: ", stems)
    return Table(head=("SDR in dB", *(NAMES[name] for name in report.sdr)), rows=tuple(rows))


def _by_stem(title: str, columns: Sequence[Mapping[str, float | None]]) -> list[tuple[str, ...]]:
    stems = columns[0] if columns else ()
    return [(f"{title}{stem}", *(number(each.get(stem)) for each in columns)) for stem in stems]


def steps(report: Report) -> Table:
    """Where demixd's time goes, in seconds."""
    cells = seconds_of_steps(report.contenders[DEMIXD].medians)
    return Table(head=tuple(cells), rows=(tuple(map(number, cells.values())),))


def facts(report: Report) -> list[str]:
    """What was measured, on what and when, in lines."""
    how, by = report.settings, report.engine
    fallback = f"; {by.fallback}" if by.fallback else ""
    lines = [
        conditions(report.date, report.machine),
        f"{how.model}, {how.weights} weights; demixd on {by.device} in {by.precision}{fallback}; Demucs on {how.device}",
        f"{songs(report.songs)}, {text.some(how.repeat, 'time')} each in turn; medians; "
        f"out come {' and '.join(how.stems)}, {how.format}",
    ]
    if report.sdr:
        lines.append("SDR against reference stems, of what came out the first time; higher is better, 0 is silence")
        gains = {run.song.name: run.gain_db for run in report.contenders[DEMIXD].runs if run.gain_db}
        lines += [
            f"{song}: demixd has turned all stems down by {-gain:.1f} dB, so that none clips"
            for song, gain in gains.items()
        ]
    return [*lines, *report.notes]


def all_of(report: Report) -> list[Table]:
    """Those that have something to tell."""
    return [table for table in (contenders(report), sdr(report), steps(report)) if table.rows]


def markdown(report: Report) -> str:
    """A section of RESULTS.md."""
    return section(report.machine, facts(report), all_of(report))


def section(at: Machine, facts: Iterable[str], tables: Iterable[Table]) -> str:
    """A machine, what was measured on it, and what came out."""
    lines = [f"## {machine(at)}", "", *(f"- {fact}" for fact in facts), ""]
    for table in tables:
        lines += [*_markdown(table), ""]
    return "\n".join(lines)


def _markdown(table: Table) -> Iterable[str]:
    for cells in (table.head, ("---",) * len(table.head), *table.rows):
        yield f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |".replace("|  |", "| |")
