"""`[schedule] hours`: over midnight, across daylight saving, and what is refused."""

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from demixd.protocol.schedule import Schedule, ranges

BERLIN = ZoneInfo("Europe/Berlin")


def local(at: float) -> time.struct_time:
    return datetime.fromtimestamp(at, BERLIN).timetuple()


def unix(text: str, *, fold: int = 0) -> float:
    """A local time in Berlin; `fold` is 1 for the second of an hour that comes twice."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("hours", "at", "is_open"),
    [
        ("", "12:00", True),
        ("08:00-12:00", "07:59", False),
        ("08:00-12:00", "08:00", True),
        ("08:00-12:00", "11:59", True),
        ("08:00-12:00", "12:00", False),
        ("22:00-06:00", "21:59", False),
        ("22:00-06:00", "22:00", True),
        ("22:00-06:00", "00:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("22:00-24:00", "23:59", True),
        ("22:00-24:00", "00:00", False),
        ("0:00-24:00", "12:00", True),
        ("8:30-9:00 , 20:00-21:00", "08:45", True),
        ("8:30-9:00 , 20:00-21:00", "12:00", False),
        ("8:30-9:00 , 20:00-21:00", "20:15", True),
    ],
)
def test_hours(hours: str, at: str, is_open: bool) -> None:
    """A range goes from its first minute up to its last one."""
    assert Schedule(hours=hours).is_open(unix(f"2026-06-01 {at}"), local) == is_open


@pytest.mark.parametrize(
    ("hours", "at", "opens"),
    [
        ("22:00-06:00", "2026-06-01 12:34:56", "2026-06-01 22:00"),
        ("22:00-06:00", "2026-06-01 06:00", "2026-06-01 22:00"),
        ("08:00-09:00", "2026-06-01 10:00", "2026-06-02 08:00"),
        # 02:00 is 03:00 in this night.
        ("02:30-04:00", "2026-03-29 01:00", "2026-03-29 03:00"),
        ("02:30-02:45", "2026-03-29 01:00", "2026-03-30 02:30"),
        ("05:00-06:00", "2026-03-28 22:00", "2026-03-29 05:00"),
        ("05:00-06:00", "2026-10-24 22:00", "2026-10-25 05:00"),
    ],
)
def test_it_opens(hours: str, at: str, opens: str) -> None:
    """A pause ends with the minute in which clocks show the beginning, also in nights that are longer or shorter."""
    assert Schedule(hours=hours).opens_at(unix(at), local) == unix(opens)


def test_an_hour_that_comes_twice() -> None:
    """Clocks that are put back show a range twice, and it is open both times."""
    schedule = Schedule(hours="02:00-02:30")
    assert [schedule.is_open(unix("2026-10-25 02:10", fold=each), local) for each in (0, 1)] == [True, True]
    assert not schedule.is_open(unix("2026-10-25 02:40"), local)
    assert schedule.opens_at(unix("2026-10-25 02:40"), local) == unix("2026-10-25 02:00", fold=1)


@pytest.mark.parametrize(
    "hours",
    [
        "22-6",
        "22:00",
        "22:00-22:00",
        "24:00-06:00",
        "25:00-06:00",
        "22:00-06:60",
        "22:00-06:00,",
        "always",
    ],
)
def test_no_hours(hours: str) -> None:
    """What is no range is refused, with the value and what it has to be."""
    with pytest.raises(ValueError, match=r'^hours = ".*": it must be ranges of local time, such as "22:00-06:00'):
        ranges(hours)
