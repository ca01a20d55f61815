"""Whose turn it is, on which worker; and why the others wait.

A free worker takes the first song in the queue's order. With several workers, among songs of equal priority, one goes
before the first whose model the worker has warm, while another worker has the first one's model, has prepared the first
one already, or the first has waited for less than `PASSED_S`.

Beside a song in flight only the one that comes next matters, and only if it wants the model that is warm: it is prepared,
and begins when the model is free. Another model is loaded when nothing is in flight on the worker. A song that runs alone
has all workers to itself, for it may need the disk alone.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from itertools import islice, takewhile

import msgspec

from demixd.protocol.job import Job, Reason, State
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.jobs.held import HeldSongs
from demixd.supervisor.jobs.queue import SHARED
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.lane import Lane
from demixd.supervisor.runs.runner import Runner
from demixd.supervisor.workers.manager import NO_WORKER, Have

log = logging.getLogger(__name__)

WAITS = {NO_WORKER: Reason.NO_WORKER, "fetching": Reason.MODEL_MISSING, "tuning": Reason.QUEUED}
"""States of a worker that take long, and what songs wait for in them."""

PASSED_S = 60.0
"""How long the first song of the queue may be passed over for one whose model is warm."""

LOOKED_AT = 100
"""How many songs are looked at for one whose model is warm, beside those that other workers may have prepared."""


class Scheduler:
    """Starts the next jobs once workers are free. `now` is monotonic, in seconds."""

    def __init__(self, context: Context, runner: Runner) -> None:
        self._context, self._jobs, self._pool = context, context.jobs, context.pool
        self._folders, self._pause = context.folders, context.pause
        self._runner = runner
        self._held = HeldSongs(context.jobs, context.pause)
        self._marked = False
        self._twins: set[str] = set()
        """The ids of songs in flight that others wait for."""
        self._were_missing = False
        self._shown: dict[tuple[Reason, str], list[Job]] = {}
        """The songs that have come to wait for something else in this turn, by what that is."""

    @property
    def has_songs(self) -> bool:
        """Whether songs wait for a worker, and for nothing else."""
        return next(self._open(), None) is not None

    def begin(self, now: float) -> None:
        """Start the next jobs, and say why others wait: in the log once, with the number of songs."""
        self._begin(now)
        for (reason, message), jobs in self._shown.items():
            who = jobs[0].shown if len(jobs) == 1 else f"{len(jobs)} songs"
            log.info("%s: waiting (%s)%s", who, reason, f": {message}" if message else "")
        self._shown.clear()

    def _begin(self, now: float) -> None:
        """Start the next jobs, where their models are warm and the folders are there; prefetch those after."""
        if self._pause.is_now:
            self._runner.put_back_all(now)
        if not self._jobs.running and not self._are_folders_there():
            return
        self._forget_twins()
        self._held.tell(now)
        # Who can begin at once chooses first; what is left is prepared, and models are loaded for it.
        for lane in self._free_lanes:
            self._choose(lane, set(), now, loads=False)
        for lane in self._runner.lanes:
            if lane.has_room_beside and (following := self._next(lane, set(), now)) is not None:
                self._start(following, lane)
        self._prepare(now)
        taken: set[str] = set()
        for lane in self._free_lanes:
            self._choose(lane, taken, now, loads=True)
        if self._were_missing and not self._folders.missing:
            self._were_missing = False
            self._queue_again()

    def _prepare(self, now: float) -> None:
        """Have each worker that has songs prepare one of those that come next; who has one already keeps it."""
        lanes = self._runner.lanes
        ready = (job for job in self._open() if not self._is_held(job, now) and self._folders.may_hold(job.name))
        ahead = {job.job_id: job for job in islice(ready, len(lanes))}
        is_held = bool(self._folders.missing) or self._is_one_alone
        taken = {lane.prepares for lane in lanes}
        for lane in lanes:
            job = ahead.get(lane.prepares or "")
            is_kept = job is not None and lane.has_prepared(job) and lane.worker.serves(job.options)
            if (is_kept and not is_held) or self._stays_prepared(lane):
                continue
            own = lane.prepares
            is_one_left = own is not None or len(taken) <= self._jobs.queue_length
            following = self._next(lane, taken - {own}, now) if lane.runs and is_one_left else None
            lane.prepare(following)
            taken.discard(own)
            taken.add(following.job_id if following else None)

    def _stays_prepared(self, lane: Lane) -> bool:
        """Whether the song that a worker has prepared waits for the end of a pause."""
        if lane.prepares is None or self._pause.told is None:
            return False
        song = next((job for job in self._jobs.queued() if job.job_id == lane.prepares), None)
        return song is not None and lane.has_prepared(song) and self._pause.holds(song)

    def _are_folders_there(self) -> bool:
        if self._folders.missing:
            self._were_missing = True
            self._mark_all(Reason.OUTBOX_MISSING, next(iter(self._folders.missing.values())))
            return False
        if self._were_missing:
            self._runner.end_pauses()  # whoever paused, paused for what is there again
        return True

    @property
    def _is_one_alone(self) -> bool:
        """Whether a song runs that has all workers to itself."""
        return any(job.runs_alone for job in self._jobs.running)

    @property
    def _free_lanes(self) -> list[Lane]:
        """The one whose machine has failed last comes last: what did not fit there is tried elsewhere."""
        free = (lane for lane in self._runner.lanes if not lane.runs and lane.worker.takes_songs)
        return sorted(free, key=lambda lane: lane.failed_at)

    def _choose(self, lane: Lane, taken: set[str], now: float, *, loads: bool) -> None:
        """Start a job on a free worker, or (`loads`) have its model loaded; `taken` are those that others load theirs for."""
        if self._folders.missing or self._is_one_alone:
            return
        for job in self._candidates(lane, taken, now, marks=True):
            if job.runs_alone and self._jobs.running:
                return  # it has all workers to itself, and nothing more begins before it
            if not loads and not lane.worker.serves(job.options) and not lane.worker.lacks(job.options, now):
                return
            match lane.worker.want(job.options, now):
                case Have.READY:
                    self._start(job, lane)
                    self._unmark_all()
                    return
                case Have.MISSING:
                    self._mark(job, Reason.MODEL_MISSING, lane.worker.why_missing(job.options))
                case Have.BUSY:
                    taken.add(job.job_id)
                    self._wait_for_a_worker(now)
                    return

    def _start(self, job: Job, lane: Lane) -> None:
        if job.reason in SHARED:
            job = msgspec.structs.replace(job, reason=Reason.QUEUED, message="")
        self._runner.start(job, lane)

    def _next(self, lane: Lane, taken: Collection[str | None], now: float) -> Job | None:
        """The job that can run beside those in flight, with the model that is warm; None where none can."""
        if not lane.runs or not lane.worker.takes_songs or self._folders.missing or self._is_one_alone:
            return None
        for job in self._candidates(lane, taken, now, marks=False):
            if lane.worker.serves(job.options):
                return None if job.runs_alone else job
            if not lane.worker.lacks(job.options, now):
                return None  # its model is loaded first
        return None

    def _candidates(self, lane: Lane, taken: Collection[str | None], now: float, *, marks: bool) -> Iterator[Job]:
        """The jobs that a worker may take, in the order in which it is to ask for them; `marks`: say why others wait."""
        is_first = len(self._runner.lanes) > 1
        for job in self._open():
            if job.job_id in taken or self._is_held(job, now):
                continue
            if not self._folders.may_hold(job.name):
                if marks:
                    self._mark(job, Reason.OUTBOX_MISSING, "The inbox is another folder now, without this song.")
                continue
            if is_first and (better := self._better(lane, job, taken, now)) is not None:
                yield better
            is_first = False
            yield job

    def _better(self, lane: Lane, first: Job, taken: Collection[str | None], now: float) -> Job | None:
        """A job of the same priority that goes before the first one on this worker; None where there is none."""
        others = [each for each in self._runner.lanes if each is not lane]
        prepared = {each.prepares for each in others}
        is_prepared = first.job_id in prepared
        if first.runs_alone or (lane.worker.serves(first.options) and not is_prepared):
            return None
        is_served = any(each.worker.serves(first.options) for each in others)
        if not is_prepared and not is_served and self._context.clock.wall() - first.ready_at >= PASSED_S:
            return None
        for job in islice(self._open(), LOOKED_AT + len(others)):
            if job.priority == first.priority and job.job_id not in taken and not self._is_held(job, now):
                is_free = job.job_id not in prepared and not job.runs_alone
                if is_free and lane.worker.serves(job.options) and self._folders.may_hold(job.name):
                    return job
        return None

    def _open(self) -> Iterator[Job]:
        """The songs in the queue that no pause holds: by their priority these are the first ones."""
        return takewhile(lambda job: not self._pause.holds(job), self._jobs.queued())

    def _is_held(self, job: Job, now: float) -> bool:
        """Whether the job pauses, or waits for the older job of its name or for its twin."""
        newer = self._jobs.successors.get(job.name)
        is_newer = newer is not None and newer.job_id == job.job_id
        return is_newer or self._runner.pauses(job, now) or self._has_twin(job)

    def _has_twin(self, job: Job) -> bool:
        if (twin := dedupe.twin_of(job, self._jobs.running)) is None:
            return False
        self._twins.add(twin.job_id)
        return True

    def _forget_twins(self) -> None:
        """Songs whose twin is over wait for their turn alone."""
        if self._twins and not self._twins <= {job.job_id for job in self._jobs.running}:
            self._twins.clear()
            self._marked = True
            self._unmark_all()

    def _queue_again(self) -> None:
        """All folders are there again: jobs that waited for them wait for their turn."""
        for job in self._jobs.queue():
            if job.reason is Reason.OUTBOX_MISSING and self._folders.may_hold(job.name):
                self._unmark(job)

    def _wait_for_a_worker(self, now: float) -> None:
        """While a model is loaded, which takes seconds, the jobs are queued; while it is fetched or tuned, or no machine has
        room for a worker, they say so."""
        told = (lane.worker for lane in self._runner.lanes if lane.worker.state in WAITS)
        worker = None if self._pool.best.is_ready else next(told, None)
        if worker is None:
            self._unmark_all()
            return

        def is_told(job: Job) -> bool:
            """Whether it waits for something else, and says so."""
            return self._pause.holds(job) or not self._folders.may_hold(job.name) or worker.lacks(job.options, now)

        self._mark_all(WAITS[worker.state], worker.message, but=is_told)

    def _unmark_all(self) -> None:
        """Songs wait for their turn alone, but for those whose own model or folder is not there, or whose twin runs."""
        if self._marked:
            self._marked = False
            for job in self._jobs.queue():
                is_there = self._folders.may_hold(job.name) and not self._pool.why_missing(job.options)
                if is_there and not self._has_twin(job) and not self._pause.holds(job):
                    self._unmark(job)

    def _mark_all(self, reason: Reason, message: str, but: Callable[[Job], bool] = lambda _: False) -> None:
        for job in self._jobs.queue():
            if not but(job):
                self._mark(job, reason, message)

    def _mark(self, job: Job, reason: Reason, message: str) -> None:
        """Show why a job in the queue waits."""
        self._marked = True
        self._show(job, reason, message)

    def _unmark(self, job: Job) -> None:
        if job.reason in SHARED and job.reason is not Reason.PAUSED:
            self._show(job, Reason.QUEUED, "")

    def _show(self, job: Job, reason: Reason, message: str) -> None:
        if (job.reason, job.message) != (reason, message):
            job = self._jobs.update(job, State.WAITING, reason=reason, message=message)
            self._shown.setdefault((reason, message), []).append(job)
            if self._pause.holds(job):
                self._held.again()
