"""`[schedule] hours`: the hours in which songs are begun, such as "22:00-06:00, 12:30-13:30", in local time. Pure.

A range goes from its first minute up to its last one, which is out of it; over midnight where it ends before it begins. The
clock on the wall decides: in the night when clocks are put forward or back, a range is as much shorter or longer.
"""

import re
import time
from collections.abc import Callable
from functools import cache
from typing import Annotated

from msgspec import Meta

from demixd.protocol.typed import Section, shown

_RANGE = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])-(?:([01]?[0-9]|2[0-3]):([0-5][0-9])|(24):(00))")

MINUTE_S = 60
AHEAD = 8 * 24 * 60
"""Minutes within which hours open again: a range may lie where clocks are put forward, and be left out that day."""

Local = Callable[[float], time.struct_time]
"""The local time of a UNIX time in seconds."""


class Schedule(Section, frozen=True):
    hours: Annotated[str, Meta(max_length=1000)] = ""

    def __post_init__(self) -> None:
        ranges(self.hours)

    def is_open(self, at: float, local: Local = time.localtime) -> bool:
        """Whether songs are begun at the UNIX time `at`."""
        now = local(at)
        minute = 60 * now.tm_hour + now.tm_min
        found = ranges(self.hours)
        return not found or any(
            first <= minute < last if first < last else minute >= first or minute < last for first, last in found
        )

    def opens_at(self, at: float, local: Local = time.localtime) -> float | None:
        """When (UNIX time) songs are begun again, by the minute; None where the clocks never show such an hour."""
        start = at // MINUTE_S * MINUTE_S
        minutes = (start + number * MINUTE_S for number in range(1, AHEAD))
        return next((minute for minute in minutes if self.is_open(minute, local)), None)


@cache
def ranges(hours: str) -> tuple[tuple[int, int], ...]:
    """The ranges of `hours`, first and last minute of the day, 0 to 1440; none where all hours are open. Raises ValueError."""
    return tuple(_range(part, hours) for part in hours.split(",")) if hours.strip() else ()


def _range(text: str, hours: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text.strip())
    numbers = [int(each) for each in found.groups() if each is not None] if found else []
    if not numbers or numbers[:2] == numbers[2:]:
        how = 'it must be ranges of local time, such as "22:00-06:00, 12:30-13:30", or empty for all hours'
        raise ValueError(f"hours = {shown(hours)}: {how}")
    first_hour, first_minute, last_hour, last_minute = numbers
    return 60 * first_hour + first_minute, 60 * last_hour + last_minute
