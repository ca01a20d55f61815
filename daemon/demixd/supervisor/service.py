"""The supervisor's life: startup, main loop, shutdown. One thread decides everything; it never waits for long.

Signals, file events, the worker's lines and the end of a snapshot are put into one queue; the loop takes them in turn,
and between them does what time asks for.

    starting -> warming -> ready -> stopping
       |  the folders are there, no other daemon has them, every job of a former life has been brought to its place
       |__ until then nothing is taken, made or moved; a folder that goes away later holds the queue as well
"""

import logging
import os
import queue
import signal
import time
import uuid
from collections.abc import Callable
from types import FrameType

from demixd.config import Config
from demixd.errors import ConfigError, StateError
from demixd.protocol import status
from demixd.spool.leases import survive_lease_breaks
from demixd.spool.mounts import Root
from demixd.spool.tree import DAEMON, Spool
from demixd.supervisor import journal, notify
from demixd.supervisor.folders import Folders
from demixd.supervisor.inbox.cancels import Cancels
from demixd.supervisor.inbox.intake import Intake
from demixd.supervisor.inbox.leftovers import Leftovers
from demixd.supervisor.inbox.readiness import Trust
from demixd.supervisor.inbox.recheck import Recheck
from demixd.supervisor.inbox.scan import NOTHING, Listing, scan
from demixd.supervisor.inbox.watch import InboxWatch
from demixd.supervisor.jobs import rebuild, retention
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.locks import Locks
from demixd.supervisor.runs import ending
from demixd.supervisor.runs.disk_thread import ResultChecked, SnapshotTaken
from demixd.supervisor.runs.recovery import recover
from demixd.supervisor.runs.runner import Runner
from demixd.supervisor.runs.scheduler import Scheduler
from demixd.supervisor.workers.manager import WorkerManager
from demixd.supervisor.workers.process import Died, Said
from demixd.version import __version__
from demixd.worker.messages import Ready, Unready

log = logging.getLogger(__name__)

BUSY_S, IDLE_S = 0.25, 1.0
"""How long the loop sleeps at most while a job runs, and otherwise."""

CANCEL_S = 0.5
"""How often cancel files are looked for while a job runs, events or not."""

PLACES_S = 2.0
"""How often the folders are looked for."""

FULL_S = 60.0
"""While every folder is watched, no event was lost and nothing waits or runs, a look that the clock asks for goes by names
and inodes; the kernel is asked for each of perhaps 10,000 old files once in this time."""

DOUBT_S = 1.0
"""When to look again at a folder that is not watched: it may have come just now."""

WAKE_GAP_S = 0.2
"""Events come in swarms; one look serves all that come within this."""

HOLD_S = 0.5
"""How long to wait before a ledger that could not be written is tried again."""


class Wake:
    """Something in the inbox has changed."""


class Quit:
    """Stop, by signal."""


class Reload:
    """Read the configuration again, by signal."""


Event = Wake | Quit | Reload | Said | Died | SnapshotTaken | ResultChecked


