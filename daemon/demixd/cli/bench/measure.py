"""Turn by turn: A B C A B C, so that whatever slows the machine for a while slows all of them. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from demixd.cli.bench.report import Medians, Ratio, Run, Sdr, SongSdr

T = TypeVar("T")


def alternate(
    contenders: Mapping[str, Callable[[T], Run]],
    songs: Sequence[T],
    repeat: int,
    tell: Callable[[str, int, Run], None],
) -> dict[str, list[Run]]:
    """Every song through every contender in turn, `repeat` times; `tell` hears of each run, and of its round from 1."""
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(1, repeat + 1):
        for song in songs:
            for name, run in contenders.items():
                runs[name].append(run(song))
                tell(name, number, runs[name][-1])
    return runs


def medians(runs: Sequence[Run]) -> Medians:
    alone = [(run.separate_s, run.song.seconds) for run in runs if run.separate_s]
    steps = list(dict.fromkeys(step for run in runs for step in run.timing))
    return Medians(
        seconds=_median(run.seconds for run in runs) or 0.0,
        speed_x=_median(run.song.seconds / run.seconds for run in runs) or 0.0,
        separate_s=_median(separate_s for separate_s, _ in alone),
        separate_x=_median(song_s / separate_s for separate_s, song_s in alone),
        timing={step: _median(run.timing[step] for run in runs if step in run.timing) or 0.0 for step in steps},
    )


def ratio(demixd: Sequence[Run], other: Sequence[Run]) -> Ratio:
    """The median of the pairs: the same song, one after the other."""
    pairs = list(zip(demixd, other, strict=True))
    return Ratio(
        seconds=_median(theirs.seconds / ours.seconds for ours, theirs in pairs) or 0.0,
        separate=_median(
            theirs.separate_s / ours.separate_s for ours, theirs in pairs if ours.separate_s and theirs.separate_s
        ),
    )


def sdr(songs: Sequence[SongSdr]) -> Sdr:
    """The median for each stem is of the songs that have a number for it."""
    told: dict[str, list[float]] = {}
    for song in songs:
        for stem, value in song.stems.items():
            told.setdefault(stem, []).extend([] if value is None else [value])
    return Sdr(songs=tuple(songs), medians={stem: _median(values) for stem, values in told.items()})


def _median(values: Iterable[float]) -> float | None:
    """To the thousandth: more is noise."""
    found = list(values)
    return round(median(found), 3) if found else None
