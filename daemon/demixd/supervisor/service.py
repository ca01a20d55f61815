"""The supervisor's life: startup, main loop, shutdown. One thread decides everything; it never waits for long.

Signals, file events, the worker's lines and the end of a snapshot are put into one mailbox; the loop takes them in turn,
and between them does what time asks for.

    starting -> warming -> ready -> stopping
       |  the folders are there, no other daemon has them, every job of a former life has been brought to its place
       |__ until then nothing is taken, made or moved; a folder that goes away later holds the queue as well
"""

import contextlib
import logging
import os
import queue
import signal
import uuid
from collections.abc import Callable
from types import FrameType
from typing import Any

from demixd.config import Config
from demixd.errors import ConfigError, StateError, StopProcessingError
from demixd.protocol import status
from demixd.spool import private
from demixd.spool.leases import survive_lease_breaks
from demixd.spool.tree import Spool
from demixd.supervisor import journal, notify
from demixd.supervisor.access import Access, Change
from demixd.supervisor.clock import AwakeClock, Clock, SystemClock
from demixd.supervisor.folders import Folders
from demixd.supervisor.heartbeat import Heartbeat
from demixd.supervisor.inbox.poller import Poller
from demixd.supervisor.jobs import rebuild, retention
from demixd.supervisor.jobs.pause import Pause
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.locks import Locks
from demixd.supervisor.runs.cancel_file import CancelFiles
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import ResultChecked, SnapshotTaken
from demixd.supervisor.runs.ending import Ending
from demixd.supervisor.runs.recovery import recover
from demixd.supervisor.runs.runner import Runner
from demixd.supervisor.runs.scheduler import Scheduler
from demixd.supervisor.workers.line import Died, Said, StartWorker
from demixd.supervisor.workers.pool import Pool
from demixd.supervisor.workers.ray import restarting, starter
from demixd.version import __version__
from demixd.worker.messages import Ready, Unready

log = logging.getLogger(__name__)

