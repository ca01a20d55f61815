"""The jobs that are waiting or running, and the two places where they are written down: ledger and sidecars.

active       the one job of a name that its sidecar shows
successors   newer drops of the name of a running job; each is shown once that job has ended
kept         the last job of a name whose original is still in the inbox

`commit` and `save` are durable when they return; `update` and `write_sidecar` tell others, and are not.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from demixd.protocol import status
from demixd.protocol.job import FINAL, Job, Previous, Reason, Stage, State, move
from demixd.protocol.progress import Progress, Tick
from demixd.spool.files import write_whole
from demixd.spool.tree import Spool
from demixd.supervisor import journal
from demixd.supervisor.clock import utc
from demixd.supervisor.jobs.pace import Measure, Pace
from demixd.supervisor.jobs.queue import SHARED, JobQueue
from demixd.supervisor.ledger import Foreign, Ledger

log = logging.getLogger(__name__)

PACE = "pace"
"""The measures' name among the facts of the ledger."""

PLACES = 1_000
"""Places of the queue that get a time with each heartbeat."""


class JobTable:
    """The current jobs of each name.

    `clock` is the time of day (UNIX seconds); `devices` tells where songs are separated, a device for each worker; `keep_alive`
    is called with each sidecar: where thousands are written, the heartbeat must not wait for the last of them.
    """

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        daemon: status.DaemonFacts,
        clock: Callable[[], float],
        *,
        devices: Callable[[], Sequence[str | None]] = lambda: (None,),
        keep_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool, self._ledger = spool, ledger
        self._daemon, self._clock = daemon, clock
        self._devices, self._keep_alive = devices, keep_alive
        self._count, self._latest = 0, 0.0
        """How many numbers were given, and the latest `ready_at`."""
        self._queue, self._pace = JobQueue(), Pace(ledger.fact(PACE, dict[str, Measure]))
        self._etas: dict[str, float | None] = {}
        """When each song in the queue will be done, by job id, as last told."""
        self.unwritten: dict[Path, str] = {}
        """The status files that could not be written, and why."""
        self._by_id: dict[str, Job] = {}
        self.active: dict[str, Job] = {}
        self.successors: dict[str, Job] = {}
        self.kept: dict[str, Job] = {}
        self._ended_successors: dict[str, Job] = {}
        """Newer drops that ended before the running job of their name; they are shown after it."""
        self._running: dict[str, Job] = {}
        self.changes = 0
        """How often the queue, or the state of a job, has changed."""
        self.ended = deque(ledger.last(20), 20)
        """The last jobs that have ended."""
        self.counts = dict.fromkeys((*sorted(state.value for state in FINAL), "retries"), 0)

    @property
    def now(self) -> str:
        return utc(self._clock())

    def seq(self) -> int:
        """The next sequence number: it increases strictly, across crashes, with the number of daemon starts in the upper half."""
        self._count += 1
        return (self._ledger.starts << 32) + self._count

    def next_place(self) -> float:
        """The `ready_at` of a song that becomes ready now: later than all others, also where the clock was put back."""
        return max(self._clock(), math.nextafter(self._latest, math.inf))

    # ---- who there is

    def waiting(self, name: str) -> Job | None:
        """The job of a name that waits for its song to be ready, or for its turn."""
        job = self.successors.get(name) or self.active.get(name)
        return job if job is not None and job.state is State.WAITING else None

    def present(self, job: Job) -> Job:
        """The job as it is now; one that is over as it was."""
        return self._by_id.get(job.job_id, job)

    def newest(self, name: str) -> Job | None:
        """The current job of a name, else the last one that it had."""
        found = self.successors.get(name) or self.active.get(name) or self._ledger.latest(name)
        return found if isinstance(found, Job) else None

    def foreign(self, name: str) -> Foreign | None:
        """The last job that the name had, where another version has written it and this one cannot read it."""
        last = None if name in self.active else self._ledger.latest(name)
        return last if isinstance(last, Foreign) else None

    def result(self, job: Job) -> Job | None:
        """The newest job that has computed what `job` is to become."""
        return self._ledger.result(job.result_key) if job.result_key else None

    @property
    def running(self) -> list[Job]:
        """The jobs in flight, the one that is furthest along first."""
        return list(self._running.values())

    @property
    def queue_length(self) -> int:
        return len(self._queue)

    def queue(self) -> list[Job]:
        """The jobs that wait for their turn, in the order of work."""
        return list(self.queued())

    def queued(self) -> Iterator[Job]:
        """The jobs of `queue` one by one, for a caller that needs only the first; the table must not change meanwhile."""
        return (self._by_id[job_id] for job_id in self._queue)

    def etas(self) -> tuple[float | None, ...]:
        """Seconds until each of the first songs in the queue is done; None while that is unknown."""
        times = tuple(self._pace.queue(self.running, jobs := list(islice(self.queued(), PLACES)), self._devices()))
        self._etas = {job.job_id: eta_s for job, eta_s in zip(jobs, times, strict=True)}
        return times

    def _eta(self, job: Job) -> float | None:
        """The same of one job in the queue, which ten thousand may ask for at once: from that of the job before it."""
        if job.reason is not Reason.QUEUED:
            return None
        if (before := self._queue.before(job.job_id)) is None:
            (eta_s,) = self._pace.queue(self.running, [job], self._devices())
        else:
            begins, apart = self._etas.get(before), self._pace.apart_s(job, self._devices()[0])
            eta_s = None if begins is None or apart is None else round(begins + apart / len(self._devices()), 1)
        self._etas[job.job_id] = eta_s
        return eta_s

    def left(self, job: Job, tick: Tick) -> Progress:
        """The progress of a running job by what its worker says of the step, with the time that is left of all of it."""
        return self._pace.left(job, tick, self._devices()[0])

    # ---- what becomes of them

    def add(self, jobs: Iterable[Job]) -> None:
        """Take on new jobs, or those of a former daemon. A job whose name has a running one becomes its successor."""
        jobs = list(jobs)
        self._ledger.put(jobs)
        for job in jobs:
            self.kept.pop(job.name, None)
            older = self.active.get(job.name)
            if older is None:
                self._keep(job, self.active)
                self.write_sidecar(job)
            else:
                self._keep(job, self.successors)
                self.update(older, older.state, reason=older.reason, step=older.step)

    def recall_newer(self, job: Job) -> bool:
        """Remember, for the end of `job`, a newer drop of its name that has ended already; whether there is one."""
        newest = self._ledger.latest(job.name)
        if not isinstance(newest, Job) or newest.job_id == job.job_id or newest.stage is not Stage.FINISHED:
            return False
        self._ended_successors[job.name] = newest
        return True

    def update(self, job: Job, state: State, **changes: object) -> Job:
        """Move a job along the table of states and write its sidecar. Not durable."""
        newer = self.successors.get(job.name)
        if newer is not None and newer.job_id != job.job_id:
            changes["next"] = newer.job_id  # whoever changes the job may not know of it
        moved = move(job, state, at=self.now, **changes)
        self._replace(moved)
        self._log(job, moved)
        self.write_sidecar(moved)
        return moved

    def _log(self, before: Job, job: Job) -> None:
        """Log a change of state or reason; one of step alone, or that the scheduler tells for all songs, for debugging."""
        if (job.state, job.reason, job.step) == (before.state, before.reason, before.step):
            return
        is_new = job.state is not before.state
        is_lesser = job.reason is before.reason or {job.reason, before.reason} <= SHARED
        level = logging.INFO if is_new or not is_lesser else logging.DEBUG
        detail = f" ({job.reason or job.step})" if job.reason or job.step else ""
        detail += f": {job.message}" if job.reason and job.message else ""
        log.log(level, "%s: %s%s", job.shown, job.state, detail, extra=self.fields(job, is_new=is_new))

    def fields(self, job: Job, *, is_new: bool = True) -> dict[str, str]:
        """The journal's fields of an entry about the job."""
        return journal.about(job, device=self._devices()[0], is_new=is_new)

    def commit(self, job: Job, stage: Stage) -> Job:
        """Write the job with a new stage into the ledger: a promise, durable when this returns."""
        promised: Job = msgspec.structs.replace(job, stage=stage)
        self._ledger.put([promised])
        self._replace(promised)
        return promised

    def save_all(self, jobs: Iterable[Job]) -> None:
        """Write several jobs into the ledger as they are, all or none."""
        self._ledger.put(jobs)

    def save(self, job: Job) -> Job:
        """Write a job into the ledger as it is, in its present stage. Its sidecar stays as it was."""
        self._ledger.put([job])
        if job.job_id in self._by_id:
            self._replace(job)
        elif job.name in self.kept:
            self.kept[job.name] = job
        return job

    def close(self, job: Job) -> None:
        """Let go of a finished job. Its name is free, or its successor's."""
        self.counts[job.state.value] += 1
        self.ended.append(job)
        if self._pace.learn(job, self._devices()[0]):
            self._ledger.note(PACE, self._pace.measures)
        self._forget(job)
        if job.kept is not None:
            self.kept[job.name] = job
        if self._is_successor(job):
            self._ended_successors[job.name] = self.successors.pop(job.name)
            return
        self.active.pop(job.name, None)
        if (over := self._ended_successors.pop(job.name, None)) is not None:
            self.write_sidecar(self.save(msgspec.structs.replace(over, previous=Previous.of(job))))
        if (newer := self.successors.pop(job.name, None)) is not None:
            self.kept.pop(job.name, None)
            follows: Job = self.save(msgspec.structs.replace(newer, previous=Previous.of(over or job)))
            self._keep(follows, self.active)
            self.write_sidecar(follows)

    def _is_successor(self, job: Job) -> bool:
        return job.name in self.successors and self.successors[job.name].job_id == job.job_id

    def _keep(self, job: Job, place: dict[str, Job]) -> None:
        place[job.name] = job
        self._latest = max(self._latest, job.ready_at)
        before, self._by_id[job.job_id] = self._by_id.get(job.job_id), job
        is_moved = before is None or before.state is not job.state
        self.changes += self._queue.put(job) or is_moved
        if job.state is State.RUNNING:
            self._running[job.job_id] = job
        else:
            self._running.pop(job.job_id, None)

    def _replace(self, job: Job) -> None:
        """Put the new value of a job where its old one is."""
        self._keep(job, self.successors if self._is_successor(job) else self.active)

    def _forget(self, job: Job) -> None:
        self.changes += 1
        self._queue.drop(job.job_id)
        for known in (self._etas, self._running, self._by_id):
            known.pop(job.job_id, None)

    # ---- what others see of them

    def write_sidecar(self, job: Job) -> bool:
        """Write the job's sidecar, unless it still serves an older job. False where it cannot be written; the log says why."""
        self._keep_alive()
        if self._is_successor(job):
            return True
        position = self._queue.position(job.job_id)
        shown = self.document(job, seq=self.seq(), position=position, eta_s=self._eta(job) if position else None)
        return self.write(self._spool.sidecar(job.name), shown, durable=job.state in FINAL)

    def document(self, job: Job, **numbers: Any) -> status.Sidecar:
        """The job as its sidecar shows it; `numbers` are `seq`, and for one in the queue `position` and `eta_s`."""
        return status.sidecar(job, daemon=self._daemon, now=self.now, **numbers)

    def write_sidecars(self) -> None:
        """Write every sidecar again: the status folder is another one, or has come back."""
        self.unwritten.clear()
        for job in list(self.active.values()):
            self.write_sidecar(job)

    def write_unwritten(self) -> None:
        """Try the sidecars again that could not be written."""
        for job in list(self.active.values()) if self.unwritten else ():
            if self._spool.sidecar(job.name) in self.unwritten:
                self.write_sidecar(job)

    def write(self, path: Path, document: msgspec.Struct, *, durable: bool = False) -> bool:
        """Write a status file; False where that cannot be, which must not stop the work."""
        try:
            write_whole(path, status.encode(document), root=self._spool.status, durable=durable)
        except OSError as error:
            if path not in self.unwritten:
                log.error("%s cannot be written: %s", path, error)
            self.unwritten[path] = error.strerror or str(error)
            return False
        self.unwritten.pop(path, None)
        return True

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence on the status files that could not be written, and show what is true no more."""
        if not self.unwritten:
            return ()
        path, reason = next(iter(self.unwritten.items()))
        more = f", and {len(self.unwritten) - 1} more" if len(self.unwritten) > 1 else ""
        shown = os.fsencode(path).decode("utf-8", "replace")
        return (f"{shown}{more} cannot be written ({reason}), and shows what was true before: free it for the daemon.",)
