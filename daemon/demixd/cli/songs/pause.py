"""`demixd pause` and `demixd resume`: the file `.pause`, and what is said of it."""

import os
import time

from demixd.cli.console import say
from demixd.cli.status.notice import complain_if_absent
from demixd.client import actions
from demixd.client.reader import CachedDocument
from demixd.config import Config
from demixd.protocol.status import DaemonStatus
from demixd.spool.tree import DAEMON, PAUSE, Spool


def pause(spool: Spool, *, now: bool) -> None:
    """Have nothing new begun, and say so; `now`: nothing goes on either. Raises OSError."""
    how = "Still paused" if _is_paused(spool) else "Paused"
    actions.pause(spool, now=now)
    running = "and the running songs wait, too" if now else "and the running songs go on to their end"
    say(f"{how}: nothing new is begun, {running}. `demixd resume` ends it.")
    complain_if_absent(spool)


def resume(config: Config) -> None:
    """End the pause by the file, and say so, and whether there is another by the clock. Raises OSError."""
    spool = Spool(config)
    was_paused = _is_paused(spool)
    actions.go_on(spool)
    say(
        "The pause is over: songs are begun again."
        if was_paused
        else f"There is no pause to end: no {PAUSE} in the inbox."
    )
    if _is_closed(config, spool):
        say("Outside [schedule] hours only urgent songs are begun, all the same: `demixd status` says until when.")
    complain_if_absent(spool)


def _is_paused(spool: Spool) -> bool:
    return os.path.lexists(spool.inbox / PAUSE)


def _is_closed(config: Config, spool: Spool) -> bool:
    """Whether the clock holds songs up: by the heartbeat, or, since a file hides it there, by the configuration."""
    daemon = CachedDocument(spool.status / DAEMON, DaemonStatus).refresh()
    is_told = daemon is not None and daemon.paused is not None and daemon.paused.by == "schedule"
    return is_told or not config.schedule.is_open(time.time())
