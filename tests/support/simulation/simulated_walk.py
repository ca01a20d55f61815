"""The random walk (tests/support/walks) over a simulated daemon: a thousand steps in a few seconds, the same for one seed.

What a real walk can do happens here too, and more: at a trace point, in the middle of a job; the daemon dies at one; the
worker fails, lies and stalls as a script says; status/ and done/ go away as well; the time of day is put right.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from demixd.errors import Code
from points import POINTS
from simulated import Killed, Simulated
from simulated_songs import make_song
from walk import ViolationError, Walk
from walk_actions import NAMES, cancel, cancel_all, clutter, delete, drop, drop_again, drop_duplicate, take

RESULTS = 12
"""So many results are left when the walk rests."""

AT_POINTS = (drop, drop_duplicate, drop_again, drop_again, delete, cancel, cancel, cancel_all, clutter, take)
"""What somebody may do while the daemon stands at a trace point."""

SCRIPTED = (
    "die",
    "stall",
    "babble",
    "lie",
    Code.BAD_AUDIO,
    Code.INTERNAL_ERROR,
    Code.NO_SPACE,
    Code.TRUNCATED,
    Code.IO_ERROR,
)


class SimulatedWalk(Walk):
    """`seed` draws what is done, by two workers where it is odd; `again` says how the same walk is gone once more."""

    daemon: Simulated

    def __init__(self, folder: Path, seed: int, again: str = "") -> None:
        self._devices = ["cpu"] * (1 + seed % 2)
        super().__init__(folder, seed)
        self._again = again
        self.daemon.constants |= {"demixd.supervisor.workers.patience:STALL_FLOOR_S": 5.0}
        self.eyes = self.daemon.eyes
        self.daemon.judge = self._judge
        self.may_go = tuple(self.daemon.spool / name for name in ("inbox", "outbox", "status", "done"))
        self._is_at_point = self._is_arriving = False
        self._deaths = self._handles = 0

    def configured(self) -> Simulated:
        return Simulated(
            self.folder,
            model={"device": self._devices},
            inbox={"settle": 0.2, "scan_interval": 0.2, "after": self.model.after},
            status={"heartbeat_s": 1.0},
            limits={"cancel_grace_s": 1.0, "truncated_grace_s": 1.5},
            defaults={"stems": self.stems},
            **{"profiles.karaoke": {"stems": ["vocals"]}},
        )

    @contextlib.contextmanager
    def begun(self) -> Iterator["SimulatedWalk"]:
        try:
            self.daemon.start().ready()
            yield self
            assert self.daemon.stop() == 0
            self._judge()
        finally:
            self.daemon.end()

    # ---- steps

    def step(self) -> None:
        if not self.is_up and self.random.random() < 0.5:
            self.daemon.start()
        if self.random.random() < 0.25:
            self.steps += 1
            self.story.append(
                f"{self.steps}: {self.random.choice((self._plan, self._plan, self._script, self._odd))()}"
            )
        else:
            super().step()

    def _plan(self) -> str:
        """Something is to happen at a trace point, whichever job comes by."""
        point = self.random.choice(POINTS)
        if self.random.random() < 0.3:
            self.daemon.at.setdefault(point, []).append(self._die)
            return f"at {point} it will die"
        action = self.random.choice(AT_POINTS)
        self.daemon.at.setdefault(point, []).append(partial(self._do_at_point, point, action))
        return f"at {point}: {action.__name__}"

    def _do_at_point(self, point: str, action: Callable[[Walk], str]) -> None:
        if self._is_arriving:
            return  # the model hears of a drop once it is there whole
        self._is_at_point = True
        told = action(self)
        self._is_at_point = False
        self.story.append(f"{self.steps}, at {point}: {told or 'nothing, for it could not be done'}")

    def _die(self) -> None:
        self.model.kill()
        self._deaths += 1
        self.story.append(f"{self.steps}: it dies at a point")
        raise Killed

    def _script(self) -> str:
        """The worker is to fail with the next song of a name."""
        leaf, what = self.random.choice(NAMES).rpartition("/")[2], self.random.choice(SCRIPTED)
        self.daemon.script.put(leaf, what)
        self.model.script(leaf, what)
        return f"the worker will {what} with {leaf!r}"

    def _odd(self) -> str:
        """The time of day is put right, or an event comes for nothing."""
        if self.is_up and self.random.random() < 0.5:
            self.daemon.wake()
            return "an event"
        seconds = self.random.choice((-86_400.0, -5.0, 5.0, 86_400.0))
        self.daemon.clock.put_right(seconds)
        return f"the time of day is put right by {seconds} s"

    def rest(self) -> None:
        self.daemon.at.clear()
        self.daemon.script.of.clear()
        super().rest()
        self.model.forget_script()
        for where in ("done", "failed"):
            for path in (self.daemon.spool / where).rglob("*"):
                if path.is_file():
                    path.unlink()

    def _is_crowded(self) -> bool:
        return len(self.eyes.results) > RESULTS

    def _judge(self) -> None:
        try:
            super()._judge()
        except ViolationError as error:
            raise ViolationError(f"{error}\nthe same again: {self._again}") from None

    # ---- what is done to the daemon

    @property
    def is_up(self) -> bool:
        return self.daemon.is_up

    def sleep(self, seconds: float) -> None:
        if not self._is_at_point:
            self.daemon.sleep(seconds)

    def fill(self) -> str:
        full = self.folder / "full"
        if full.exists():
            full.unlink()
            return "the disk has room again"
        full.touch()
        return "the disk is full"

    def kill_worker(self) -> bool:
        if self.daemon.worker is None or not self.daemon.worker.is_alive:
            return False
        self.daemon.worker.die()
        return True

    def stop(self) -> None:
        self.daemon.stop()

    def is_listening(self) -> bool:
        return True

    def reload(self) -> None:
        self.daemon.reload()

    def unrest(self) -> list[str]:
        try:
            self.daemon.quiet(looks=5)
        except AssertionError as error:
            return [str(error)]
        return []

    def leaked(self) -> list[str]:
        """Descriptors of this process, against those when it was first quiet; threads are for the next test to find."""
        handles = len(list(Path("/proc/self/fd").iterdir()))
        self._handles = self._handles or handles
        return [f"{handles} descriptors, and {self._handles} at first"] if handles > self._handles else []

    # ---- what the actions need

    def arrive(self, song: Path, name: str, kind: str) -> str:
        self._is_arriving, deaths = True, self._deaths
        told = super().arrive(song, name, kind)
        self._is_arriving = False
        self.model.current[name].kills += self._deaths - deaths
        return told

    def new_song(self, name: str) -> Path:
        path = self.folder / "bank" / f"{self.steps}-{len(self.story)}{Path(name).suffix}"
        return make_song(path, self.random.choice((0.05, 0.2, 0.5, 1.0)), channels=self.random.choice((1, 2)))
