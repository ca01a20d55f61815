"""What every job in flight stands on."""

from collections.abc import Callable

import msgspec

from demixd.config import Config
from demixd.protocol.job import Job
from demixd.spool.tree import Spool
from demixd.supervisor.folders import Folders
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.runs.disk_thread import ResultChecked, SnapshotTaken
from demixd.supervisor.workers.manager import WorkerManager


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """`post` takes what happens on other threads to the main loop; `in_flight` gives all jobs in flight, oldest first."""

    config: Config
    spool: Spool
    jobs: JobTable
    folders: Folders
    workers: WorkerManager
    post: Callable[[SnapshotTaken | ResultChecked], None]
    in_flight: Callable[[], list[Job]]
    retry_at: dict[str, float] = {}
    """Until when (monotonic) a job that has hit an obstacle is left alone, by job id."""

    def twin(self, job: Job) -> Job | None:
        """Another job in flight that makes the very result that `job` asks for."""
        same = (each for each in self.in_flight() if each.job_id != job.job_id and each.result_key == job.result_key)
        return None if job.force or job.result_key is None else next(same, None)
