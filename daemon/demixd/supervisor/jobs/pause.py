"""What keeps songs from being begun, with nothing amiss: the file `.pause` in the inbox, and the hours outside `[schedule]`.

    .pause               nothing new is begun; songs in flight go on to their end
    .pause, says `now`   these wait again, too, and no attempt is counted
    [schedule] hours     outside them nothing new is begun, but for songs of priority `URGENT` or more

What is prepared stays prepared. `.pause` may be anything but a folder; only of a regular file is it read what it says.
"""

import codecs
import logging
import os
import stat
import time
from pathlib import Path

from demixd.config import Config
from demixd.protocol.job import Job
from demixd.protocol.schedule import Local
from demixd.protocol.status import Paused
from demixd.spool import nofollow
from demixd.spool.tree import PAUSE, Spool
from demixd.supervisor.clock import Clock, utc

log = logging.getLogger(__name__)

URGENT = 100
"""The priority from which on a song is begun whatever the hour."""

NOW = "now"
LONGEST_WORD = 1024
"""Bytes of the file that are read."""


class Pause:
    """Whether there is a pause, and what it holds. `clock` tells the time of day, `local` what clocks on the wall show then."""

    def __init__(self, config: Config, spool: Spool, clock: Clock, local: Local = time.localtime) -> None:
        self._schedule = config.schedule
        self._file, self._inbox = spool.inbox / PAUSE, spool.inbox
        self._clock, self._local = clock, local
        self.told: Paused | None = None
        """What others see of it; None while there is none."""
        self.message = ""
        """The sentence of each song that it holds."""
        self.is_now = False
        """Whether songs in flight wait, too."""

    def reconfigure(self, config: Config) -> None:
        self._schedule = config.schedule
        if self.told is not None and self.told.by == "schedule":
            self.told = None  # its end may be another

    def look(self) -> None:
        """Take in the file and the time of day."""
        word = _word(self._file, self._inbox)
        self.is_now = word == NOW
        if word is not None:
            self._tell(
                Paused(by="file", now=self.is_now), f"Paused: it goes on once {PAUSE} is removed from the inbox."
            )
            return
        at = self._clock.wall()
        if self._schedule.is_open(at, self._local):
            self._tell(None, "")
        elif self.told is None or self.told.by != "schedule":
            ends = self._schedule.opens_at(at, self._local)
            until = f" until {time.strftime('%H:%M', self._local(ends))}" if ends is not None else ""
            message = f"Paused{until} by [schedule] hours; a priority of {URGENT} or more overrules it."
            self._tell(Paused(by="schedule", until=None if ends is None else utc(ends)), message)

    def _tell(self, told: Paused | None, message: str) -> None:
        if (told is None) is not (self.told is None) or message != self.message:
            log.info("%s", message or "The pause is over.")
        self.told, self.message = told, message

    def holds(self, job: Job) -> bool:
        """Whether the job must not begin now."""
        return self.told is not None and (self.told.by == "file" or job.priority < URGENT)


def _word(path: Path, inbox: Path) -> str | None:
    """What a pause file says, in lower case; empty where that cannot be read; None where there is none."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            return None
    except OSError:
        return None
    try:
        handle = nofollow.read_file(inbox, path)
    except OSError:
        return ""
    try:
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        return _plain(os.read(handle, LONGEST_WORD)) if is_file else ""
    except OSError:
        return ""
    finally:
        nofollow.close(handle)


def _plain(data: bytes) -> str:
    """A word as any shell or editor writes it: PowerShell in UTF-16, the command of Windows with quotes, some with a mark."""
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if is_wide else "utf-8-sig", "replace")
    return text.strip(" \t\r\n\0\"'").lower()
