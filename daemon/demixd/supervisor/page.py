"""`status/index.html`, where `[status] page` asks for it: what `demixd status` shows, for who sees nothing but the share.

It is written with the heartbeat, from the jobs at hand and in the words of `client.words`; while songs run a little more often,
so that their bars move. Never more than once a second, and of ten thousand songs it lists the first hundred.
"""

import logging
import math
from collections.abc import Iterable
from datetime import datetime
from heapq import nsmallest
from itertools import islice

from demixd.client import text, words
from demixd.client.liveness import Health
from demixd.client.overview import RESULTS, Overview
from demixd.config import Config
from demixd.protocol import status
from demixd.protocol.job import Job, State
from demixd.protocol.pages import status as board
from demixd.protocol.result_names import PAGE
from demixd.protocol.status import DaemonStatus, Sidecar
from demixd.spool.files import write_whole
from demixd.supervisor.runs.context import Context

log = logging.getLogger(__name__)

LISTED = 100
"""Songs of the queue, and of those that are not ready."""

WARNINGS = 20

OFTEN_S = 1.0
"""It is written at most once in so many seconds."""

BARS_S = 5.0
"""While songs run it is written every so often, or as seldom as their sidecars."""

REFRESH_S = (5, 60)
"""At least and at most: how often a browser reads it again."""


class StatusPage:
    """Writes the page. It may be written only where the heartbeat may, which is the caller's to know."""

    def __init__(self, context: Context, facts: status.DaemonFacts) -> None:
        self._context, self._jobs, self._facts = context, context.jobs, facts
        self._heartbeat: DaemonStatus | None = None
        self._written_at = -math.inf
        self._is_refused = False
        self.due = math.inf
        """When it is to be written next, by the monotonic clock."""
        inside = context.spool.outbox.parent == context.spool.status.parent
        self._outbox = f"../{context.spool.outbox.name}" if inside else ""
        """The outbox, from the page's folder; empty where who sees the one may not see the other."""
        self.reconfigure(context.config)

    def reconfigure(self, config: Config) -> None:
        self._is_wanted = config.status.page
        self._bars_s = max(BARS_S, config.status.progress_s)

    def tell(self, heartbeat: DaemonStatus) -> None:
        """Have what a heartbeat says be shown, the last one at once."""
        self._heartbeat = heartbeat
        self.due = self._written_at + (0.0 if heartbeat.state == "stopping" else OFTEN_S)
        if not self._is_wanted:
            self.due = math.inf

    def write(self, now: float, *, is_allowed: bool) -> None:
        """Write the page, where that is allowed at present. A failure does not stop the work."""
        self.due = now + self._bars_s if self._jobs.running else math.inf
        if not is_allowed or self._heartbeat is None:
            return
        self._written_at = now
        folder = self._context.spool.status
        try:
            write_whole(folder / PAGE, self.content(self._heartbeat), root=folder, durable=False)
            self._is_refused = False
        except OSError as error:
            if not self._is_refused:
                log.error("%s cannot be written: %s", folder / PAGE, error)
            self._is_refused = True

    def content(self, heartbeat: DaemonStatus) -> bytes:
        """The page as of now."""
        shown, waiting = self._overview(heartbeat)
        now = self._jobs.now
        return board.page(
            board.Board(
                headline=words.sentence(shown),
                tone="" if shown.is_well and heartbeat.paused is None else "doubt" if shown.is_well else "bad",
                facts=tuple(words.workers(heartbeat, is_able=True)),
                warnings=tuple(words.trouble(shown)[:WARNINGS]),
                songs=_lists(shown, self._jobs.queue_length, waiting, self._outbox),
                written=now,
                shown_at=_local(now, is_whole=True),
                every_s=heartbeat.interval_s,
                refresh_s=int(min(max(heartbeat.interval_s, REFRESH_S[0]), REFRESH_S[1])),
            )
        )

    def _overview(self, heartbeat: DaemonStatus) -> tuple[Overview, int]:
        """What is worth showing, and how many songs are not ready."""
        jobs = self._jobs
        unready = [job for job in jobs.active.values() if job.state is State.WAITING and not job.ready_at]
        waiting = nsmallest(LISTED, unready, key=lambda job: (job.state_since, job.raw_name))
        newest = {job.raw_name: job for job in sorted(jobs.ended, key=lambda job: job.state_since)}
        results = sorted(newest.values(), key=lambda job: job.state_since, reverse=True)[:RESULTS]
        etas = zip(heartbeat.queue, heartbeat.queue_eta_s, strict=False)
        shown = Overview(
            daemon=heartbeat,
            health=Health.STOPPED if heartbeat.state == "stopping" else Health.ALIVE,
            silence_s=0,
            age_s=0.0,
            running=self._sidecars(jobs.running),
            queue=self._sidecars(islice(jobs.queued(), LISTED)),
            waiting=self._sidecars(waiting),
            unseen=(),
            results=self._sidecars(results),
            counts={},
            etas={song.job_id: eta_s for song, eta_s in islice(etas, LISTED) if eta_s is not None},
            entries=(),
            trouble=None,
        )
        return shown, len(unready)

    def _sidecars(self, jobs: Iterable[Job]) -> tuple[Sidecar, ...]:
        now = self._jobs.now
        made = (status.sidecar(job, seq=0, position=None, eta_s=None, daemon=self._facts, now=now) for job in jobs)
        return tuple(made)


