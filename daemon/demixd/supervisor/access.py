"""Whether the spool may be used: every folder is there, and no other daemon has them."""

import logging
from enum import Enum, auto

from demixd.config import Config
from demixd.errors import ConfigError
from demixd.supervisor.folders import Folders
from demixd.supervisor.locks import Locks

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often the folders are looked for."""

LOCKS = "locks"
"""What is missing where a folder is there and cannot be locked."""


class Change(Enum):
    """What a look has found."""

    NOTHING = auto()
    """As before."""
    MISSING = auto()
    """Something else is missing than before, or no longer missing; not everything is there."""
    WHOLE = auto()
    """Everything is there and ours, and was not before; or a folder is another one."""


class Access:
    """The folders and their locks. `now` is monotonic, in seconds."""

    def __init__(self, config: Config, folders: Folders, locks: Locks) -> None:
        self._every_s = min(LOOK_S, config.inbox.scan_interval)
        self._folders = folders
        self._locks = locks
        self._missing = frozenset({"not looked"})
        self._was_whole = False
        self.due = 0.0
        self.obstacles: tuple[str, ...] = ()
        """Sentences about what cannot be locked."""

    @property
    def is_current(self) -> bool:
        """Whether the same is missing as at the last look: a folder that has come back since is not locked yet."""
        return self._missing == self._folders.missing.keys()

    @property
    def is_whole(self) -> bool:
        """Whether nothing was missing at the last look, and all of it is ours."""
        return not self._missing

    def look(self, now: float) -> Change:
        """See what is there, and lock it.

        Raises ConfigError where another daemon has it at the start. Later that is something to wait for: others may put a
        lock of their own there, and a daemon that has begun does not end for it.
        """
        self.due = now + self._every_s
        self._folders.look()
        before, self._missing = self._missing, frozenset(self._folders.missing)
        are_new = self._lock(is_news=LOCKS not in before, now=now)
        if not self._missing:
            self._was_whole = True
            return Change.WHOLE if before or are_new else Change.NOTHING
        return Change.MISSING if self._missing != before else Change.NOTHING

    def _lock(self, *, is_news: bool, now: float) -> bool:
        """Lock the folders that are there; whether one is another folder than before. Where that fails, LOCKS are missing."""
        are_new = are_ours = False
        self.obstacles = ()
        try:
            are_new = self._locks.take(*self._folders.lockable)
            are_ours = self._locks.judge_rival(now)
        except OSError as error:
            what = f"{error.filename} cannot be locked: {error.strerror}"
            self.obstacles = (f"{what}; demixd goes on by itself once it can.",)
        except ConfigError as error:
            if not self._was_whole:
                raise
            self.obstacles = (f"{error} demixd waits until it is free.",)
        if self.obstacles and is_news:
            log.error("%s", *self.obstacles)
        if not are_ours:
            self._missing |= {LOCKS}
        return are_new
