"""Songs in the queue that a pause holds say so in their sidecars: ten thousand may, so not all of them at once."""

from demixd.protocol.job import Reason, State
from demixd.supervisor.jobs.pause import Pause
from demixd.supervisor.jobs.queue import SHARED
from demixd.supervisor.jobs.table import JobTable

AT_ONCE, A_SECOND = 100.0, 200.0
"""How many songs say at once that there is a pause, and how many more each second."""


class HeldSongs:
    """Those of one table, and one pause. `now` is monotonic, in seconds."""

    def __init__(self, jobs: JobTable, pause: Pause) -> None:
        self._jobs, self._pause = jobs, pause
        self._message = self._told = ""
        """The pause's sentence, and the one that all songs have been told."""
        self._seen = -1
        """How often the queue had changed by then."""
        self._may_tell = self._at = 0.0

    def tell(self, now: float) -> bool:
        """Tell some of those that have not been told yet; whether a pause has ended."""
        before, self._message = self._message, self._pause.message
        if not self._message:
            self._told = ""
            return bool(before)
        if self._told == self._message and self._seen == self._jobs.changes:
            return False
        self._may_tell = min(self._may_tell + (now - self._at) * A_SECOND, A_SECOND) if before else AT_ONCE
        self._at, self._told, self._seen = now, "", self._jobs.changes
        for job in self._jobs.queue():
            if job.reason not in SHARED or job.message == self._message or not self._pause.holds(job):
                continue
            if self._may_tell < 1:
                return False
            self._jobs.update(job, State.WAITING, reason=Reason.PAUSED, message=self._message)
            self._may_tell -= 1
        self._told = self._message
        return False
