"""The time, as an argument: the daemon's clocks, and how its main loop waits. Tests have a clock of their own."""

import queue
import time
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from demixd.spool.child_process import AwakeTime

T = TypeVar("T")

LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""The last time that can be told: a grace, or a wrong clock, may lie beyond it."""


def utc(now: float) -> str:
    """A UNIX time in seconds as the protocol writes it."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told(at: float) -> str:
    """A UNIX time in seconds as sentences have it."""
    return datetime.fromtimestamp(min(at, LATEST), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic, in seconds: what durations are measured by."""

    def wall(self) -> float:
        """The time of day, UNIX seconds, which anybody may put right by years."""

    def uptime(self) -> float:
        """Monotonic, in seconds, and going on while the machine sleeps; where there is no such clock, it does not."""

    def sleep(self, seconds: float) -> None: ...

    def receive(self, mailbox: "queue.SimpleQueue[T]", timeout_s: float) -> T:
        """What comes into `mailbox` within `timeout_s`. Raises `queue.Empty` where nothing does."""


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def uptime(self) -> float:
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def receive(self, mailbox: "queue.SimpleQueue[T]", timeout_s: float) -> T:
        return mailbox.get(timeout=timeout_s)


class AwakeClock:
    """Another clock, whose `now` stands still while this process does: the worker may have been paused along with it, or whoever
    writes a song, or the daemon of another machine."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.now = AwakeTime(clock.now).now
        self.wall, self.uptime, self.sleep = clock.wall, clock.uptime, clock.sleep

    def receive(self, mailbox: "queue.SimpleQueue[T]", timeout_s: float) -> T:
        return self._clock.receive(mailbox, timeout_s)
