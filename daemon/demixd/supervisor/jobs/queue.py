"""The line of songs that wait for their turn, in the order of work. Pure.

Ten thousand may wait, and each of them is told its place: positions are found by bisection.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from demixd.protocol.job import Job, Reason, State

Place = tuple[int, float, bytes, str]

SHARED = frozenset({Reason.QUEUED, Reason.MODEL_MISSING, Reason.OUTBOX_MISSING, Reason.PAUSED, Reason.NO_WORKER})
"""Reasons that come and go for all songs in the queue at once: the log counts the songs."""


class JobQueue:
    """The ids of the jobs that wait for their turn, sorted by `Job.order`."""

    def __init__(self) -> None:
        self._sorted: list[Place] = []
        self._places: dict[str, Place] = {}

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[str]:
        return (job_id for *_, job_id in self._sorted.copy())

    def put(self, job: Job) -> bool:
        """Sort `job` in, or take it out where it is not ready; whether it has another place now."""
        place = (*job.order, job.job_id) if job.state is State.WAITING and job.ready_at else None
        if place == self._places.get(job.job_id):
            return False
        self.drop(job.job_id)
        if place is not None:
            self._places[job.job_id] = place
            insort(self._sorted, place)
        return True

    def drop(self, job_id: str) -> None:
        if (place := self._places.pop(job_id, None)) is not None:
            del self._sorted[bisect_left(self._sorted, place)]

    def before(self, job_id: str) -> str | None:
        """The job that comes just before this one, if there is one."""
        position = self.position(job_id) or 1
        return self._sorted[position - 2][-1] if position > 1 else None

    def position(self, job_id: str) -> int | None:
        """The job's place in the queue, from 1; None where it is not in it."""
        place = self._places.get(job_id)
        return None if place is None else bisect_left(self._sorted, place) + 1
