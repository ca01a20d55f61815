"""All that `demixd status` shows, in the order in which it is shown. Pure."""

from collections.abc import Container, Iterable
from heapq import nlargest

import msgspec

from demixd.client.liveness import RUNNING, Health, is_overdue
from demixd.client.reader import StatusReader
from demixd.protocol.inbox_names import Kind
from demixd.protocol.job import State
from demixd.protocol.status import DaemonStatus, InboxEntry, Sidecar

RESULTS = 10
"""How many of the last results are shown."""

CANNOT_SEPARATE = ("missing-model", "dead", "no-worker", "without-gpu")
"""The worker's states in which songs only wait."""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    daemon: DaemonStatus | None
    health: Health
    silence_s: int
    age_s: float | None
    """The heartbeat's age, by the time of day; None where there is no telling."""
    running: tuple[Sidecar, ...]
    queue: tuple[Sidecar, ...]
    """In the order of work."""
    waiting: tuple[Sidecar, ...]
    """Songs that are not in the queue; the one that has waited longest comes first."""
    unseen: tuple[str, ...]
    """Songs in the inbox that no daemon has seen yet, looked for where none runs."""
    results: tuple[Sidecar, ...]
    """The last ones, the newest first."""
    counts: dict[State, int]
    """The number of songs in each state that any song is in."""
    etas: dict[str, float]
    """Seconds until a queued song is done, by job id, where that can be told."""
    entries: tuple[InboxEntry, ...]
    """Every entry of the inbox that is no job."""
    trouble: str | None
    is_hidden: bool = False
    """Whether this user may not look into status/."""
    start: str = "demixd run"
    """The command that starts a daemon here."""
    told: str = ""
    """A mistake in the configuration of which the command has warned itself."""

    says_worker: bool = True
    """Whether what keeps the worker from its work is said above the songs."""

    @property
    def not_songs(self) -> tuple[InboxEntry, ...]:
        """Those of the entries that no program or system keeps for itself, and that are not told of already."""
        return tuple(each for each in self.entries if each.reason not in (Kind.IGNORED, Kind.PAUSE))

    @property
    def is_overdue(self) -> bool:
        """Whether the last heartbeat is so old that its daemon can hardly run any more."""
        return is_overdue(self.daemon, self.age_s)

    @property
    def is_well(self) -> bool:
        """Whether a daemon runs, and songs that are dropped now will be separated."""
        runs = self.health is Health.ALIVE or (self.health in RUNNING and not self.is_overdue)
        return runs and self.daemon is not None and self.daemon.worker.state not in CANNOT_SEPARATE


def overview(
    reader: StatusReader,
    health: Health,
    silence_s: float,
    age_s: float | None = None,
    unseen: Iterable[str] = (),
) -> Overview:
    """What `reader` has read, and the songs that are `unseen`."""
    by_state: dict[State, list[Sidecar]] = {state: [] for state in State}
    for song in reader.songs:
        by_state[song.state].append(song)
    places = {each.job_id: place for place, each in enumerate(reader.daemon.queue)} if reader.daemon else {}
    waiting = sorted(by_state[State.WAITING], key=lambda song: (song.state_since, song.input.name))
    queue = [song for song in waiting if song.job_id in places or song.reason == "queued"]
    return Overview(
        daemon=reader.daemon,
        health=health,
        silence_s=int(silence_s),
        age_s=age_s,
        running=tuple(by_state[State.RUNNING]),
        # Songs that the last heartbeat does not list yet come last.
        queue=tuple(sorted(queue, key=lambda song: places.get(song.job_id, len(places)))),
        waiting=tuple(song for song in waiting if song.job_id not in places and song.reason != "queued"),
        unseen=tuple(sorted(unseen)),
        results=tuple(newest_first(reader.songs, RESULTS)),
        counts={state: len(songs) for state, songs in by_state.items() if songs},
        etas=_etas(reader.daemon, {song.job_id for song in queue}, age_s or 0.0),
        entries=reader.inbox.entries if reader.inbox else (),
        trouble=reader.trouble,
        is_hidden=reader.is_hidden,
    )


def newest_first(songs: Iterable[Sidecar], most: int | None = None) -> list[Sidecar]:
    """The songs that are over, or the last `most` of them."""
    ended = [song for song in songs if song.ended]
    return nlargest(len(ended) if most is None else most, ended, key=lambda song: (song.state_since, song.seq))


def _etas(daemon: DaemonStatus | None, queued: Container[str], age_s: float) -> dict[str, float]:
    """The times of the jobs that are `queued` still, as they are now, from a heartbeat of this age."""
    told = zip(daemon.queue, daemon.queue_eta_s, strict=False) if daemon else ()
    return {
        each.job_id: max(0.0, eta_s - max(0.0, age_s))
        for each, eta_s in told
        if eta_s is not None and each.job_id in queued
    }
