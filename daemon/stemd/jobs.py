"""The jobs that are waiting or running, and the two places where they are written down: ledger and sidecars."""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from stemd import status
from stemd.identity import Identity
from stemd.job import FINAL, Job, Stage, State, move
from stemd.ledger import Ledger
from stemd.spool import Spool, write_whole

log = logging.getLogger(__name__)


def utc(now: float) -> str:
    """A UNIX time in seconds as the protocol writes it."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Jobs:
    """The current job of each name. `clock` is the time of day (UNIX seconds)."""

    def __init__(self, spool: Spool, ledger: Ledger, daemon: status.DaemonFacts, clock: Callable[[], float]) -> None:
        self._spool = spool
        self._ledger = ledger
        self._daemon = daemon
        self._clock = clock
        self._count = 0
        self.active: dict[str, Job] = {}
        """Waiting and running, by name."""
        self.answered: dict[str, Identity] = {}
        """Songs that are still in the inbox although their job is over, by name."""
        self.counts = dict.fromkeys((*sorted(state.value for state in FINAL), "retries"), 0)

    @property
    def now(self) -> str:
        return utc(self._clock())

    def seq(self) -> int:
        """Strictly increasing, across crashes: the number of daemon starts in the upper half."""
        self._count += 1
        return (self._ledger.starts << 32) + self._count

    def add(self, jobs: Iterable[Job]) -> None:
        """Take on new jobs, or those that a former daemon has left."""
        jobs = list(jobs)
        self._ledger.put(jobs)
        for job in jobs:
            self.active[job.name] = job
            self.show(job)

    def change(self, job: Job, state: State, **changes: object) -> Job:
        """Move a job along the table and show it. What only the sidecar tells needs no ledger."""
        moved = move(job, state, at=self.now, **changes)
        self.active[moved.name] = moved
        if (moved.state, moved.reason, moved.step) != (job.state, job.reason, job.step):
            log.info(
                "%s: %s%s",
                moved.shown,
                moved.state,
                f" ({moved.reason or moved.step})" if moved.reason or moved.step else "",
                extra={"job": moved.job_id},
            )
        self.show(moved)
        return moved

    def record(self, job: Job, stage: Stage) -> Job:
        """Promise it: the stage and the job as it is now are on the disk when this returns."""
        promised: Job = msgspec.structs.replace(job, stage=stage)
        self._ledger.put([promised])
        self.active[promised.name] = promised
        return promised

    def close(self, job: Job) -> None:
        """The job is finished; its name is free."""
        self.counts[job.state.value] += 1
        if job.left is not None:
            self.answered[job.name] = job.left
        if self.active.get(job.name, job).job_id == job.job_id:
            self.active.pop(job.name, None)

    def latest(self, name: str) -> Job | None:
        """The current job of a name, else the last one that it had."""
        return self.active.get(name) or self._ledger.latest(name.encode("utf-8", "surrogateescape"))

    def queue(self) -> list[Job]:
        """What waits for its turn, in the order of work."""
        waiting = (job for job in self.active.values() if job.state is State.WAITING and job.ready_at)
        return sorted(waiting, key=lambda job: job.order)

    def show(self, job: Job) -> None:
        """Write the sidecar. A status folder that cannot be written must not stop the work: the log says so."""
        document = status.sidecar(job, seq=self.seq(), daemon=self._daemon, now=self.now)
        self.write(self._spool.sidecar(job.name), document, durable=job.state in FINAL)

    def write(self, path: Path, document: msgspec.Struct, *, durable: bool = False) -> None:
        try:
            write_whole(path, status.encode(document), durable=durable)
        except OSError as error:
            log.error("%s cannot be written: %s", path, error)
