"""The supervisor's life: startup, main loop, shutdown. One thread decides everything; it never waits for long.

Signals, file events, the worker's lines and the end of a snapshot are put into one queue; the loop takes them in turn,
and between them does what time asks for.
"""

import fcntl
import logging
import os
import queue
import signal
import time
import uuid
from pathlib import Path
from types import FrameType

from stemd import __version__, notify, status
from stemd.config import Config
from stemd.errors import ConfigError
from stemd.inbox.ready import survive_lease_breaks
from stemd.inbox.wake import Waker
from stemd.intake import Intake
from stemd.job import Reason, State
from stemd.jobs import Jobs
from stemd.ledger import Ledger
from stemd.recovery import recover
from stemd.runner import Runner, SnapshotTaken
from stemd.spool import DAEMON, Spool
from stemd.worker.handle import Died, Said
from stemd.worker.keeper import Keeper
from stemd.worker.messages import Ready, Unready

log = logging.getLogger(__name__)

BUSY_S, IDLE_S = 0.25, 1.0
"""How long the loop sleeps at most while a job runs, and otherwise."""

CANCEL_S = 0.5
"""How often cancel files are looked for while a job runs, events or not."""

WAKE_GAP_S = 0.2
"""Events come in swarms; one look serves all that come within this."""


class Wake:
    """Something in the inbox has changed."""


class Quit:
    """Stop, by signal."""


Event = Wake | Quit | Said | Died | SnapshotTaken


