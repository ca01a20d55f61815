"""Songs in the queue say in their sidecars that a pause holds them, and later that it does so no more.

Ten thousand may wait, and to write their sidecars takes longer than anybody should wait for the first song, or for the next
pause to be seen. So a hundred of them say it at once, and two hundred each second.
"""

from collections.abc import Iterator
from itertools import islice

from demixd.protocol.job import Job, Reason, State
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.jobs.pause import Pause
from demixd.supervisor.jobs.table import JobTable

AT_ONCE, A_SECOND = 100.0, 200.0


class HeldSongs:
    """Those of one table, and one pause. `now` is monotonic, in seconds."""

    def __init__(self, jobs: JobTable, pause: Pause) -> None:
        self._jobs, self._pause = jobs, pause
        self._message: str | None = None
        """What they were being told last; empty where that is that there is no pause."""
        self._seen: int | None = None
        """How often the queue had changed when all had been told."""
        self._may_tell = self._at = 0.0

    def again(self) -> None:
        """Somebody has told songs something else: go through all of them."""
        self._seen = None

    def tell(self, now: float) -> None:
        """Tell some of those that say something else."""
        if self._message != self._pause.message:
            self._message, self._seen, self._may_tell = self._pause.message, None, AT_ONCE
        elif self._seen == self._jobs.changes:
            return
        else:
            self._may_tell = min(self._may_tell + (now - self._at) * A_SECOND, A_SECOND)
        # A song that a pause has stopped may come back after its end, to the head of the queue.
        most = None if self._message or self._seen is None else int(AT_ONCE)
        self._at, seen = now, self._jobs.changes
        for job, reason, message in self._untold(most):
            if self._may_tell < 1:
                return
            self._jobs.update(job, State.WAITING, reason=reason, message=message)
            self._may_tell -= 1
        self._seen = seen

    def _untold(self, most: int | None) -> Iterator[tuple[Job, Reason, str]]:
        """Of the first songs those that say something else than is true, and what that is."""
        for job in list(islice(self._jobs.queued(), most)):
            if self._pause.holds(job):
                if (job.reason, job.message) != (Reason.PAUSED, self._pause.message):
                    yield job, Reason.PAUSED, self._pause.message
            elif job.reason is Reason.PAUSED:
                twin = dedupe.twin_of(job, self._jobs.running)
                yield job, Reason.QUEUED, dedupe.behind(twin) if twin else ""
