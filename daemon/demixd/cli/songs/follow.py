"""Following dropped songs to their ends, all at once, and showing how far they are: `submit --wait` and `daemon/try`."""

import sys
import time
from collections.abc import Callable, Sequence

from demixd.cli.console import complain, say
from demixd.cli.status import view
from demixd.client import names, reader, text, words
from demixd.client.reader import CachedDocument, pause
from demixd.protocol.job import State
from demixd.protocol.status import DaemonStatus, InboxStatus, Sidecar
from demixd.spool.tree import DAEMON, INBOX, Spool

POLL_S = 0.2

LOST_BEATS = 3
"""A drop whose file is gone, and of which the daemon says nothing for so many of its heartbeats, was never seen by it."""

Notice = Callable[[float], str | None]
"""What there is to say of the daemon at a time of the monotonic clock, if anything. It may raise RefusedError."""

Print = Callable[[str], None]


class Follower:
    """The job that a drop becomes. One sidecar serves a name, so that it may show jobs before and after this one."""

    def __init__(self, spool: Spool, name: str) -> None:
        """For a song that is not dropped yet: every sidecar that is there already belongs to an older job."""
        self.name = name
        self.path = spool.sidecar(name)
        self._file = CachedDocument(self.path, Sidecar)
        self._before = self._file.refresh()
        self.song: Sidecar | None = None
        """The job's latest sidecar."""
        self.state: State | None = None
        """The job's state. A newer drop's sidecar may tell it, so that it can differ from that of `song`."""
        self.lost: str | None = None
        """Why no job has come of the drop, and none will."""

    @property
    def ended(self) -> bool:
        return self.lost is not None or self.state in (State.DONE, State.FAILED, State.CANCELLED)

    def refresh(self) -> bool:
        """Read the sidecar; whether the job has changed."""
        seen = self._file.refresh()
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
        """What the job is doing, on one line."""
        if self.song is None:
            return "dropped"
        what = self.song.doing or self.song.state
        return f"{what}: {self.song.message}" if self.song.state is State.WAITING and self.song.message else what

    def result(self, spool: Spool) -> str:
        """How the job ended, on one line."""
        song = self.song
        if self.lost is not None:
            return f"{self.name}: {self.lost}"
        if song is None or song.state is not self.state:
            return f"{self.name}: {self.state}; a newer drop has the name now"
        if song.output is not None and song.state is State.DONE:
            return f"{self.name}: done, {words.result(song, spool.outbox)}"
        return f"{self.name}: {song.state}" + (f": {song.message}" if song.message else "")

    @property
    def warnings(self) -> list[str]:
        """What is to be known of the stems, a line each."""
        return words.warning_lines(self.song) if self.song is not None and self.song.state is self.state else []


class Losses:
    """Finds drops of which no job comes: their files were removed or replaced before the daemon had seen them."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._heartbeat = CachedDocument(spool.status / DAEMON, DaemonStatus)
        self._inbox = CachedDocument(spool.status / INBOX, InboxStatus)
        self._seq: int | None = None
        self._listed: dict[str, str] = {}
        self._gone: dict[str, set[int | None]] = {}
        """The heartbeats, by `seq`, that were seen since a file was missed."""

    def refresh(self) -> None:
        """Read what the daemon says now."""
        daemon, inbox = self._heartbeat.refresh(), self._inbox.refresh()
        self._seq = daemon.seq if daemon else None
        self._listed = {each.name: each.reason for each in inbox.entries} if inbox else {}

    def why(self, name: str) -> str | None:
        """Why no job comes of the drop `name`, which has no sidecar; None where one may."""
        try:
            is_there = names.is_dropped(self._spool.song(name)) or not self._spool.inbox.is_dir()
        except OSError:  # of a share that is away there is no telling
            return None
        if is_there:
            self._gone.pop(name, None)
            return None
        if reason := self._listed.get(name):
            return f"lost: what has its name in the inbox is no song ({reason}); put the song there again"
        beats = self._gone.setdefault(name, set())
        beats.add(self._seq)
        if len(beats) <= LOST_BEATS:
            return None
        return "lost: its file went from the inbox before the daemon had seen it; put the song there again"


def follow_to_end(spool: Spool, followers: Sequence[Follower], notice: Notice, *, as_json: bool = False) -> bool:
    """Show the songs' progress until all have ended; whether all are done.

    Bars on a terminal, else plain lines; `as_json` prints each final sidecar and nothing else.
    """
    losses = Losses(spool)
    if as_json:
        return _follow(followers, losses, notice, lambda _: None, _json_to(spool, say, complain), complain)
    if not view.is_terminal():
        return _follow(followers, losses, notice, _plain_lines(), _result_to(spool, say, complain), complain)
    with view.bars() as bars:
        # Standard error may be the same terminal: then a complaint belongs above the bars too.
        aside = bars.say if sys.stderr.isatty() else complain

        def draw(_changed: Sequence[Follower]) -> None:
            bars.show(
                [view.Row(name=each.name, song=each.song, text=each.text) for each in followers if not each.ended]
            )

        return _follow(followers, losses, notice, draw, _result_to(spool, bars.say, aside), aside)


def _follow(
    followers: Sequence[Follower],
    losses: Losses,
    notice: Notice,
    show: Callable[[list[Follower]], None],
    show_end: Callable[[Follower], None],
    warn: Print,
) -> bool:
    """Look until every job has ended. At each look `show` gets the jobs that have changed, `show_end` each that ended."""
    going = list(followers)
    while going:
        began = time.monotonic()
        losses.refresh()
        changed = [each for each in going if _refresh(each, losses)]
        for each in changed:
            if each.ended:
                show_end(each)
        going = [each for each in going if not each.ended]
        show(changed)
        if going and (sentence := notice(began)):
            warn(sentence)
        if going:
            pause(began, POLL_S)
    return all(each.state is State.DONE for each in followers)


def _refresh(each: Follower, losses: Losses) -> bool:
    """Read the job's sidecar, or find that none will come; whether the job has changed."""
    # In this order: the daemon writes the sidecar before it moves the song.
    why = losses.why(each.name) if each.song is None else None
    if each.refresh():
        return True
    if each.song is None:
        each.lost = why
    return each.ended


def _plain_lines() -> Callable[[list[Follower]], None]:
    """A function that prints each change of a job: every state, reason and step, and progress in tenths."""
    told: dict[str, tuple[str, int]] = {}

    def show(changed: list[Follower]) -> None:
        for each in changed:
            fraction = each.song.progress.fraction if each.song else 0.0
            now = (each.text, int(10 * fraction))
            if not each.ended and told.get(each.name) != now:
                told[each.name] = now
                shown = f" {text.percent(fraction)}" if each.state is State.RUNNING else ""
                say(f"{each.name}: {each.text}{shown}")

    return show


def _result_to(spool: Spool, good: Print, bad: Print) -> Callable[[Follower], None]:
    """A function that prints the result of a job, and its warnings, by `good` if it is done, else by `bad`."""

    def show(each: Follower) -> None:
        for line in (each.result(spool), *each.warnings):
            (good if each.state is State.DONE else bad)(line)

    return show


def _json_to(spool: Spool, good: Print, bad: Print) -> Callable[[Follower], None]:
    """A function that prints a job's final sidecar by `good`; of a drop that became none the reason by `bad`."""
    return lambda each: bad(each.result(spool)) if each.lost else good(text.as_json(reader.read(each.path)))
