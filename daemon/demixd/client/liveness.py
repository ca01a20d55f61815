"""Whether the daemon is running. On its own machine the process tells at once that it has ended, or lives; elsewhere another
program can tell only this: `seq` in the heartbeat grows, by our own clock.

Times are seconds of the monotonic clock, given by the caller.
"""

import time
from datetime import datetime
from enum import StrEnum

from demixd.client.reader import CachedDocument
from demixd.config.sections import HEARTBEAT_MOST_S
from demixd.protocol.status import DaemonStatus
from demixd.spool.processes import is_alive
from demixd.spool.tree import DAEMON, Spool

STOPS_S = 10.0
"""A daemon that is stopping has ended after so long; it promises 5 s."""

SILENT_INTERVALS = 3
"""A daemon whose `seq` has not grown for this many of its intervals is not running."""


class Health(StrEnum):
    NEVER_RUN = "never run"
    LISTENING = "listening"
    """Not known yet: `seq` has not grown, but three intervals have not passed since we began to look."""
    ALIVE = "alive"
    STOPPED = "stopped"
    GONE = "gone"
    """Its process has ended without a word."""
    SILENT = "silent"


RUNNING = frozenset({Health.ALIVE, Health.LISTENING})


def age_s(daemon: DaemonStatus | None, now: float) -> float | None:
    """The heartbeat's age at `now` (UNIX time), if both clocks are right; None where there is no telling."""
    try:
        return now - datetime.fromisoformat(daemon.updated_at).timestamp() if daemon else None
    except ValueError:
        return None


def is_overdue(daemon: DaemonStatus | None, age_s: float | None) -> bool:
    """Whether the last heartbeat, of this age, is so old that its daemon can hardly run any more."""
    return daemon is not None and (age_s or 0.0) > SILENT_INTERVALS * daemon.interval_s


def is_absent(spool: Spool) -> bool:
    """Whether no daemon runs on this spool, as far as one look at its heartbeat tells."""
    heartbeat = CachedDocument(spool.status / DAEMON, DaemonStatus).refresh()
    now = time.monotonic()
    health = Liveness(now).update(heartbeat, now)
    is_doubtful = health is Health.LISTENING and is_overdue(heartbeat, age_s(heartbeat, time.time()))
    return health not in RUNNING or is_doubtful


class Liveness:
    """The daemon's health, from the heartbeats that are read one after the other."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._daemon: DaemonStatus | None = None
        self._beats = 0

    def update(self, daemon: DaemonStatus | None, now: float) -> Health:
        """The health once the heartbeat was read as `daemon`."""
        if daemon is not None and (self._daemon is None or daemon.seq != self._daemon.seq):
            self._since = now
            self._beats += 1
        self._daemon = daemon if daemon is not None else self._daemon
        if self._daemon is None:
            return Health.NEVER_RUN
        lives = self._process_lives(self._daemon)
        if self._daemon.state == "stopping" and (
            self._beats == 1 or lives is False or self.silence_s(now) > min(self.interval_s, STOPS_S)
        ):
            return Health.STOPPED
        if lives is False:
            return Health.GONE
        if self.silence_s(now) > SILENT_INTERVALS * self.interval_s:
            return Health.SILENT
        return Health.ALIVE if self._beats > 1 or lives else Health.LISTENING

    def _process_lives(self, daemon: DaemonStatus) -> bool | None:
        """Whether its process runs; None where this machine cannot tell, or where it runs and has long said nothing."""
        age = age_s(daemon, time.time())
        lives = is_alive(daemon.pid, daemon.process, time.time() - (age or 0.0))
        hangs = lives and age is not None and age > SILENT_INTERVALS * self.interval_s
        return None if hangs else lives

    @property
    def interval_s(self) -> float:
        """The daemon's own interval, within bounds: the file may hold anything."""
        return min(max(self._daemon.interval_s, 0.1), HEARTBEAT_MOST_S) if self._daemon else 0.0

    def silence_s(self, now: float) -> float:
        """Time since `seq` last changed, or since we began to look."""
        return now - self._since
