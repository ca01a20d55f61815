"""Following songs to their ends, all at once: what `submit --wait` and `cancel --wait` do."""

import os
import time
from collections.abc import Callable, Sequence

from demixd.cli import text
from demixd.cli.status.board import SILENCES, Cached, Health, Pulse
from demixd.cli.text import safe
from demixd.protocol.job import State
from demixd.protocol.status import DaemonStatus, Sidecar
from demixd.spool.tree import DAEMON, Spool

POLL_S = 0.2
GENTLE = 10
"""Ten thousand songs may be followed: at most a tenth of the time is spent looking at them."""


class Follower:
    """The job that a drop becomes. One sidecar serves a name, so that jobs before and after it may be seen there."""

    def __init__(self, spool: Spool, name: str) -> None:
        """Look now, before the drop: whatever is there is older than it."""
        self.name = name
        self.path = spool.sidecar(name)
        self._file = Cached(self.path, Sidecar)
        self._before = self._file.look()
        self.song: Sidecar | None = None
        """Its latest sidecar."""
        self.state: State | None = None
        """Its state, which may be known without a sidecar of its own: a newer drop's tells how the one before ended."""

    @property
    def ended(self) -> bool:
        return self.state in (State.DONE, State.FAILED, State.CANCELLED)

    def look(self) -> bool:
        """Whether something has changed."""
        seen = self._file.look()
        if seen is None or seen == self.song or self.ended:
            return False
        if self._before and (seen.job_id == self._before.job_id or seen.seq <= self._before.seq):
            return False
        if self.song is None or seen.job_id == self.song.job_id:
            self.song, self.state = seen, seen.state
            return True
        former = seen.previous
        self.state = former.state if former and former.job_id == self.song.job_id else State.CANCELLED
        return True

    @property
    def text(self) -> str:
        """What it does, on one line."""
        if self.song is None:
            return "dropped"
        what = self.song.doing or self.song.state
        return f"{what}: {self.song.message}" if self.song.state is State.WAITING and self.song.message else what

    def result(self, spool: Spool) -> str:
        """How it ended, on one line."""
        song = self.song
        if song is None or song.state is not self.state:
            return f"{self.name}: {self.state}; a newer drop has the name now"
        if song.output is not None and song.state is State.DONE:
            return f"{self.name}: done, in {spool.outbox / song.output.dir}"
        return f"{self.name}: {song.state}" + (f": {song.message}" if song.message else "")


class Lookout:
    """Says once when the daemon falls silent, and once when it is there again."""

    def __init__(self, spool: Spool, heartbeat_s: float, now: float) -> None:
        self._file = Cached(spool.status / DAEMON, DaemonStatus)
        self._pulse = Pulse(now)
        self._never_s = SILENCES * heartbeat_s
        self._told = False

    def look(self, now: float) -> str | None:
        """A sentence, where there is something to say."""
        health = self._pulse.hear(self._file.look(), now)
        silence = self._pulse.silence(now)
        if health is Health.ALIVE and self._told:
            self._told = False
            return "The daemon is running again."
        is_gone = health is Health.SILENT or (health in (Health.NEVER_RUN, Health.STOPPED) and silence > self._never_s)
        if not is_gone or self._told:
            return None
        self._told = True
        return f"The daemon is not running (no sign of life for {text.ago(silence)}): start it; the songs wait for it."


def lines(say: Callable[[str], None]) -> Callable[[list[Follower]], None]:
    """Shows changes as plain lines: every state, reason and step, and progress in tenths."""
    told: dict[str, tuple[str, int]] = {}

    def show(changed: list[Follower]) -> None:
        for each in changed:
            fraction = each.song.progress.fraction if each.song else 0.0
            now = (each.text, int(10 * fraction))
            if not each.ended and told.get(each.name) != now:
                told[each.name] = now
                shown = f" {text.percent(fraction)}" if each.state is State.RUNNING else ""
                say(safe(f"{each.name}: {each.text}{shown}"))

    return show


def follow(
    followed: Sequence[Follower],
    lookout: Lookout,
    show: Callable[[list[Follower]], None],
    ended: Callable[[Follower], None],
    complain: Callable[[str], None],
) -> bool:
    """Look until every song has ended; whether all are done. `show` gets what has changed at every look, `ended` each end."""
    going = list(followed)
    while going:
        began = time.monotonic()
        changed = [each for each in going if each.look()]
        for each in changed:
            if each.ended:
                ended(each)
        going = [each for each in going if not each.ended]
        show(changed)
        if going and (sentence := lookout.look(began)):
            complain(sentence)
        if going:
            time.sleep(max(POLL_S, GENTLE * (time.monotonic() - began)))
    return all(each.state is State.DONE for each in followed)


def cancelled(
    spool: Spool, name: str, before: Sidecar | None, lookout: Lookout, say: Callable[[str], None]
) -> Sidecar | None:
    """Wait until the daemon has answered the cancel of `name`: its song as it is then; null where nobody knew the name.

    The cancel file is removed after the sidecar is written; one that cannot be removed is acknowledged in the sidecar.
    """
    file, path = Cached(spool.sidecar(name), Sidecar), spool.cancel(name)
    while True:
        is_there = os.path.lexists(path)
        song = file.look()
        is_told = song is not None and song.cancel is not None and (before is None or song.seq > before.seq)
        if not is_there or (is_told and song is not None and song.ended):
            return song
        wait(lookout, say)


def all_cancelled(spool: Spool, lookout: Lookout, say: Callable[[str], None]) -> None:
    """Wait until the daemon has carried out the bare `.cancel`, and taken it away."""
    while os.path.lexists(spool.cancel_all):
        wait(lookout, say)


def wait(lookout: Lookout, say: Callable[[str], None]) -> None:
    if sentence := lookout.look(time.monotonic()):
        say(sentence)
    time.sleep(POLL_S)