class Service:
    """One daemon on one spool."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spool = Spool(config)
        self.mailbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.facts = status.DaemonFacts(instance=uuid.uuid4().hex, version=__version__)
        self.state = "starting"
        self._wanted = True
        self._due = {"scan": 0.0, "cancel": 0.0, "heartbeat": 0.0, "alive": 0.0}
        self._announced = False
        self._held = False

    def run(self) -> None:
        """From start to stop. Raises ConfigError where the folders cannot be used."""
        self.start_up()
        try:
            while self.state != "stopping":
                self.turn()
        finally:
            self.shut_down()

    def start_up(self) -> None:
        try:
            self.spool.create()
            self._lock = lock(self.config.state)
            self.ledger = Ledger(self.config.state / "ledger.sqlite3")
        except OSError as error:
            raise ConfigError(f"The folder {error.filename} cannot be used: {error.strerror}.") from error
        survive_lease_breaks()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self.jobs = Jobs(self.spool, self.ledger, self.facts, time.time)
        self.keeper = Keeper(self.config, self.mailbox.put)
        self.runner = Runner(self.config, self.spool, self.jobs, self.keeper, self.mailbox.put)
        self.intake = Intake(self.config, self.spool, self.jobs, self.runner)
        self.waker = Waker(self.spool.inbox, self.config.inbox.watch, lambda: self.mailbox.put(Wake()))
        recover(self.ledger.unfinished(), self.jobs, self.spool, self.config.inbox.after)
        self.keeper.tick(time.monotonic())
        self.state = "warming"
        log.info("watching %s", self.spool.inbox)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.mailbox.put(Quit())

    def turn(self) -> None:
        """Take what has come, then do what is due."""
        try:
            self.hear(self.mailbox.get(timeout=BUSY_S if self.runner.job else min(IDLE_S, self._sleep())))
            while True:
                self.hear(self.mailbox.get_nowait())
        except queue.Empty:
            pass
        now = time.monotonic()
        self.keeper.tick(now)
        self.runner.tick(now)
        self.look(now)
        self.begin(now)
        self.tell(now)

    def _sleep(self) -> float:
        """Until the next look that is due, so that a settled song is not kept waiting."""
        return max(0.02, min(self.intake.again, self._due["scan"]) - time.monotonic())

    def hear(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case Wake():
                self._wanted = True
            case Quit():
                self.state = "stopping"
            case Said():
                if self.keeper.hear(event, now):
                    self.runner.on_message(event.message)
                    if isinstance(event.message, Ready | Unready):
                        self._due["heartbeat"] = 0.0
            case Died():
                if self.keeper.bury(event, now):
                    self.runner.on_death(event.how)
            case SnapshotTaken():
                self.runner.on_snapshot(event)

    def look(self, now: float) -> None:
        """Scan the inbox where an event, the clock or a settling file asks for it."""
        if self.runner.job is not None and now >= self._due["cancel"]:
            self._due["cancel"] = now + CANCEL_S
            if self.runner.sees_cancel():
                self.runner.cancel(now)
                self._wanted = True
        wanted = self._wanted and now >= self._due.get("gap", 0.0)
        if not wanted and now < self._due["scan"] and now < self.intake.again:
            return
        self._wanted = False
        self._due["scan"] = now + self.config.inbox.scan_interval
        self._due["gap"] = now + WAKE_GAP_S
        self.waker.check()
        self.intake.look(now)

    def begin(self, now: float) -> None:
        """Start the next job, if the worker is warm and a job is ready."""
        if self.runner.job is not None or self.state == "stopping":
            return
        if not self.keeper.is_ready:
            if self.keeper.state in ("missing-model", "fetching"):
                self._mark(Reason.MODEL_MISSING, self.keeper.message)
            return
        if self._held:
            self._mark(Reason.QUEUED, "")
        for job in self.jobs.queue():
            if now >= self.runner.not_before.get(job.job_id, 0.0):
                self.runner.start(job)
                return

    def _mark(self, reason: Reason, message: str) -> None:
        """Show on every song in the queue why it waits."""
        self._held = reason is not Reason.QUEUED
        for job in self.jobs.queue():
            if (job.reason, job.message) != (reason, message):
                self.jobs.change(job, State.WAITING, reason=reason, message=message)

    def tell(self, now: float) -> None:
        """Heartbeat, READY, and the sign of life for systemd."""
        if not self._announced and self.keeper.is_settled:
            self._announced = True
            self.state = "ready"
            notify.send("READY=1")
            self._due["heartbeat"] = 0.0
        if now >= self._due["heartbeat"]:
            self._due["heartbeat"] = now + self.config.status.heartbeat_s
            self.beat()
        if (every := notify.watchdog_s()) is not None and now >= self._due["alive"]:
            self._due["alive"] = now + every
            notify.send("WATCHDOG=1")

    def beat(self) -> None:
        """Write `_daemon.json` and say the same in one line to systemd."""
        queue_ = self.jobs.queue()
        running = self.runner.job
        document = status.DaemonStatus(
            schema=status.SCHEMA,
            seq=self.jobs.seq(),
            interval_s=self.config.status.heartbeat_s,
            state=self.state,
            pid=os.getpid(),
            worker=self.keeper.status,
            running=running.shown if running else None,
            queue=tuple(job.shown for job in queue_),
            watch=self.waker.status,
            counts=self.jobs.counts,
            warnings=self.intake.warnings,
            daemon=self.facts,
            updated_at=self.jobs.now,
        )
        self.jobs.write(self.spool.status / DAEMON, document)
        doing = f"{running.shown}: {running.message}" if running else self.keeper.message or self.keeper.state
        notify.send(f"STATUS={doing}; {len(queue_)} waiting")

    def shut_down(self) -> None:
        """Stop within seconds: the running song waits again, the worker ends."""
        self.state = "stopping"
        notify.send("STOPPING=1")
        self.keeper.close()
        self.runner.give_back()
        self.waker.stop()
        self.beat()
        self.ledger.close()
        os.close(self._lock)
        log.info("stopped")


def lock(state: Path) -> int:
    """Take the state folder for this process. Raises ConfigError where another daemon has it."""
    state.mkdir(parents=True, exist_ok=True)
    handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(handle, 200).decode("ascii", "replace").strip()
        os.close(handle)
        raise ConfigError(
            f"{state} is used by another stemd ({owner}); each daemon needs a state folder of its own."
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()}\n".encode())
    return handle