class Service:
    """One daemon on one spool. `load` reads the configuration anew, or raises ConfigError."""

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        self.config = config
        self._load = load
        self.spool = Spool(config)
        self.mailbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.facts = status.DaemonFacts(instance=uuid.uuid4().hex, version=__version__)
        self.state = "starting"
        self._due = dict.fromkeys(("scan", "gap", "full", "cancel", "places", "heartbeat", "alive", "sweep"), 0.0)
        self._wanted = True
        self._missing: frozenset[str] = frozenset({"not looked"})
        self._root: Root | None = None
        self._listing = NOTHING
        self._is_settled = False
        """Whether nothing can come of the last listing any more, as long as it stays the same."""
        self._open = False
        self._announced = False
        self._warnings: tuple[str, ...] = ()
        self._trouble: tuple[str, ...] = ()
        self._unlocked: tuple[str, ...] = ()
        self._is_asked_to_stop = False

    def run(self) -> None:
        """From start to stop. Raises ConfigError where the folders cannot be used, StateError where the ledger cannot."""
        self.start_up()
        try:
            while self.state != "stopping":
                self.turn()
            self.shut_down()
        except BaseException:
            self.break_off()
            raise

    # ---- startup

    def start_up(self) -> None:
        self.locks = Locks(self.config.state, self.spool, self.facts.instance)
        try:
            self.config.state.mkdir(parents=True, exist_ok=True)
            self.locks.take("state")
            self.ledger = rebuild.open_ledger(self.config.state)
        except OSError as error:
            raise ConfigError(f"The folder {error.filename} cannot be used: {error.strerror}.") from error
        survive_lease_breaks()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self.jobs = JobTable(self.spool, self.ledger, self.facts, time.time)
        self.folders = Folders(self.spool, self.ledger)
        self.jobs.device = lambda: self.workers.engine.device if self.workers.engine else None
        self.jobs.keep_alive = lambda: self.live(time.monotonic())
        self.jobs.is_away = self.folders.are_away_for
        self.trust = Trust()
        self.recheck = Recheck(self.spool.inbox, self._wake)
        self.workers = WorkerManager(self.config, self.mailbox.put)
        self.runner = Runner(self.config, self.spool, self.jobs, self.folders, self.workers, self.mailbox.put)
        self.intake = Intake(self.config, self.spool, self.jobs, self.folders, self.trust, self.recheck)
        self.cancels = Cancels(self.config, self.spool, self.jobs, self.runner)
        self.leftovers = Leftovers(self.spool, self.jobs)
        self.calendar = retention.Calendar(self.ledger)
        self.watch = InboxWatch(self.spool.inbox, self._wake)
        self._told_watch = self.watch.status
        self.scheduler = Scheduler(self.jobs, self.runner, self.workers, self.folders)
        self.ledger.in_trouble = self._hold
        self.workers.tick(time.monotonic(), busy=False)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # A terminal that is closed takes what runs in it along; nobody asks for another configuration so.
        is_reload = number == signal.SIGHUP and not os.isatty(0)
        self._is_asked_to_stop = self._is_asked_to_stop or not is_reload
        self.mailbox.put(Reload() if is_reload else Quit())

    def _hold(self, reason: str) -> None:
        """The ledger cannot be written: nothing goes on, since nothing could be promised, until it can be, or a stop."""
        sentence = f"The ledger in {self.config.state} cannot be written: {reason}."
        if self._is_asked_to_stop:
            raise StateError(sentence)
        if sentence not in self._trouble:
            log.error("%s The daemon waits.", sentence)
            self._due["heartbeat"] = 0.0
        self._trouble = (sentence,)
        self.live(time.monotonic())
        time.sleep(HOLD_S)

    def _wake(self) -> None:
        self.mailbox.put(Wake())

    # ---- main loop

    def turn(self) -> None:
        """Take what has come, then do what is due."""
        self._trouble = ()
        try:
            self.hear(self.mailbox.get(timeout=min(BUSY_S if self.runner.in_flight else IDLE_S, self._sleep())))
            full = time.monotonic() + BUSY_S  # a worker may talk faster than anyone can listen
            while time.monotonic() < full:
                self.hear(self.mailbox.get_nowait())
        except queue.Empty:
            pass
        if self.state == "stopping":
            return
        now = time.monotonic()
        if self.workers.is_outdated and not self.runner.in_flight:
            self.workers.renew(now)
        self.workers.tick(now, busy=bool(self.runner.in_flight or self.jobs.queue_length))
        self.runner.tick(now)
        self.find_places(now)
        if self._open:
            self.look(now)
            if self._missing == self.folders.missing.keys():  # what has come back since is not locked yet
                self.scheduler.begin(now)
        self.tell(now)

    def _sleep(self) -> float:
        """Until what is due next: a look, so that a settled song is not kept waiting, or a heartbeat."""
        due = (self._due[what] for what in ("scan", "places", "heartbeat"))
        return max(0.02, min(self.intake.again, *due) - time.monotonic())

    def hear(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case Wake():
                self._wanted = True
            case Quit():
                self.state = "stopping"
            case Reload():
                self.reload(now)
            case Said() if self.workers.hear(event, now):
                self.runner.on_message(event.message)
                if isinstance(event.message, Ready | Unready):
                    self._due["heartbeat"] = 0.0
            case Died() if self.workers.bury(event, now):
                self.runner.on_death(event.how)
            case SnapshotTaken():
                self.runner.on_snapshot(event)
            case ResultChecked():
                self.runner.on_result(event)

    def reload(self, now: float) -> None:
        """Read the configuration again and go by it; one that cannot be used changes nothing."""
        if self._announced:
            notify.reloading()
        try:
            fresh = self._load()
            if fresh.paths != self.config.paths:
                raise ConfigError("[paths] has changed, which only a restart can take over")
        except ConfigError as error:
            log.error("The configuration was not read again, the old one stays: %s", error)
        else:
            self._reconfigure(fresh, now)
            log.info("the configuration was read again")
        if self._announced:
            notify.send("READY=1")
            self._due["heartbeat"] = 0.0

    def _reconfigure(self, config: Config, now: float) -> None:
        """Songs in flight end as they have begun, and songs in the queue keep their options."""
        self.config = config
        journal.set_level(config.log.level)
        self.workers.reconfigure(config, now)
        self.runner.reconfigure(config)
        self.intake.reconfigure(config)
        self.cancels.reconfigure(config)
        self._wanted, self._is_settled = True, False

    def find_places(self, now: float) -> None:
        """See whether the folders are there; once they all are, and again when one has come back, open up."""
        if now < self._due["places"]:
            return
        self._due["places"] = now + min(PLACES_S, self.config.inbox.scan_interval)
        self.folders.look()
        before, self._missing = self._missing, frozenset(self.folders.missing)
        if self.folders.root != self._root:
            self._root = self.folders.root
            self.trust.renew(self.spool.inbox)
            self._listing, self._is_settled, self._wanted = NOTHING, False, True
        self._watch()
        if self._missing != before:
            self._due["heartbeat"] = 0.0
            if self.ledger.is_empty and "status" not in self._missing:
                self.ledger.count_on(rebuild.starts(self.spool.status))
        are_new = self._lock(before, now)
        if self._missing:
            return
        if not self._open:
            self._open_up()
        elif before or are_new:
            self._come_back()
        self.spool.tidy(self.runner.at_work | self.jobs.unfinished_ends.keys())

    def _watch(self) -> None:
        """See whether events still come."""
        self.watch.check(self.config.inbox.watch, self.folders.root, self.trust.mount)

    def _lock(self, before: frozenset[str], now: float) -> bool:
        """Lock what is there; whether it is another folder than before. `locks` are missing where that cannot be."""
        are_new = are_ours = False
        self._unlocked = ()
        try:
            are_new = self.locks.take(*self.folders.lockable)
            are_ours = self.locks.judge_rival(now)
        except OSError as error:
            self._unlocked = (
                f"{error.filename} cannot be locked: {error.strerror}; demixd goes on by itself once it can.",
            )
            if "locks" not in before:
                log.error("%s", *self._unlocked)
        if not are_ours:
            self._missing |= {"locks"}
        return are_new

    def _open_up(self) -> None:
        """Everything is there for the first time: bring every job to its place, and begin."""
        if self.ledger.is_empty:
            rebuild.rebuild(self.ledger, self.spool)
        recover(self.ledger.unfinished(), self.jobs, self.spool, self.config.inbox.after)
        self._open = True
        self.state = "warming"
        log.info("watching %s", self.spool.inbox)

    def _come_back(self) -> None:
        """What was away is there again: what could not be shown or finished is."""
        self.jobs.write_sidecars()
        self.leftovers.forget()
        self.spool.doubt()
        self._wanted, self._is_settled = True, False

    def look(self, now: float) -> None:
        """Scan the inbox where an event, the clock or a settling file asks for it."""
        if self.runner.in_flight and now >= self._due["cancel"]:
            self._due["cancel"] = now + CANCEL_S
            if self.runner.look_for_cancels(now):
                self._wanted = True
        wanted = self._wanted and now >= self._due["gap"]
        if not wanted and now < self._due["scan"] and now < self.intake.again:
            return
        self._wanted = False
        self._due["scan"] = now + self.config.inbox.scan_interval
        self._due["gap"] = now + WAKE_GAP_S
        before = self._listing
        if not self._list(now, by_name=self._is_settled and not wanted and now < self._due["full"]):
            self._is_settled = False
            return
        if not self._is_settled or self._listing is not before:
            self._serve(self._listing, now)
        if now >= self._due["sweep"]:
            self._due["sweep"] = now + retention.EVERY_S
            keep_s = self.config.status.keep_days * retention.DAY_S
            older_than = self.calendar.before(time.time(), retention.uptime(), keep_s)
            if older_than is not None:
                retention.sweep(self.spool, self.jobs, older_than)

    def _serve(self, listing: Listing, now: float) -> None:
        """Bring everything up to what lies in the inbox."""
        self.intake.look(listing, now)
        for job in list(self.jobs.unfinished_ends.values()):
            if not self.folders.are_away_for(job.name):
                ending.conclude(job, self.jobs, self.spool, self.config.inbox.after)
        told = self.cancels.look(listing, self.intake.fresh, now)
        self.leftovers.look(listing, told)
        self._is_settled = not (self.jobs.active or self.jobs.successors or listing.cancels) and self.intake.is_settled

    def _list(self, now: float, *, by_name: bool) -> bool:
        """See what lies in the inbox; False where it cannot be read, or became another folder meanwhile."""
        self.folders.look()
        root = self.folders.root
        self._watch()
        if "inbox" in self.folders.missing:
            return False
        by_name = by_name and self.watch.tells_all()
        if not by_name:
            self._due["full"] = now + FULL_S
        try:
            listing = scan(
                self.spool.inbox, recursive=self.config.inbox.recursive, before=self._listing, by_name=by_name
            )
        except OSError as error:
            self._warnings = (f"The inbox {self.spool.inbox} cannot be read: {error.strerror}.",)
            return False
        self._warnings = ()
        self.folders.look()
        if self.folders.root != root:
            return False
        self._listing = listing
        if not self.watch.compare(listing.folders, now):
            self._due["scan"] = min(self._due["scan"], now + DOUBT_S)
        return True

    def tell(self, now: float) -> None:
        """Once what can be done is done: READY."""
        if not self._announced and self.workers.is_settled and (self._open or self.folders.missing):
            self._announced = True
            notify.send("READY=1")
            self._due["heartbeat"] = 0.0
        if self._announced and self._open and self.state == "warming":
            self.state = "ready"
            self._due["heartbeat"] = 0.0
        if self.watch.status != self._told_watch:
            self._told_watch = self.watch.status
            self._due["heartbeat"] = 0.0
        self.live(now)

    def live(self, now: float) -> None:
        """Heartbeats, and signs of life from the very loop that does the work, in between of it as well."""
        if now >= self._due["heartbeat"]:
            self._due["heartbeat"] = now + self.config.status.heartbeat_s
            self.beat()
        if (every := notify.watchdog_s()) is not None and now >= self._due["alive"]:
            self._due["alive"] = now + every
            notify.send("WATCHDOG=1")

    def beat(self) -> None:
        """Write `_daemon.json` and say the same in one line to systemd."""
        queued = self.jobs.queue()
        in_flight = tuple(status.JobName(job_id=job.job_id, name=job.shown) for job in self.runner.in_flight)
        document = status.DaemonStatus(
            schema=status.SCHEMA,
            seq=self.jobs.seq(),
            interval_s=self.config.status.heartbeat_s,
            state=self.state,
            pid=os.getpid(),
            worker=self.workers.status,
            running=in_flight[0] if in_flight else None,
            in_flight=in_flight,
            queue=tuple(status.JobName(job_id=job.job_id, name=job.shown) for job in queued),
            watch=self.watch.status,
            counts=self.jobs.counts,
            warnings=(*self._trouble, *self._unlocked, *self.folders.warnings, *self._warnings, *self.trust.warnings),
            version=__version__,
            daemon=self.facts,
            updated_at=self.jobs.now,
        )
        if "status" not in self.folders.missing and self.locks.holds("status") and self.locks.rival is None:
            self.jobs.write(self.spool.status / DAEMON, document)
        notify.send(f"STATUS={self._doing()}; {len(queued)} waiting")

    def _doing(self) -> str:
        if self._trouble or self._unlocked:
            return (*self._trouble, *self._unlocked)[0]
        if self.locks.rival is not None:
            return f"waiting to see whether {self.locks.rival} still uses {self.spool.status}"
        if self.folders.missing:
            return next(iter(self.folders.missing.values()))
        running = self.runner.in_flight
        if running:
            return "; ".join(f"{job.shown}: {job.message}" for job in running)
        return self.workers.message or self.workers.state

    # ---- shutdown

    def break_off(self) -> None:
        """End as by a crash: whatever is not in the ledger yet is for the next start to find out, which knows how."""
        self.workers.close()
        self.runner.abandon()
        self.recheck.stop()
        self.watch.close()

    def shut_down(self) -> None:
        """Stop within seconds: the songs in flight wait again, the worker ends."""
        self.state = "stopping"
        notify.send("STOPPING=1")
        self.workers.close()
        self.runner.give_back()
        self.recheck.stop()
        self.watch.close()
        self.beat()
        self.ledger.close()
        self.locks.release()
        log.info("stopped")
