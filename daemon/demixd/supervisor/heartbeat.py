"""Signs of life: `_daemon.json` for other programs, and the same in one line to systemd.

They come from the loop that does the work, between its steps as well, and never from a thread of their own: a loop that
hangs must be noticed.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from demixd.config import Config
from demixd.protocol import status
from demixd.protocol.typed import ended
from demixd.spool.processes import this_process
from demixd.spool.tree import DAEMON
from demixd.supervisor import notify
from demixd.supervisor.locks import Locks
from demixd.supervisor.page import StatusPage
from demixd.supervisor.runs.context import Context
from demixd.version import __version__

log = logging.getLogger(__name__)


NEWS_S = 1.0
"""How long after a heartbeat the next one comes at the earliest that tells of songs: ten thousand may change at once."""


class Heartbeat:
    """Writes `_daemon.json` every `[status] heartbeat_s`, when songs have come further, and at once after `soon`.

    `now` is monotonic, in seconds. `file` is that of the configuration; `watch` tells how changes of the inbox are noticed,
    `warnings` what else the administrator should know.
    """

    def __init__(
        self,
        config: Config,
        context: Context,
        locks: Locks,
        facts: status.DaemonFacts,
        file: str,
        watch: Callable[[], status.WatchStatus],
        warnings: Callable[[], tuple[str, ...]],
    ) -> None:
        self._file, self._page = file, StatusPage(context, facts)
        self.reconfigure(config)
        self._context = context
        self._locks = locks
        self._facts = facts
        self._process = this_process()
        self._watch = watch
        self._warnings = warnings
        self._told_watch, self._told_pause = watch(), context.pause.told
        self.state = "starting"
        self.obstacles: tuple[str, ...] = ()
        """Sentences about what keeps the daemon from working at all."""
        self.is_announced = False
        """Whether systemd has been told READY."""
        self._due = self._alive_due = self._told_at = 0.0
        self._told_changes = 0

    @property
    def due(self) -> float:
        """When something is to be written: every so often, and sooner where it would not show the queue as it is."""
        return min(self._beat_due, self._page.due)

    @property
    def _beat_due(self) -> float:
        return min(self._due, self._told_at + NEWS_S) if self._context.jobs.changes > self._told_changes else self._due

    def reconfigure(self, config: Config) -> None:
        self._every_s = config.status.heartbeat_s
        self._page.reconfigure(config)
        self._configuration = status.ConfigurationFacts.of(self._file, config.daemons)
        self._refused: tuple[str, ...] = ()

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell systemd that the configuration is read again, and when that is over."""
        if self.is_announced:
            notify.reloading()
        yield
        if self.is_announced:
            notify.send("READY=1")
            self.soon()

    def refuse(self, reason: str) -> None:
        """Say, until a reload succeeds, why the last one did not."""
        sentence = f"The configuration was not read again, the old one stays: {reason}"
        log.error("%s", sentence)
        self._refused = (ended(sentence),)
        self.soon()

    def soon(self) -> None:
        """Have the next `live` beat at once: something has changed that others wait for."""
        self._due = 0.0

    def tell(self, now: float, *, is_open: bool) -> None:
        """Tell systemd READY once everything that can be done is done. `is_open`: whether songs can be taken."""
        pool, folders = self._context.pool, self._context.folders
        is_held = folders.missing or self.obstacles or self._locks.rival  # longer than systemd waits for a start, maybe
        if not self.is_announced and pool.is_settled and (is_open or is_held):
            self.is_announced = True
            notify.send("READY=1")
            self.soon()
        if self.is_announced and is_open and self.state == "warming":
            self.state = "ready"
            self.soon()
        if (self._watch(), self._context.pause.told) != (self._told_watch, self._told_pause):
            self._told_watch, self._told_pause = self._watch(), self._context.pause.told
            self.soon()
        if now >= self._beat_due and "status" not in self._context.folders.missing:
            self._context.jobs.write_unwritten()
        self.live(now)

    def live(self, now: float) -> None:
        """Do what is due of the heartbeat and of systemd's `WATCHDOG=1`."""
        if now >= self._beat_due:
            self._due, self._told_at = now + self._every_s, now
            self.beat()
        if now >= self._page.due:
            self._page.write(now, is_allowed=self._may_write)
        if (every := notify.watchdog_s()) is not None and now >= self._alive_due:
            self._alive_due = now + every
            notify.send("WATCHDOG=1")

    def beat(self) -> None:
        """Write `_daemon.json` and say the same in one line to systemd."""
        jobs, folders = self._context.jobs, self._context.folders
        self._told_changes = jobs.changes
        queued = tuple(status.JobName(job_id=job.job_id, name=job.shown) for job in jobs.queue())
        in_flight = tuple(status.JobName(job_id=job.job_id, name=job.shown) for job in jobs.running)
        workers = self._context.pool.status(self._songs())
        document = status.DaemonStatus(
            schema=status.SCHEMA,
            seq=jobs.seq(),
            interval_s=self._every_s,
            state=self.state,
            pid=os.getpid(),
            worker=next((each for each in workers if each.state == "ready"), workers[0]),
            workers=workers,
            running=in_flight[0] if in_flight else None,
            in_flight=in_flight,
            queue=queued,
            watch=self._watch(),
            counts=jobs.counts,
            warnings=(*self.obstacles, *self._refused, *folders.warnings, *jobs.warnings, *self._warnings()),
            version=__version__,
            daemon=self._facts,
            updated_at=jobs.now,
            process=self._process,
            queue_eta_s=jobs.etas(),
            configuration=self._configuration,
            paused=self._context.pause.told,
        )
        if self._may_write:
            jobs.write(self._context.spool.status / DAEMON, document)
            self._page.tell(document)
            if self.state == "stopping":
                self._page.write(self._context.clock.now(), is_allowed=True)
        notify.send(f"STATUS={self._doing().rstrip('.')}; {len(queued)} waiting")

    @property
    def _may_write(self) -> bool:
        """Whether the status folder is there, and ours."""
        locks = self._locks
        return "status" not in self._context.folders.missing and locks.holds("status") and locks.rival is None

    def _songs(self) -> dict[str, list[status.JobName]]:
        """The songs that each worker has, by its id."""
        found: dict[str, list[status.JobName]] = {}
        for job in self._context.jobs.running:
            if job.engine is not None and job.engine.worker is not None:
                found.setdefault(job.engine.worker, []).append(status.JobName(job_id=job.job_id, name=job.shown))
        return found

    def _doing(self) -> str:
        """What the daemon does at present, or what it waits for."""
        if self.obstacles:
            return self.obstacles[0]
        if self._locks.rival is not None:
            who, folder = self._locks.rival, self._context.spool.status
            return f"waiting {self._locks.wait_s:g} s to see whether {who} still uses {folder}; the log says what to do"
        if missing := self._context.folders.missing:
            return next(iter(missing.values()))
        if running := self._context.jobs.running:
            return "; ".join(f"{job.shown}: {job.message.rstrip('.')}" for job in running)
        best = self._context.pool.best
        return self._context.pause.message or best.message or best.state
