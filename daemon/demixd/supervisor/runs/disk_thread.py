"""What takes as long as the disk does, on threads: snapshots, looks at earlier results, hashes.

The main loop never waits. What came of it is posted to the main loop.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from demixd.errors import AudioProcessingError
from demixd.protocol.identity import Identity
from demixd.protocol.job import Job
from demixd.spool import nofollow
from demixd.spool.files import sha256_of
from demixd.spool.tree import SNAPSHOT, Spool
from demixd.supervisor.jobs import dedupe
from demixd.supervisor.runs import snapshot
from demixd.supervisor.runs.snapshot import Snapshot

JOIN_S = 3.0
"""How long the main loop waits for a thread that was told to stop."""


class SnapshotTaken(msgspec.Struct, frozen=True):
    """A snapshot was taken in `seconds`, or could not be. `disk` tells which, since one that was given up is taken again."""

    disk: "DiskThread"
    result: Snapshot | OSError | AudioProcessingError
    seconds: float


class ResultChecked(msgspec.Struct, frozen=True):
    """Whether the result of `earlier` can stand for that of the job."""

    disk: "DiskThread"
    earlier: Job
    is_good: bool


class DiskThread:
    """The disk work of one job, one thing at a time; `post` takes what came of it to the main loop."""

    def __init__(self, spool: Spool, post: Callable[[SnapshotTaken | ResultChecked], None]) -> None:
        self._spool = spool
        self._post = post
        self._abandon = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an answer will be posted, or was and has not been joined yet."""
        return self._thread is not None

    def take(self, job: Job) -> None:
        """Copy the song into its work folder."""
        self._start(self._take, job)

    def check(self, earlier: Job) -> None:
        """See whether the result of `earlier` is still there and whole."""
        self._start(self._check, earlier)

    def abandon(self) -> None:
        """Stop soon; the answer that is posted then says so."""
        self._abandon.set()

    def join(self) -> None:
        """Wait for the thread, but not for long: a share that hangs must not keep the daemon from stopping."""
        if self._thread:
            self._thread.join(JOIN_S)
            self._thread = None

    def _start(self, work: Callable[[Job], None], job: Job) -> None:
        self._abandon.clear()
        self._thread = threading.Thread(target=work, args=(job,), name="disk", daemon=True)
        self._thread.start()

    def _take(self, job: Job) -> None:
        song, copy = self._spool.song(job.name), self._spool.tmp(job.job_id) / SNAPSHOT
        began = time.monotonic()
        result: Snapshot | OSError | AudioProcessingError
        try:
            result = snapshot.take(
                song,
                copy,
                job.identity,
                self._abandon.is_set,
                inbox=self._spool.inbox,
                work=self._spool.outbox,
            )
        except (OSError, AudioProcessingError) as error:
            result = error
        self._post(SnapshotTaken(self, result, round(time.monotonic() - began, 3)))

    def _check(self, earlier: Job) -> None:
        is_good = dedupe.still_good(self._spool.outbox, earlier, self._abandon.is_set)
        self._post(ResultChecked(self, earlier, is_good))


class Rehash:
    """The hash of a song that may be the one we know under another inode: a restored backup, a share mounted again.

    One song at a time; whoever asks comes back later. `ring` is called, on the thread, when an answer is there.
    """

    def __init__(self, inbox: Path, ring: Callable[[], None]) -> None:
        self._inbox = inbox
        self._ring = ring
        self._known: dict[Path, tuple[Identity, str]] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def sha256(self, song: Path, identity: Identity) -> str | None:
        """The hash of `song` as it looks in `identity`, told once; None while it is not known yet."""
        known = self._known.pop(song, None)
        if known is not None and known[0] == identity:
            return known[1]
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._hash, args=(song, identity), name="rehash")
            self._thread.start()
        return None

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _hash(self, song: Path, identity: Identity) -> None:
        try:
            with os.fdopen(nofollow.read_file(self._inbox, song), "rb", buffering=0) as file:
                if Identity.of(os.fstat(file.fileno())) != identity:
                    return
                sha256 = sha256_of(file, self._stop.is_set)
        except OSError:
            return  # it went, or cannot be read: the next look says so
        if not self._stop.is_set():
            self._known[song] = (identity, sha256)
            self._ring()
