"""All that `demixd status` shows, in the order in which it is shown. Pure."""

from heapq import nlargest

import msgspec

from demixd.cli.status.liveness import Health
from demixd.cli.status.reader import StatusReader
from demixd.protocol.job import FINAL, State
from demixd.protocol.status import DaemonStatus, Sidecar

RESULTS = 10
"""How many of the last results are shown."""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    daemon: DaemonStatus | None
    health: Health
    silence_s: int
    running: tuple[Sidecar, ...]
    queue: tuple[Sidecar, ...]
    """In the order of work."""
    waiting: tuple[Sidecar, ...]
    """Songs that are not in the queue; the one that has waited longest comes first."""
    results: tuple[Sidecar, ...]
    """The last ones, the newest first."""
    counts: dict[State, int]
    """The number of songs in each state that any song is in."""
    trouble: str | None


def overview(reader: StatusReader, health: Health, silence_s: float) -> Overview:
    """What `reader` has read."""
    by_state: dict[State, list[Sidecar]] = {state: [] for state in State}
    for song in reader.songs:
        by_state[song.state].append(song)
    places = {each.job_id: place for place, each in enumerate(reader.daemon.queue)} if reader.daemon else {}
    waiting = sorted(by_state[State.WAITING], key=lambda song: (song.state_since, song.input.name))
    queue = [song for song in waiting if song.job_id in places or song.reason == "queued"]
    ended = (song for state in FINAL for song in by_state[state])
    return Overview(
        daemon=reader.daemon,
        health=health,
        silence_s=int(silence_s),
        running=tuple(by_state[State.RUNNING]),
        # Songs that the last heartbeat does not list yet come last.
        queue=tuple(sorted(queue, key=lambda song: places.get(song.job_id, len(places)))),
        waiting=tuple(song for song in waiting if song.job_id not in places and song.reason != "queued"),
        results=tuple(nlargest(RESULTS, ended, key=lambda song: (song.state_since, song.seq))),
        counts={state: len(songs) for state, songs in by_state.items() if songs},
        trouble=reader.trouble,
    )
