"""What is done for a song before its turn: its snapshot is taken, and the worker decodes it.

Nobody else sees anything of it: the song waits. Whatever goes wrong here is no answer, the song meets it again in its
own turn. And whatever changes about the song makes this worthless: it is dropped.
"""

import shutil

import msgspec

from demixd.protocol.job import Job
from demixd.protocol.track import Track, pcm_bytes
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.runs import snapshot
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import DiskThread, SnapshotTaken
from demixd.supervisor.runs.snapshot import Snapshot
from demixd.worker.messages import Forget, Prepare

PACKED = 32
"""A song's spool can be that many times larger than its file: MP3 at 88 kbit/s."""

PARTS = 7
"""Spools of a song's length beside its stems: at most six parts of a model, and the song as the model hears it."""

MODEL = (44_100, 2)
"""Rate and channels of what the models hear, about."""


class Prefetch:
    """One song. `capture` is at work first, then the worker (`is_decoding`)."""

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
        self.disk.take(self.job)

    def on_snapshot(self, taken: SnapshotTaken) -> None:
        """The song is copied: it can be decoded, unless there is more to be said about it."""
        self.disk.join()
        self.taken = taken
        handle, engine, made = self._context.workers.process, self._context.workers.engine, taken.result
        if handle is None or engine is None or not isinstance(made, Snapshot) or made.sha256 is None:
            return
        job = msgspec.structs.replace(self.job, sha256=made.sha256)
        job = msgspec.structs.replace(job, result_key=dedupe.key(job, engine.model_sha256))
        is_there = self._context.twin(job) is not None or (not job.force and self._context.jobs.result(job) is not None)
        if is_there or made.has_hole or job.wait_for_sha256 not in (None, job.sha256):
            return
        tmp = self._context.spool.tmp(job.job_id)
        self.is_at_worker = self.is_decoding = True
        handle.send(
            Prepare(
                job_id=job.job_id,
                snapshot=str(tmp / "song"),
                tmp=str(tmp),
                max_duration_s=self._context.config.limits.max_duration_s,
            )
        )

    def on_prepared(self) -> None:
        self.is_decoding = False

    def is_for(self, job: Job) -> bool:
        """Whether this is what `job` needs: the same job, of the same song, with the same options."""
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

    def drop(self) -> None:
        """It is worth nothing any more."""
        self.disk.abandon()
        self.disk.join()
        if self.is_at_worker and self._context.workers.process is not None:
            self._context.workers.process.send(Forget(job_id=self.job.job_id))
        self._context.spool.remove_work(self.job.job_id)


def has_room(job: Job, context: Context) -> bool:
    """Whether the disk has room for `job` beside all that the jobs in flight can still need."""
    need = PACKED * job.identity.size
    for each in context.in_flight:
        need += _needed(each, each.track) if each.track else 0
    try:
        return all(shutil.disk_usage(folder).free >= need for folder in (context.spool.scratch, context.spool.private))
    except OSError:
        return False


def _needed(job: Job, track: Track) -> int:
    """Bytes of spools and stems, as large as they can be."""
    rate, channels = MODEL
    spool = max(pcm_bytes(track.frames, track.channels), pcm_bytes(int(track.duration_s * rate), channels))
    return (PARTS + len(job.options.stems)) * spool
