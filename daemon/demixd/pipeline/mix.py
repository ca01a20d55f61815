"""Mix: how the stems that were asked for are made of the parts that the model separates. Pure.

A stem is a weighted sum of the model's parts, and in one case of the song:

    vocals            1 x vocals
    instrumental      the other parts added up, or the song minus the vocals (always where the model has no other part)
    no_NAME           the same for NAME
    guide             instrumental, and the vocals at a level for singers who want help
    master            1 x the song, for files that hold it beside its stems
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from demixd.engine.models.catalog import offered
from demixd.errors import AudioProcessingError, Code
from demixd.protocol.typed import did_you_mean

SONG = "(song)"
"""The song itself among the names of parts; no model can have a part of that name."""

VOCALS = "vocals"
GUIDE = "guide"
MASTER = "master"

FLOOR_DB = -200.0
"""dB of a residual of zero: JSON has no infinity."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How stems are mixed from parts."""

    stems: dict[str, dict[str, float]]
    """Stem, in the order asked for -> part or SONG -> coefficient."""
    cover: tuple[str, ...] = ()
    """The stems that add up to the song; empty where none do."""

    @property
    def separated(self) -> tuple[str, ...]:
        """The stems that need the model: all but the song itself."""
        return tuple(stem for stem, row in self.stems.items() if row.keys() != {SONG})

    def matrix(self, parts: Sequence[str]) -> list[list[float]]:
        """Of each stem in `separated`, the coefficient of each of `parts`."""
        return [[self.stems[stem].get(part, 0.0) for part in parts] for stem in self.separated]


def recipe(
    stems: Sequence[str],
    parts: Sequence[str],
    *,
    instrumental: str = "auto",
    alone: Iterable[str] = (),
    guide_db: float = 0.0,
    master: bool = False,
) -> Recipe:
    """How to mix `stems` from a model's `parts`. Raises BAD_OPTIONS.

    `instrumental` says how a stem of all parts but one is made: `add` the others, take the song `minus` the one, or
    `auto`: minus where the one is among `alone` (parts that can be computed without the rest) and most of the work is
    saved by it. `guide_db` is the level of the vocals in `guide`. With `master` the song itself is the first stem.
    """
    if not stems:
        raise AudioProcessingError(
            Code.BAD_OPTIONS, f"No stems are asked for; the model offers {', '.join(offered(parts))}."
        )
    omitted = {stem: _omits(stem, parts) for stem in dict.fromkeys(stems)}
    if instrumental == "auto":
        instrumental = _cheaper(omitted, parts, frozenset(alone))
    rows = {stem: _row(stem, without, parts, instrumental, guide_db) for stem, without in omitted.items()}
    if master:
        rows = {MASTER: {SONG: 1.0}, **rows}
    return Recipe(stems=rows, cover=_cover(omitted, parts))


def residual_db(song: float, rest: float) -> float | None:
    """dB of `rest`, the energy of the song minus its stems, against `song`, its own; None for a silent song."""
    if not song:
        return None
    return max(FLOOR_DB, 10 * math.log10(rest / song)) if rest else FLOOR_DB


def joint_gain(peaks: Mapping[str, float], clip: str, ceiling: float = 1.0) -> float:
    """The gain, at most 1, of all stems of a song: under `joint`, it brings the loudest peak down to `ceiling`.

    All stems have the same gain, which keeps their balance. Under `clamp` and `none` it is 1.
    """
    loudest = max(peaks.values(), default=0.0)
    return ceiling / loudest if clip == "joint" and loudest > ceiling else 1.0


def _omits(stem: str, parts: Sequence[str]) -> str | None:
    """The part that a stem leaves out, or has at another level; None if the stem is a part. Raises BAD_OPTIONS."""
    if stem in parts:
        return None
    without = VOCALS if stem in ("instrumental", GUIDE) else stem.removeprefix("no_")
    if without == stem or without not in parts:
        there = offered(parts)
        message = f'The model has no stem "{stem}"{did_you_mean(stem, there) or "."} It offers {", ".join(there)}.'
        raise AudioProcessingError(Code.BAD_OPTIONS, message)
    return without


def _cover(omitted: Mapping[str, str | None], parts: Sequence[str]) -> tuple[str, ...]:
    """Stems that add up to the song: all parts, or one part and the stem without it."""
    if set(parts) <= omitted.keys():
        return tuple(parts)
    pairs = ((without, stem) for stem, without in omitted.items() if without in omitted and stem != GUIDE)
    return next(((str(without), stem) for without, stem in pairs), ())


def _cheaper(omitted: Mapping[str, str | None], parts: Sequence[str], alone: frozenset[str]) -> str:
    """`minus` if every part left out can be computed alone, in less than half of the passes that `add` needs; else `add`."""
    left_out = {part for part in omitted.values() if part is not None}
    asked = {stem for stem, part in omitted.items() if part is None}
    added = asked | {part for without in left_out for part in parts if part != without}
    return "minus" if left_out <= alone and 2 * len(asked | left_out) < len(added) else "add"


def _row(stem: str, without: str | None, parts: Sequence[str], instrumental: str, guide_db: float) -> dict[str, float]:
    if without is None:
        return {stem: 1.0}
    level = 10 ** (guide_db / 20) if stem == GUIDE else 0.0
    others = {part: 1.0 for part in parts if part != without}
    if instrumental == "minus" or not others:
        return {SONG: 1.0, without: level - 1.0}
    return {**others, without: level} if level else others
