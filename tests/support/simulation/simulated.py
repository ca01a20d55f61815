"""A daemon in the test's own process: its clock is simulated, its worker is a script, and it can die at any trace point.

It is driven and asked as a real one is (tests/support/daemons.py), by files; only, its time goes on while a test waits for
something (`until`), and not otherwise. After each turn of its main loop, and at each trace point, `SimulatedEyes` look.
"""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from actions import act, tick
from daemons import Daemon
from demixd import config
from demixd.spool import nofollow
from demixd.supervisor import trace
from demixd.supervisor.jobs import table
from demixd.supervisor.service import IDLE_S, Quit, Reload, Service, Wake
from demixd.supervisor.workers.line import Post
from end_lines import wrong_ends
from simulated_clock import SimulatedClock
from simulated_eyes import SimulatedEyes
from simulated_songs import make_song
from simulated_worker import Script, SimulatedWorker

PATIENCE_S = 600.0
"""For how long of its own time a daemon may keep a test waiting."""


class Killed(BaseException):
    """The process ends here, as by SIGKILL."""


class Simulated(Daemon):
    """`Service` on `folder`/spool; start, stop and kill it as often as you like."""

    make_song = staticmethod(make_song)

    def __init__(self, folder: Path, **sections: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        sections = {
            **sections,
            "inbox": {"watch": "poll", "scan_interval": 0.3, **sections.get("inbox", {})},
            "status": {"heartbeat_s": 0.2, **sections.get("status", {})},
        }
        super().__init__(folder, fake=True, **sections)
        self.clock = SimulatedClock()
        self.script = Script()
        self.service: Service | None = None
        self.worker: SimulatedWorker | None = None
        """The one that was started last."""
        self.workers: list[SimulatedWorker] = []
        """All that live."""
        self.eyes = SimulatedEyes(self.spool, self.outbox, self.clock)
        self.at: dict[str, list[str | Callable[[], None]]] = {}
        """What is still to happen at each trace point, once: words of tests/support/actions.py, `kill`, or anything."""
        self.points: list[str] = []
        """The trace points that were passed."""
        self.turns = 0
        self.is_restarting = False
        """Whether it was asked to stop, and is to be started again."""
        self._is_watched = True
        self.tells_all_ends = True
        """Whether each end is told: one whose ledger was lost just before may not be."""
        self.judge = self._judge
        """Raises AssertionError where the eyes have seen something wrong."""
        self._undo = contextlib.ExitStack()

    # ---- its life

    @property
    def is_up(self) -> bool:
        return self.service is not None

    def start(self, at: dict[str, str] | None = None, **_: Any) -> "Simulated":
        """Start it; `at` is what is to happen at which trace point, in words with blanks between them."""
        for point, actions in (at or {}).items():
            self.at.setdefault(point, []).extend(actions.split())
        self._undo.close()
        self._change()
        self.eyes.start()
        self.service = Service(self._load(), self._load, clock=self.clock, start_worker=self._start_worker)
        with self._may_die():
            self.service.start_up()
        return self

    def _load(self) -> config.Config:
        return config.parse(self.config.read_text(encoding="utf-8"), str(self.config))

    def _start_worker(self, post: Post, threads: int | None = None) -> SimulatedWorker:
        self.worker = SimulatedWorker(post, self.clock, self.folder, self.script, threads)
        self.workers = [*(each for each in self.workers if each.is_alive), self.worker]
        return self.worker

    def _change(self) -> None:
        """Stand at the trace points, see each status file that is written, and give constants their other values."""
        write = table.write_whole

        def write_and_look(path: Path, data: bytes, **how: Any) -> None:
            write(path, data, **how)
            if self._is_watched:
                self.eyes.see(path)

        self._set(trace, "hook", self._pass)
        self._set(table, "write_whole", write_and_look)
        for name, value in self.constants.items():
            module, _, constant = name.partition(":")
            there = import_module(module)
            self._set(there, constant, type(getattr(there, constant))(value))
        logger, handler = logging.getLogger("demixd"), logging.FileHandler(self.log, encoding="utf-8", errors="replace")
        self._undo.callback(handler.close)
        self._undo.callback(logger.removeHandler, handler)
        logger.addHandler(handler)
        self._undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.INFO)
        self._set(logger, "propagate", False)
        before = signal.getsignal(signal.SIGIO)  # the daemon has it ignored
        self._undo.callback(signal.signal, signal.SIGIO, before)

    def _set(self, where: Any, name: str, value: Any) -> None:
        self._undo.callback(setattr, where, name, getattr(where, name))
        setattr(where, name, value)

    def _pass(self, point: str) -> None:
        self.points.append(point)
        self._see()
        for action in self.at.pop(point, []):
            if callable(action):
                action()
            elif action == "kill":
                raise Killed
            elif not act(action, self.folder):
                raise ValueError(f"what is {action}?")

    @contextlib.contextmanager
    def _may_die(self) -> Iterator[None]:
        try:
            yield
        except Killed:
            self.kill()

    def kill(self) -> None:
        """It dies as by SIGKILL: nothing is written down any more, and the kernel closes what it had open."""
        assert self.service is not None
        dead, self.service = self.service, None
        self.is_restarting = False
        bury(dead)
        self._undo.close()

    def kill_worker(self) -> None:
        if self.worker is not None:
            self.worker.die()

    def end(self) -> None:
        if self.service is not None:
            self.kill()

    def stop(self) -> int:
        """As by SIGTERM; its exit status."""
        assert self.service is not None
        self.service.mailbox.put(Quit())
        limit = self.clock.now() + 5
        while self.service is not None:
            self.turn()
            assert self.clock.now() < limit, "it does not stop"
        return 0

    def restart(self) -> None:
        """As by SIGTERM, and a start as soon as it has ended; both come as time goes on."""
        assert self.service is not None
        self.service.mailbox.put(Quit())
        self.is_restarting = True

    def _shut_down(self) -> None:
        """The main loop has ended: it was asked to stop."""
        assert self.service is not None
        with self._may_die():
            self.service.shut_down()
        self._see()
        self.service = None
        self._undo.close()
        if self.is_restarting:
            self.is_restarting = False
            self.start()

    def look_away(self) -> None:
        """Somebody does to its files what nobody should: from now on they are not looked at."""
        self._is_watched = False

    def reload(self) -> None:
        """As by SIGHUP."""
        assert self.service is not None
        self.service.mailbox.put(Reload())

    def wake(self) -> None:
        """An event of the inbox comes, which makes it look soon."""
        assert self.service is not None
        self.service.mailbox.put(Wake())

    # ---- its time

    def turn(self) -> None:
        """One round of its main loop."""
        assert self.service is not None
        self.turns += 1
        with self._may_die():
            self.service.turn()
        self._look()
        if self.service is not None and self.service._is_stopping:
            self._shut_down()

    def _see(self) -> None:
        if self._is_watched:
            self.eyes.look()

    def _look(self) -> None:
        self._see()
        if self._is_watched and self.service is not None:
            self.eyes.look_at_heartbeat(self.service.config.status.heartbeat_s + IDLE_S)
        self.judge()

    def _judge(self) -> None:
        if self.eyes.wrong:
            raise AssertionError("\n".join(self.eyes.wrong))

    def until(self, condition: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S) -> Any:
        """Let time go on until `condition` gives something."""
        limit = self.clock.now() + within_s
        while not (found := condition()):
            if self.service is None:
                raise AssertionError(f"the daemon ended before: {what}")
            if self.clock.now() > limit:
                raise AssertionError(f"not in {within_s} s: {what}")
            self.turn()
        return found

    def sleep(self, seconds: float) -> None:
        """Let so much of its time go by."""
        end = self.clock.now() + seconds
        while self.service is not None and self.clock.now() < end:
            self.turn()
        self.clock.sleep(max(0.0, end - self.clock.now()))

    def pause(self, seconds: float) -> None:
        """Daemon and worker stand still for so long, and go on."""
        self.clock.pause(seconds)
        self.eyes.start()
        self.turn()

    def ready(self) -> "Simulated":
        assert self.service is not None
        instance = self.service._facts.instance
        self.until(
            lambda: (
                (told := self.read("_daemon.json")).get("daemon", {}).get("instance") == instance
                and told["state"] == "ready"
            ),
            "ready",
        )
        return self

    def quiet(self, looks: int = 3) -> None:
        """Let time go on until it has nothing left to do, also after some more looks."""
        scans_s = looks * min(20.0, self.service.config.inbox.scan_interval) if self.service else 0.0
        calm_s, limit = 0.0, self.clock.now() + PATIENCE_S
        while self.service is not None and calm_s < scans_s:
            before = self.clock.now()
            if before > limit:
                raise AssertionError(f"there is something to do still: {self.unfinished()}, {self._to_do()}")
            self.turn()
            calm_s = calm_s + self.clock.now() - before if not self._to_do() else 0.0
        if self._is_watched:
            self.eyes.look_closely()
            self.eyes.wrong += wrong_ends(self.spool / "status", is_whole=self.tells_all_ends)
        if self.service is None or self.works() or self.unfinished():
            raise AssertionError(f"is it up? {self.is_up}; left are {self.works()}, {self.unfinished()}")
        self.judge()

    def _to_do(self) -> list[str]:
        """What it has to do still, by what it knows itself."""
        if self.service is None or self.is_restarting:
            return ["start"]
        if not self.service._is_open or not self.service._access.is_whole or not self.service.pool.best.is_ready:
            return [*self.service.folders.missing, self.service.pool.best.state]
        jobs = self.service.jobs
        waiting = (*jobs.active.values(), *jobs.successors.values())
        return [f"{job.shown}: {job.state} {job.reason}" for job in waiting]

    def until_dead(self) -> None:
        """Let time go on until it dies by a `kill`."""
        limit = self.clock.now() + PATIENCE_S
        while self.service is not None:
            assert self.clock.now() < limit, "it does not die"
            self.turn()

    def tick(self) -> None:
        """The clock of the filesystem moves on."""
        tick(self.folder)


def bury(service: Service) -> None:
    """End the threads of a service whose process has died, and close what it had open."""
    service.break_off()
    service._ledger.close()
    for handle in service._locks._held.values():
        nofollow.close(handle)


@contextlib.contextmanager
def simulated(folder: Path, **sections: dict[str, Any]) -> Iterator[Simulated]:
    """A daemon that is ready, and is stopped afterwards."""
    daemon = Simulated(folder, **sections)
    try:
        daemon.start()
        yield daemon.ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()
