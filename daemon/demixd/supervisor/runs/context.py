"""What every run works with."""

from collections.abc import Callable

import msgspec

from demixd.config import Config
from demixd.spool.tree import Spool
from demixd.supervisor.clock import Clock
from demixd.supervisor.folders import Folders
from demixd.supervisor.jobs.pause import Pause
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.runs.cancel_file import CancelFiles
from demixd.supervisor.runs.disk_thread import ResultChecked, SnapshotTaken
from demixd.supervisor.runs.ending import Ending
from demixd.supervisor.runs.outcomes import Circumstances
from demixd.supervisor.workers.manager import WorkerManager
from demixd.supervisor.workers.pool import Pool


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """`post` takes what happens on other threads to the main loop. `worker` is the one that the run goes to."""

    config: Config
    clock: Clock
    spool: Spool
    jobs: JobTable
    folders: Folders
    pause: Pause
    cancel_files: CancelFiles
    ending: Ending
    pool: Pool
    worker: WorkerManager
    post: Callable[[SnapshotTaken | ResultChecked], None]
    retry_at: dict[str, float] = {}
    """When (monotonic) a job that has hit an obstacle may be tried again, by job id."""
    prepared: set[str] = set()
    """The job that is prefetched, whose copy takes room too."""

    @property
    def circumstances(self) -> Circumstances:
        return Circumstances(
            now=self.clock.now(),
            wall=self.clock.wall(),
            grace_s=self.config.limits.truncated_grace_s,
            beside_others=len(self.jobs.running) > 1 or bool(self.prepared),
        )
