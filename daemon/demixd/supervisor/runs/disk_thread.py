"""Points 1 and 2 on a thread: the snapshot of a song, and the look at an earlier result of the same song.

Copying and hashing take as long as the disk does, and the main loop never waits. One thing at a time for each song; what
came of it is posted to the main loop.
"""

import threading
import time
from collections.abc import Callable

import msgspec

from demixd.protocol.job import Job
from demixd.spool.tree import Spool
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.runs import snapshot
from demixd.supervisor.runs.snapshot import Snapshot

JOIN_S = 3.0
"""How long the main loop waits for a thread that was told to stop."""


class SnapshotTaken(msgspec.Struct, frozen=True):
    """It took `seconds`. A job's snapshot can be taken again after it was given up: `capture` tells whose word this is."""

    disk: "DiskThread"
    result: Snapshot | OSError
    seconds: float


class ResultChecked(msgspec.Struct, frozen=True):
    """Whether the result of `earlier` can stand for that of the job."""

    disk: "DiskThread"
    earlier: Job
    is_good: bool


class DiskThread:
    """`post` takes what happened to the main loop."""

    def __init__(self, spool: Spool, post: Callable[[SnapshotTaken | ResultChecked], None]) -> None:
        self._spool = spool
        self._post = post
        self._abandon = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something will be posted, or was and has not been taken (`join`)."""
        return self._thread is not None

    def take(self, job: Job) -> None:
        """Copy the song into its work folder."""
        self._start(self._take, job)

    def check(self, earlier: Job) -> None:
        """See whether the result of `earlier` is still there, whole."""
        self._start(self._check, earlier)

    def abandon(self) -> None:
        """Stop as soon as may be; what is posted then says so."""
        self._abandon.set()

    def join(self) -> None:
        """Wait for the thread; not for long, since a share that hangs must not keep the daemon from stopping."""
        if self._thread:
            self._thread.join(JOIN_S)
            self._thread = None

    def _start(self, work: Callable[[Job], None], job: Job) -> None:
        self._abandon.clear()
        self._thread = threading.Thread(target=work, args=(job,), name="capture", daemon=True)
        self._thread.start()

    def _take(self, job: Job) -> None:
        song, copy = self._spool.song(job.name), self._spool.tmp(job.job_id) / "song"
        began = time.monotonic()
        result: Snapshot | OSError
        try:
            result = snapshot.take(
                song,
                copy,
                job.identity,
                self._abandon.is_set,
                inbox=self._spool.inbox,
                work=self._spool.scratch_root,
            )
        except OSError as error:
            result = error
        self._post(SnapshotTaken(self, result, round(time.monotonic() - began, 3)))

    def _check(self, earlier: Job) -> None:
        assert earlier.output is not None
        folder = self._spool.outbox / earlier.output.dir
        is_good = dedupe.still_good(folder, earlier.job_id, self._abandon.is_set)
        self._post(ResultChecked(self, earlier, is_good))
