"""Turn by turn: A B C A B C, so that whatever slows the machine for a while slows all contenders. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from benchmarks.report import Ratio, Sdr, SongSdr

from demixd.cli.bench.report import Run, rounded_median

T = TypeVar("T")
R = TypeVar("R")


def alternate(
    contenders: Mapping[str, Callable[[T], R]],
    songs: Sequence[T],
    repeat: int,
    tell: Callable[[str, int, R], None],
) -> dict[str, list[R]]:
    """Every song through every contender in turn, `repeat` times; `tell` gets each run, and the number of its round from 1."""
    runs: dict[str, list[R]] = {name: [] for name in contenders}
    for number in range(1, repeat + 1):
        for song in songs:
            for name, run in contenders.items():
                runs[name].append(run(song))
                tell(name, number, runs[name][-1])
    return runs


def ratio(demixd: Sequence[Run], other: Sequence[Run]) -> Ratio:
    """The median of the pairs: the same song, one run after the other."""
    pairs = list(zip(demixd, other, strict=True))
    return Ratio(
        seconds=rounded_median(theirs.seconds / ours.seconds for ours, theirs in pairs) or 0.0,
        separate=rounded_median(
            theirs.separate_s / ours.separate_s for ours, theirs in pairs if ours.separate_s and theirs.separate_s
        ),
    )


def sdr(songs: Sequence[SongSdr]) -> Sdr:
    """The median of each stem is over the songs that have a number for it."""
    found: dict[str, list[float]] = {}
    for song in songs:
        for stem, value in song.stems.items():
            found.setdefault(stem, []).extend([] if value is None else [value])
    return Sdr(songs=tuple(songs), medians={stem: rounded_median(values) for stem, values in found.items()})
