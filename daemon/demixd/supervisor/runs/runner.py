"""The runs in progress, in a lane for each worker; what happens to songs is handed on from here."""

import logging

import msgspec

from demixd.config import Config
from demixd.protocol.job import Job
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import ResultChecked, SnapshotTaken
from demixd.supervisor.runs.lane import Lane
from demixd.supervisor.runs.outcomes import PAUSED
from demixd.supervisor.runs.run import Run
from demixd.supervisor.workers.line import Died
from demixd.supervisor.workers.manager import WorkerManager
from demixd.worker.messages import FromWorker

log = logging.getLogger(__name__)


class Runner:
    """Starts runs, and hands on to them what happens."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lanes: list[Lane] = []

    def reconfigure(self, config: Config) -> None:
        """From now on another configuration holds; the runs in progress end by the one that they began with."""
        self._context = msgspec.structs.replace(self._context, config=config)
        for lane in self._lanes:
            lane.reconfigure(self._context)

    # ---- who there is

    @property
    def lanes(self) -> list[Lane]:
        """The lane of each worker that there is now."""
        workers = list(self._context.pool)
        if [lane.worker for lane in self._lanes] != workers:
            there = {id(lane.worker): lane for lane in self._lanes}
            for lane in self._lanes:
                if lane.worker not in workers:
                    lane.drop()
            self._lanes = [
                there.get(id(each)) or Lane(msgspec.structs.replace(self._context, worker=each)) for each in workers
            ]
        return self._lanes

    @property
    def _runs(self) -> list[Run]:
        return [run for lane in self._lanes for run in lane.runs]

    @property
    def at_work(self) -> set[str]:
        """The ids of the jobs that have a work folder."""
        ahead = {lane.prefetch.job.job_id for lane in self._lanes if lane.prefetch is not None}
        return ahead | {run.job.job_id for run in self._runs}

    @property
    def busy(self) -> set[str]:
        """The ids of the workers that have songs."""
        return {lane.worker.place.id for lane in self._lanes if lane.runs}

    def runs(self, name: str) -> bool:
        return any(run.job.name == name for run in self._runs)

    def pauses(self, job: Job, now: float) -> bool:
        """Whether the job has hit an obstacle not long ago, and is left alone."""
        return now < self._context.retry_at.get(job.job_id, now)

    def end_pauses(self) -> None:
        """Let every paused job be tried: what was in their way is gone."""
        self._context.retry_at.clear()

    @property
    def is_stopping_some(self) -> bool:
        """Whether a job that was cancelled has not ended yet."""
        return any(run.is_cancelled for run in self._runs)

    # ---- what comes next

    def start(self, job: Job, lane: Lane) -> None:
        """Start the run of a job whose turn it is, with what was done ahead for it, whichever worker was to have it."""
        ahead = [(each, each.take_prefetch(job)) for each in self.lanes]
        elsewhere, prefetch = next((each for each in ahead if each[1] is not None), (lane, None))
        if prefetch is not None:
            self._context.prepared.discard(job.job_id)
            if elsewhere is not lane:
                prefetch.leave(lane.worker)
        lane.start(job, prefetch)
        self._clear()

    # ---- what happens

    def on_snapshot(self, taken: SnapshotTaken) -> None:
        for lane in self._lanes:
            if lane.prefetch is not None and lane.prefetch.disk is taken.disk:
                lane.prefetch.on_snapshot(taken)
        for run in self._runs:
            if run.disk is taken.disk:
                run.on_snapshot(taken)
        self._clear()

    def on_result(self, checked: ResultChecked) -> None:
        for run in self._runs:
            if run.disk is checked.disk:
                run.on_result(checked)
        self._clear()

    def on_message(self, worker: WorkerManager, message: FromWorker) -> None:
        """Hand on what a worker says of a song."""
        self._lane_of(worker).on_message(message)
        self._clear()

    def on_death(self, worker: WorkerManager, died: Died) -> None:
        lane = self._lane_of(worker)
        lane.on_fault(died.how) if died.is_ours else lane.on_death(died.how, is_lost=died.is_lost)
        self._clear()

    def look_for_cancels(self, now: float) -> bool:
        """Stop the runs whose cancel files are there; whether there was one."""
        seen = [run for run in self._runs if run.sees_cancel()]
        for run in seen:
            run.stop(now)
        self._clear()
        return bool(seen)

    def cancel(self, name: str, now: float) -> None:
        """Stop the run of a name, if there is one."""
        for run in self._runs:
            if run.job.name == name:
                run.stop(now)
        self._clear()

    def cancel_all(self, now: float) -> None:
        for run in self._runs:
            run.stop(now)
        self._clear()

    def put_back_all(self, now: float) -> None:
        """Stop all runs, so that their jobs wait again."""
        for run in self._runs:
            run.stop(now, PAUSED)
        self._clear()

    def tick(self, now: float) -> None:
        """Kill a worker that has not stopped a song in time, or has stalled."""
        for lane in self._lanes:
            lane.tick(now)
        self._clear()

    def give_back(self) -> None:
        """The daemon stops: the jobs in flight wait again."""
        for lane in self._lanes:
            lane.drop()
        for run in self._runs:
            run.give_back()
        self._clear()

    def abandon(self) -> None:
        """The daemon breaks off: end the threads, and write nothing down."""
        disks = [run.disk for run in self._runs]
        for disk in disks + [lane.prefetch.disk for lane in self._lanes if lane.prefetch]:
            disk.abandon()
            disk.join()

    def _lane_of(self, worker: WorkerManager) -> Lane:
        return next(lane for lane in self.lanes if lane.worker is worker)

    def _clear(self) -> None:
        """Let go of the runs that are over."""
        for lane in self._lanes:
            lane.runs[:] = [run for run in lane.runs if not run.is_over]
