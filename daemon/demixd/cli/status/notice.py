"""What a command that asks for something says where no daemon runs that would do it."""

import time

from demixd.cli.config_option import start_command
from demixd.cli.console import complain
from demixd.client import text
from demixd.client.liveness import RUNNING, SILENT_INTERVALS, STOPS_S, Health, Liveness, is_absent
from demixd.client.reader import CachedDocument
from demixd.config import Config
from demixd.errors import RefusedError
from demixd.protocol.status import DaemonStatus
from demixd.spool.tree import DAEMON, Spool


def complain_if_absent(spool: Spool) -> None:
    """Say that no daemon runs on this spool, and what starts one, where that is so."""
    if is_absent(spool):
        complain(_absent())


def _absent() -> str:
    return f"No daemon runs on this spool: what it is asked for waits until one is started with `{start_command()}`."


class SilenceNotice:
    """The sentences for someone who waits: one when the daemon falls silent, one when it runs again.

    Nobody waits for a daemon that has not run since: whether it will is not known.
    """

    def __init__(self, spool: Spool, heartbeat_s: float, now: float) -> None:
        """`heartbeat_s` is the configured interval, for a daemon that has never told its own."""
        self._heartbeat = CachedDocument(spool.status / DAEMON, DaemonStatus)
        self._liveness = Liveness(now)
        self._patience_s = SILENT_INTERVALS * heartbeat_s
        self._is_told = self._was_heard = False

    @classmethod
    def of(cls, config: Config, spool: Spool) -> "SilenceNotice":
        return cls(spool, config.status.heartbeat_s, time.monotonic())

    def due(self, now: float) -> str | None:
        """The sentence that is due now, if any. Raises RefusedError where no daemon has run since this one began to look."""
        health = self._liveness.update(self._heartbeat.refresh(), now)
        silence_s = self._liveness.silence_s(now)
        self._was_heard = self._was_heard or health is Health.ALIVE
        if health not in RUNNING and not self._was_heard:
            raise RefusedError(_absent())
        if health is Health.ALIVE and self._is_told:
            self._is_told = False
            return "The daemon is running again."
        is_over = health not in RUNNING and silence_s > min(self._patience_s, STOPS_S)
        is_gone = health is Health.SILENT or is_over
        if not is_gone or self._is_told:
            return None
        self._is_told = True
        return (
            f"The daemon is not running (no sign of life for {text.ago(silence_s)}): start it; the songs wait for it."
        )
