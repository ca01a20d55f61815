"""The time, as an argument: the daemon's clocks, and how its main loop waits. Tests have a clock of their own."""

import queue
import time
from typing import Protocol, TypeVar

T = TypeVar("T")

PAUSE_S = 5.0
"""Between two questions for the time; the main loop asks several times a second, unless the whole process is held."""


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
    """Another clock, whose `now` stands still while this process does: stopped, in a frozen container, held by a disk.

    What it waits for may have been paused along with it: the worker, whoever writes a song, the daemon of another machine.
    So no limit runs out by a pause.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.wall, self.uptime, self.sleep = clock.wall, clock.uptime, clock.sleep
        self._asked_at = clock.now()
        self._paused_s = 0.0

    def now(self) -> float:
        now = self._clock.now()
        if now > self._asked_at + PAUSE_S:
            self._paused_s += now - self._asked_at
        self._asked_at = now
        return now - self._paused_s

    def receive(self, mailbox: "queue.SimpleQueue[T]", timeout_s: float) -> T:
        return self._clock.receive(mailbox, timeout_s)
