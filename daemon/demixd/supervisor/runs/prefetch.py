"""What is done for a song before its turn: its snapshot is taken, and the worker decodes it.

Nobody else sees anything of it: the song waits; only of one that has a twin in flight is it said what it waits for.
Whatever goes wrong here is no answer, the song meets it again in its own turn. And whatever changes about the song makes
this worthless: it is dropped.
"""

import msgspec

from demixd.protocol.job import Job, State
from demixd.protocol.track import Track, pcm_bytes
from demixd.spool.room import beyond_reserve
from demixd.supervisor.runs import snapshot
from demixd.supervisor.runs.acceptance import earlier_result
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import DiskThread, SnapshotTaken
from demixd.supervisor.runs.outcomes import after_twin
from demixd.supervisor.runs.snapshot import Snapshot
from demixd.supervisor.workers.manager import WorkerManager
from demixd.worker.messages import Forget, Prepare


class Prefetch:
    """One song. Its disk thread is at work first, then the worker (`is_decoding`)."""

    def __init__(self, job: Job, context: Context) -> None:
        self.job = job
        self._context = context
        self.disk = DiskThread(context.spool, context.post)
        self.taken: SnapshotTaken | None = None
        self.is_at_worker = False
        self.is_decoding = False

    def begin(self) -> None:
        try:
            self._context.spool.make_work(self.job.job_id)
        except OSError:
            return
        self._context.prepared.add(self.job.job_id)
        self.disk.take(self.job)

    def on_snapshot(self, taken: SnapshotTaken) -> None:
        """The song is copied: have it decoded, unless it may be incomplete, or its result is there or being made."""
        self.disk.join()
        self.taken = taken
        made = taken.result
        if not self._context.worker.is_ready or not isinstance(made, Snapshot) or made.sha256 is None:
            return
        if made.has_hole or self.job.wait_for_sha256 not in (None, made.sha256):
            return
        earlier = earlier_result(msgspec.structs.replace(self.job, sha256=made.sha256), self._context)
        job = earlier.job
        if earlier.twin is not None:
            self._await(earlier.twin, job)
        if earlier.twin is not None or earlier.done is not None:
            return
        self.is_at_worker = self.is_decoding = True
        limit_s = self._context.config.limits.max_duration_s
        self._context.worker.send(Prepare.of(job, self._context.spool, limit_s))

    def _await(self, twin: Job, job: Job) -> None:
        """Have the song, as `job` with its hash, wait for the end of its twin; another one is prefetched meanwhile."""
        waiting = self._context.jobs.waiting(job.name)
        if waiting is not None and self.is_for(waiting):
            waits = after_twin(twin)
            told = {"reason": waits.reason, "message": waits.message}
            self._context.jobs.update(waiting, State.WAITING, sha256=job.sha256, result_key=job.result_key, **told)

    def on_prepared(self) -> None:
        self.is_decoding = False

    def is_for(self, job: Job) -> bool:
        """Whether it was made for `job` as it is now: the same song, with the same options."""
        mine = self.job
        return (job.job_id, job.identity, job.options, job.options_file, job.ready_at) == (
            mine.job_id,
            mine.identity,
            mine.options,
            mine.options_file,
            mine.ready_at,
        )

    def still_holds(self) -> bool:
        """Whether there is a snapshot, or will be, and the song is still what was copied."""
        if self.taken is None:
            return self.disk.is_busy  # which looks at the song itself when it is through
        made = self.taken.result
        if not isinstance(made, Snapshot) or made.sha256 is None:
            return False
        spool = self._context.spool
        return snapshot.still_is(spool.song(self.job.name), self.job.identity, spool.inbox)

    def leave(self, worker: WorkerManager) -> None:
        """Go on with another worker, which decodes the song itself."""
        self._recall()
        self._context = msgspec.structs.replace(self._context, worker=worker)

    def _recall(self) -> None:
        """Have the worker forget the song."""
        if self.is_at_worker:
            self._context.worker.send(Forget(job_id=self.job.job_id))
        self.is_at_worker = self.is_decoding = False

    def drop(self) -> None:
        """Give it up: the song's turn does not come, or the song has changed."""
        self._context.prepared.discard(self.job.job_id)
        self.disk.abandon()
        self.disk.join()
        self._recall()
        self._context.spool.remove_work(self.job.job_id)


def has_room(job: Job, context: Context) -> bool:
    """Whether the disk has room for a copy of `job`'s song beside all that the jobs in flight can still write there."""
    need = job.identity.size
    for each in context.jobs.running:
        need += _needed(each, each.track) if each.track else 0
    try:
        return beyond_reserve(context.spool.private)[0] >= need
    except OSError:
        return False


def _needed(job: Job, track: Track) -> int:
    """Bytes of stems that a job can need at most."""
    rate = max(track.rate, job.options.rate) if isinstance(job.options.rate, int) else track.rate
    return len(job.options.stems) * pcm_bytes(int(track.duration_s * rate), track.channels)
