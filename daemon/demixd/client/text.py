"""Numbers, durations, sizes, documents and errors as text. Pure."""

import errno
from datetime import datetime
from typing import Any

import msgspec

from demixd.protocol.terminal import OBEYED


def as_json(document: Any) -> str:
    """`document` as JSON on one line. Characters that a terminal would obey are escaped, so that the value stays the same."""
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(document).decode())


def refusal(error: OSError) -> str:
    """A file or folder that cannot be used, in a sentence without a full stop; with the remedy where this user may not use it."""
    remedy = ": let this user in, or run this as the daemon's user or by sudo" if error.errno == errno.EACCES else ""
    return f"{error.filename}: {error.strerror}{remedy}"


def percent(fraction: float) -> str:
    """Rounded down: only what is done has 100 %."""
    return f"{int(100 * min(max(fraction, 0.0), 1.0))} %"


def speed(speed_x: float | None) -> str:
    """`38.2x` real time; empty for None."""
    return f"{speed_x:.1f}x" if speed_x else ""


def clock(seconds: float | None) -> str:
    """`0:11`, `3:25`, `1:02:03`; empty for None."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(max(seconds, 0.0) + 0.5), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def left(seconds: float | None) -> str:
    """`0:11 left`; empty for None."""
    return "" if seconds is None else f"{clock(seconds)} left"


def ago(seconds: float) -> str:
    """`4 s`, `3 min`, `5 h`, `2 days`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds / size)} {unit}"
    return f"{int(max(seconds, 0.0))} s"


def hour(utc: str) -> str:
    """A time of the protocol as local clocks show it, `22:00`; empty where it is none."""
    try:
        return f"{datetime.fromisoformat(utc).astimezone():%H:%M}"
    except (ValueError, OverflowError):
        return ""


def size(count: int) -> str:
    """`812 MB`, `3.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def some(count: int, noun: str) -> str:
    """`1 song`, `2 songs`, `3 entries`."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"