BUSY_S, IDLE_S = 0.25, 1.0
"""How long the loop sleeps at most while a job runs, and otherwise."""

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
    """One daemon on one spool.

    `load` reads the configuration anew from `file`, or raises ConfigError. `clock` is the time, and `start_worker` makes a
    worker that posts what it says; tests have both of their own.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        *,
        file: str = "",
        clock: Clock | None = None,
        start_worker: StartWorker | None = None,
    ) -> None:
        self.config, self._load, self._file = config, load, file
        self._clock = AwakeClock(clock or SystemClock())
        self._start_worker = start_worker or starter(config)
        self.spool = Spool(config)
        self.mailbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._facts = status.DaemonFacts(instance=uuid.uuid4().hex, version=__version__)
        self._locks = Locks(config.state, self.spool, self._facts.instance, config.status.heartbeat_s)
        self._heartbeat: Heartbeat | None = None
        self._is_open = self._is_asked_to_stop = self._is_stopping = False
        self._is_on_terminal = os.isatty(0)  # asked at the start: a terminal that has been closed is none any more

    def run(self) -> None:
        """From start to stop. Raises ConfigError where the folders cannot be used, StateError where the ledger cannot."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # `__main__` has kept it until now
        self.start_up()
        try:
            with contextlib.suppress(StopProcessingError):
                while not self._is_stopping:
                    self.turn()
            self.shut_down()
        except BaseException:
            self.break_off()
            raise

    # ---- startup

    def start_up(self) -> None:
        """Take the state folder, open the ledger, and put the parts together; nothing of the spool is touched yet."""
        try:
            private.keep(self.config.state)
            self._locks.take("state")
            self._ledger = rebuild.open_ledger(self.config.state, self._hold)
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be used: {notify.reason(error)}.") from error
        survive_lease_breaks()
        self.pool = Pool(self.config, self.mailbox.put, self._start_worker)
        told: dict[str, Any] = {"devices": lambda: self.pool.devices, "keep_alive": self._keep_alive}
        self.jobs = JobTable(self.spool, self._ledger, self._facts, self._clock.wall, **told)
        self.folders = Folders(self.spool, self._ledger)
        self._access = Access(self.config, self.folders, self._locks)
        cancel_files = CancelFiles(self.spool, self._ledger)
        self._ending = Ending(self.config, self.spool, self.jobs, self.folders, cancel_files)
        self._context = Context(
            config=self.config,
            clock=self._clock,
            spool=self.spool,
            jobs=self.jobs,
            folders=self.folders,
            pause=Pause(self.config, self.spool, self._clock),
            cancel_files=cancel_files,
            ending=self._ending,
            pool=self.pool,
            worker=self.pool.best,
            post=self.mailbox.put,
        )
        self.runner = Runner(self._context)
        self._scheduler = Scheduler(self._context, self.runner)
        self._poller = Poller(self.config, self._context, self.runner, self._ledger, lambda: self.mailbox.put(Wake()))
        self._retention = retention.Retention(self.spool, self.jobs, self._clock, self._ledger, self.folders)
        self._heartbeat = Heartbeat(
            self.config,
            self._context,
            self._locks,
            self._facts,
            self._file,
            watch=lambda: self._poller.watch,
            warnings=lambda: (*self._poller.warnings, *self._ledger.warnings),
        )
        self.pool.tick(self._clock.now(), busy=set(), waiting=False)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # A terminal that is closed takes what runs in it along; nobody asks for another configuration so.
        is_reload = number == signal.SIGHUP and not self._is_on_terminal
        self._is_asked_to_stop = self._is_asked_to_stop or not is_reload
        self.mailbox.put(Reload() if is_reload else Quit())

    def _keep_alive(self) -> None:
        self._beating.live(self._clock.now())

    def _go_on(self) -> None:
        """Keep alive within a walk over what others may fill; a stop ends it."""
        self._keep_alive()
        if self._is_asked_to_stop:
            raise StopProcessingError

    @property
    def _beating(self) -> Heartbeat:
        assert self._heartbeat is not None, "start_up comes first"
        return self._heartbeat

    def _hold(self, reason: str) -> None:
        """The ledger cannot be written, so nothing can be promised: wait until it can be, or for a stop."""
        sentence = f"The ledger in {self.config.state} cannot be written: {reason}."
        if self._is_asked_to_stop or self._heartbeat is None:
            raise StateError(sentence)
        if sentence not in self._heartbeat.obstacles:
            log.error("%s The daemon waits.", sentence)
            self._heartbeat.soon()
        self._heartbeat.obstacles = (sentence, *self._access.obstacles)
        self._keep_alive()
        self._clock.sleep(HOLD_S)

    # ---- main loop

    def turn(self) -> None:
        """Take what has come, then do what is due."""
        self._beating.obstacles = self._access.obstacles
        self._take_mail()
        if self._is_stopping:
            return
        now = self._clock.now()
        self.pool.tick(now, busy=self.runner.busy, waiting=self._scheduler.has_songs)
        self.runner.tick(now)
        if now >= self._access.due:
            self._find_folders(now)
        if self._is_open:
            self._poller.look(now)
            self._retention.look(now, self.config, self._go_on)
            if self._access.is_current:
                self._scheduler.begin(now)
        self._beating.tell(now, is_open=self._is_open)

    def _take_mail(self) -> None:
        """Wait for an event until something is due, then hear all that have come."""
        try:
            self._hear(self._clock.receive(self.mailbox, min(BUSY_S if self.jobs.running else IDLE_S, self._sleep_s())))
            full = self._clock.now() + BUSY_S  # a worker may talk faster than anyone can listen
            while self._clock.now() < full:
                self._hear(self.mailbox.get_nowait())
        except queue.Empty:
            pass

    def _sleep_s(self) -> float:
        """How long nothing is due: neither a look at the inbox, nor at the folders, nor a heartbeat."""
        return max(0.02, min(self._poller.look_at, self._access.due, self._beating.due) - self._clock.now())

    def _hear(self, event: Event) -> None:
        now = self._clock.now()
        match event:
            case Wake():
                self._poller.want()
            case Quit():
                self._is_stopping = True
            case Reload():
                self._reload(now)
            case Said() if (worker := self.pool.on_message(event, now)) is not None:
                self.runner.on_message(worker, event.message)
                if isinstance(event.message, Ready | Unready):
                    self._beating.soon()
            case Died() if (worker := self.pool.on_death(event, now)) is not None:
                self.runner.on_death(worker, event)
            case SnapshotTaken():
                self.runner.on_snapshot(event)
            case ResultChecked():
                self.runner.on_result(event)

    def _reload(self, now: float) -> None:
        """Read the configuration again and go by it; one that cannot be used changes nothing."""
        with self._beating.reloading():
            try:
                fresh = self._load()
                if part := restarting(self.config, fresh):
                    remedy = notify.remedy() if part == "[paths]" else ""
                    raise ConfigError(f"{self._file}: {part} has changed, which only a restart can take over{remedy}")
            except ConfigError as error:
                self._beating.refuse(str(error))
            else:
                self._reconfigure(fresh, now)
                for sentence in ("the configuration was read again", *self.pool.put_off(self.runner.busy)):
                    log.info("%s", sentence)

    def _reconfigure(self, config: Config, now: float) -> None:
        """Go by another configuration; songs in flight end as they have begun, queued songs keep their options."""
        self.config = config
        journal.set_level(config.log.level)
        self.pool.reconfigure(config, now)
        self.runner.reconfigure(config)
        self._ending.reconfigure(config)
        self._poller.reconfigure(config)
        self._beating.reconfigure(config)

    def _find_folders(self, now: float) -> None:
        """See whether the folders are there; once they all are, and again when one has come back, open up."""
        change = self._access.look(now)
        self._poller.find_root()
        self._beating.obstacles = self._access.obstacles
        if change is not Change.NOTHING:
            self._beating.soon()
            if self._ledger.is_empty and "status" not in self.folders.missing:
                rebuild.count_starts(self._ledger, self.spool.status, self._go_on)
        if change is Change.WHOLE:
            self._come_back() if self._is_open else self._open_up()
        if self._access.is_whole:
            self.spool.tidy(self.runner.at_work | self._ending.unfinished.keys() | self._ledger.foreign.keys())

    def _open_up(self) -> None:
        """Every folder is there for the first time: bring each job of a former life to its place, and begin."""
        if self._ledger.is_empty:
            rebuild.rebuild(self._ledger, self.spool, self._go_on)
        recover(self._ledger.unfinished(), self._context)
        self._is_open = True
        self._beating.state = "warming"
        log.info("watching %s", self.spool.inbox)

    def _come_back(self) -> None:
        """A missing folder has returned: write the sidecars, and finish the jobs that waited for it."""
        self.jobs.write_sidecars()
        self.spool.doubt()
        self._poller.come_back()

    # ---- shutdown

    def break_off(self) -> None:
        """End as by a crash; the next start finds out what is not in the ledger yet."""
        self.pool.close()
        self.runner.abandon()
        self._poller.stop()

    def shut_down(self) -> None:
        """Stop within seconds: the songs in flight wait again, the worker ends."""
        self._beating.state = "stopping"
        notify.send("STOPPING=1")
        self.pool.close()
        self.runner.give_back()
        self._poller.stop()
        self._beating.beat()
        self._ledger.close()
        self._locks.release()
        log.info("stopped")