def _lists(shown: Overview, queued: int, waiting: int, outbox: str) -> tuple[board.Songs, ...]:
    is_stopped = shown.health is Health.STOPPED
    return (
        board.Songs(
            title="Running",
            lines=tuple(_running(song, shown) for song in shown.running),
            total=len(shown.running),
        ),
        board.Songs(
            title="Queue",
            lines=tuple(_queued(song, shown, is_stopped=is_stopped) for song in shown.queue),
            total=queued,
            is_queue=True,
        ),
        board.Songs(title="Not ready", lines=tuple(_waiting(song, shown) for song in shown.waiting), total=waiting),
        board.Songs(
            title="Last results",
            lines=tuple(_result(song, shown, outbox) for song in shown.results),
            total=len(shown.results),
        ),
    )


def _running(song: Sidecar, shown: Overview) -> board.Line:
    at = song.progress
    doing = f"{text.percent(at.fraction)} {song.doing}{words.who(song, shown)}"
    told = (doing, text.speed(at.speed_x), text.left(at.eta_s), words.facts(song, has_length=False).strip())
    return board.Line(name=song.input.name, told=", ".join(filter(None, told)), fraction=at.fraction)


def _queued(song: Sidecar, shown: Overview, *, is_stopped: bool) -> board.Line:
    why = "" if song.reason == "queued" else words.message(song, shown)
    left = "" if is_stopped else text.left(shown.etas.get(song.job_id))
    return board.Line(name=song.input.name, told=why or left, tone="waits" if why else "")


def _waiting(song: Sidecar, shown: Overview) -> board.Line:
    told = ": ".join(filter(None, (song.reason, words.message(song, shown))))
    return board.Line(name=song.input.name, told=told, tone="waits")


def _result(song: Sidecar, shown: Overview, outbox: str) -> board.Line:
    """How a song ended: where its stems are, or what is wrong with it and what helps."""
    where = f", in {song.output.dir}{words.marks(song)}" if song.output else ""
    why = "" if where else words.message(song, shown)
    told = f"{song.state}{where}{why and f': {why}'}"
    page = next((each.name for each in song.output.extras if each.kind == "page"), "") if song.output else ""
    return board.Line(
        name=song.input.name,
        told=told,
        tone=str(song.state),
        at=_local(song.state_since),
        page=f"{outbox}/{song.output.dir}/{page}" if song.output and page and outbox else "",
    )


def _local(utc: str, *, is_whole: bool = False) -> str:
    """A time of the protocol as local clocks show it; of another day its date, too. Empty where it is none."""
    try:
        at = datetime.fromisoformat(utc).astimezone()
    except (ValueError, OverflowError):
        return ""
    clock = f"{at:%H:%M:%S}" if is_whole else f"{at:%H:%M}"
    return f"{clock}, {at.day} {at:%B}" if is_whole or at.date() != datetime.now(at.tzinfo).date() else clock
