"""The result of a benchmark, whose JSON has the same fields. Pure.

A ratio is the median over pairs of neighbours: the machine's load and heat are then the same for both.
"""

import msgspec

from demixd.cli.bench.report import Machine, Measured, Song
from demixd.protocol.job import EngineFacts

SCHEMA = 1

DEMIXD, SEPARATOR, UNBLEND, COMMAND = "demixd", "separator", "unblend", "command"
"""The contenders."""

MIXTURE = "mixture"
"""The songs themselves among the SDRs: the figures that every contender must exceed."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times demixd's seconds another contender takes: from song to stems, and in the model alone."""

    seconds: float
    separate: float | None


class SongSdr(msgspec.Struct, frozen=True, kw_only=True):
    """SDR in dB of each stem that has a reference; null where there is no such number."""

    song: Song
    stems: dict[str, float | None]


class Sdr(msgspec.Struct, frozen=True, kw_only=True):
    """Of the stems of each song's first run; a median is taken over songs."""

    songs: tuple[SongSdr, ...]
    medians: dict[str, float | None]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and where Demucs ran: `device` as torch names it."""

    model: str
    weights: str
    device: str
    precision: str | None
    repeat: int
    stems: tuple[str, ...]
    format: str


class Schema(msgspec.Struct, frozen=True):
    """What every report begins with."""

    schema: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark; `engine` is what demixd says that it separated with.

    `sdr` is of the mixture and the contenders where there were reference stems; `notes` say what must be known of it, and of
    contenders. The oldest reports lack both.
    """

    schema: int
    date: str
    machine: Machine
    settings: Settings
    songs: tuple[Song, ...]
    engine: EngineFacts
    contenders: dict[str, Measured]
    ratios: dict[str, Ratio]
    sdr: dict[str, Sdr] = {}
    notes: tuple[str, ...] = ()


def decode(data: bytes) -> Report:
    """Raises ValueError for anything but a report of this schema."""
    report = msgspec.json.decode(data, type=Report)
    if report.schema != SCHEMA:
        raise ValueError(f"its schema is {report.schema}, not {SCHEMA}")
    return report
