"""The list of ends, status/_ends.jsonl: every job that has ended, a line each, for programs that act on ends.

A job gets its number, which is in the ledger before the line is written, and the line is on the disk before the job is
`finished`: a crash in between writes the line again, with the same number. Numbers grow from line to line. So a line that
could not be written comes before all others, also after a restart.
"""

import logging
from collections.abc import Iterable

import msgspec

from demixd.protocol import status
from demixd.protocol.job import Job
from demixd.spool.files import append_line
from demixd.spool.tree import ENDS, Spool
from demixd.supervisor.jobs.table import JobTable

log = logging.getLogger(__name__)


class EndList:
    """Tells the ends of one daemon's jobs."""

    def __init__(self, spool: Spool, jobs: JobTable) -> None:
        self._spool, self._jobs = spool, jobs
        self._path = spool.status / ENDS
        self._owed: list[Job] = []
        """Jobs that have their number, and not their line yet, in the order of numbers."""
        self._told: set[str] = set()
        """The ids of jobs that were told with another one's end."""

    def owe(self, jobs: Iterable[Job]) -> None:
        """Remember the jobs of a former life that have a number already: their lines come first."""
        self._owed = sorted((job for job in jobs if job.end), key=_number)

    def numbered(self, job: Job) -> Job:
        """The job with its number, which the ledger has."""
        return job if job.end is not None else self._jobs.save(msgspec.structs.replace(job, end=self._jobs.seq()))

    def tell(self, job: Job) -> bool:
        """Append the line of a job that has its number, and before it those that are owed; False where that cannot be yet."""
        if job.end and job.job_id not in self._told and all(each.job_id != job.job_id for each in self._owed):
            self._owed.append(job)
        while self._owed:
            if not self._append(self._owed[0]):
                return False
            self._told.add(self._owed.pop(0).job_id)
        self._told.discard(job.job_id)
        return True

    def _append(self, job: Job) -> bool:
        sidecar = self._jobs.document(job, seq=_number(job))
        line = status.encode(status.End(**msgspec.structs.asdict(sidecar), end=_number(job)))
        try:
            append_line(self._path, line, root=self._spool.status)
        except OSError as error:
            if self._path not in self._jobs.unwritten:
                log.error("%s cannot be written: %s", self._path, error)
            self._jobs.unwritten[self._path] = error.strerror or str(error)
            return False
        self._jobs.unwritten.pop(self._path, None)
        return True


def _number(job: Job) -> int:
    assert job.end is not None
    return job.end
