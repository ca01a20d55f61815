"""A clock that stands still while anybody works, and is at the next thing that happens once nobody does.

The daemon's own threads, which copy and hash songs, take no time by it: as long as one of them is alive the clock waits
for it. What else happens (a worker says something, a user comes) is in its agenda, each at its time.
"""

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

THREADS = ("disk", "rehash")
"""What the daemon calls its threads that take files."""

FIRST = 1000.0
"""Where it begins, in seconds."""


class SimulatedClock:
    """`demixd.supervisor.clock.Clock`; nothing of it is the machine's but the time of day that it begins at."""

    def __init__(self) -> None:
        self._now = FIRST
        self._day = time.time() - FIRST
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._day + self._now

    def uptime(self) -> float:
        return self._now

    def put_right(self, seconds: float) -> None:
        """Somebody sets the time of day, forwards or back."""
        self._day += seconds

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Have `work` done in so many seconds."""
        heapq.heappush(self._agenda, (self._now + seconds, next(self._numbers), work))

    def sleep(self, seconds: float) -> None:
        until = self._now + seconds
        while self._agenda and self._agenda[0][0] <= until:
            self._do_next()
        self._now = until

    def pause(self, seconds: float) -> None:
        """The machine stands still, and nothing that is in the agenda happens before it goes on."""
        self._now += seconds
        self._agenda = [(at + seconds, number, work) for at, number, work in self._agenda]

    def receive(self, mailbox: "queue.SimpleQueue[T]", timeout_s: float) -> T:
        until = self._now + timeout_s
        while True:
            is_busy = any(thread.name in THREADS for thread in threading.enumerate())
            try:
                return mailbox.get(timeout=0.005) if is_busy else mailbox.get_nowait()
            except queue.Empty:
                if is_busy:
                    continue
            if not self._agenda or self._agenda[0][0] > until:
                self._now = until
                raise queue.Empty
            self._do_next()

    def _do_next(self) -> None:
        at, _, work = heapq.heappop(self._agenda)
        self._now = max(self._now, at)
        work()
