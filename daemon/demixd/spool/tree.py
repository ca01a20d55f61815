"""The tree of the spool: where each folder and file lies, and the work areas of jobs.

    SPOOL/
      inbox/    Song.flac                   a song
                Song.flac.job.json          its options
                Song.flac.cancel   .cancel  ends its job; ends all jobs
                .pause                      nothing is begun while it is there
                .demixd-JOB                 an original on its way to done/ or failed/
                .demixd-lease               a scratch file, on which leases are tried
      status/   Song.flac.json              the sidecar of the song's job
                _daemon.json  _inbox.json   the heartbeat; the entries of the inbox that are no job
                index.html                  the daemon for people, where `[status] page` asks for it
                _ends.jsonl                 every job that has ended, a line each
                .demixd-lock
      outbox/   Song/  vocals.flac ...  stems.json      a result and its manifest
                .demixd/  lock  JOB/out/  JOB/tmp/      private (0700): the result to be, and the snapshot
      done/  failed/                        originals of jobs that have ended
    WORK/                                   files without a name, of sound that memory does not hold ([paths] work)
    STATE/      ledger.sqlite3  lock  models/  compiled/

A sidecar's path follows from the dropped name alone. A file that other programs read appears by one rename.
"""

import hashlib
import logging
import os
import re
from pathlib import Path

from demixd.config import Config
from demixd.protocol.result_names import LONGEST
from demixd.spool import nofollow, private
from demixd.spool.files import HIDDEN

log = logging.getLogger(__name__)

OPTIONS = ".job.json"
"""Suffix of the options that come with a song."""
CANCEL = ".cancel"
"""Suffix of a cancel file; alone, in the inbox's root, it is the name of the one for all jobs."""
PAUSE = ".pause"
"""The file in the inbox's root that keeps songs from being begun."""
SIDECAR = ".json"
"""Suffix of a sidecar."""
DAEMON = "_daemon.json"
INBOX = "_inbox.json"
ENDS = "_ends.jsonl"
PRIVATE = ".demixd"
OUT = "out"
TMP = "tmp"
LOCK = f"{HIDDEN}lock"
"""The lock file in a folder that others see."""
PRIVATE_LOCK = "lock"
"""The lock file in a folder of our own: the state folder, and the private one of the outbox."""
LEASE = f"{HIDDEN}lease"
LEDGER = "ledger.sqlite3"
KEPT_OPEN = (PRIVATE_LOCK, LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm")
"""The files of the state folder that the daemon writes to as long as it runs, the last two SQLite's beside the ledger."""
SNAPSHOT = "song"
"""The private copy of the song, in the job's `tmp`."""

DEEPEST = 200
"""Folders within each other that are walked, in any folder of the share."""
LONGEST_PATH = 2000
"""Bytes of a folder's path below the inbox that is walked, as the outbox spells it: with room for those of the other parts of
the spool, where it is mirrored, and for what follows, in the 4,096 that the kernel takes."""

_ID = re.compile("[0-9a-f]{32}")
"""A job's id."""


def short(name: str) -> str:
    """`name`; of one over 120 bytes the first 80, cut at a character, then `~` and 16 hex digits of the name's sha256."""
    raw = os.fsencode(name)
    if len(raw) <= LONGEST:
        return name
    # At most three bytes back: a character has no more bytes than that behind its first.
    cut = next((at for at in range(80, 76, -1) if raw[at] & 0xC0 != 0x80), 80)
    return os.fsdecode(raw[:cut]) + "~" + hashlib.sha256(raw).hexdigest()[:16]


def companion(name: str, suffix: str) -> str:
    """The path of the file with that suffix that belongs to the song `name`, a path below the inbox; both are relative."""
    folder, _, leaf = name.rpartition("/")
    return f"{folder}/{short(leaf)}{suffix}" if folder else short(leaf) + suffix


def is_too_deep(folder: str) -> bool:
    """Whether a folder of the inbox, by its path below it, is not walked for its depth or its length."""
    shown = os.fsencode(folder).decode("utf-8", "replace").encode()  # where a byte that is not UTF-8 has become three
    return folder.count("/") >= DEEPEST or len(shown) > LONGEST_PATH


class Spool:
    """The folders of one daemon, and the paths of a song's and a job's files in them."""

    def __init__(self, config: Config) -> None:
        self.named = {part: config.folder(part) for part in ("inbox", "outbox", "status", "done", "failed")}
        """Their paths in the configuration, which may be links; the attributes below have the folders behind them."""
        self.inbox = real(self.named["inbox"])
        self.outbox = real(self.named["outbox"])
        self.status = real(self.named["status"])
        self.done = real(self.named["done"])
        self.failed = real(self.named["failed"])
        self.private = self.outbox / PRIVATE
        self.own_work = bool(config.paths.work)
        self.scratch = real(Path(config.paths.work or config.state / "work"))
        """Where files without a name hold decoded sound."""
        self._is_tidy = False
        """Whether no work area is left that could not be removed."""

    def song(self, name: str) -> Path:
        return self.inbox / name

    def cancel(self, name: str) -> Path:
        return self.inbox / companion(name, CANCEL)

    def options(self, name: str) -> Path:
        return self.inbox / companion(name, OPTIONS)

    @property
    def cancel_all(self) -> Path:
        return self.inbox / CANCEL

    def sidecar(self, name: str) -> Path:
        return self.status / companion(name, SIDECAR)

    def job(self, job_id: str) -> Path:
        """The job's private folder, on the filesystem of the outbox."""
        return self.private / job_id

    def out(self, job_id: str) -> Path:
        return self.job(job_id) / OUT

    def tmp(self, job_id: str) -> Path:
        return self.job(job_id) / TMP

    def taken(self, name: str, job_id: str) -> Path:
        """The name of an original in its own folder while it is moved to done/ or failed/, under which nobody looks for it."""
        return self.song(name).parent / f"{HIDDEN}{job_id}"

    def make_work(self, job_id: str) -> None:
        """Make an empty work area, `out` and `tmp`, for the job. Raises OSError."""
        self._remove_work(job_id)
        private.make(self.outbox, self.job(job_id), (OUT, TMP))
        if not self.own_work:
            self.scratch.mkdir(0o700, exist_ok=True)

    def remove_work(self, job_id: str) -> None:
        """Remove the job's work area; one that cannot be removed, or whose disk is missing, is left to `tidy`."""
        try:
            if not self._remove_work(job_id):
                self._is_tidy = False
        except OSError as error:
            log.warning("%s cannot be removed yet: %s", self.job(job_id), error)
            self._is_tidy = False

    def doubt(self) -> None:
        """Have `tidy` look again: a disk is back, and work areas may lie on it that could not be removed."""
        self._is_tidy = False

    def tidy(self, keep: set[str]) -> None:
        """Remove all work areas but those of the jobs in `keep`: left by a crash, or by a `remove_work` that failed."""
        if self._is_tidy:
            return
        try:
            for job_id in self.work_folders() - keep:
                self._remove_work(job_id)
        except OSError as error:
            log.debug("the work areas cannot be tidied yet: %s", error)
        else:
            self._is_tidy = True

    def _remove_work(self, job_id: str) -> bool:
        """Remove the work area; whether it was there. Raises OSError."""
        return nofollow.remove_tree(self.outbox, self.job(job_id))

    def work_folders(self) -> set[str]:
        """The ids of the jobs that have a work area. Whatever else lies beside them is not ours. Raises OSError."""
        return {name for name in nofollow.folders_in(self.outbox, self.private) if _ID.fullmatch(name)}


def real(folder: Path) -> Path:
    """The folder, or the one that it links to now: a link in the configuration counts as it is at the start.

    Where this user may not look, it is the folder, and whoever uses it gets the error.
    """
    return folder.resolve() if os.path.islink(folder) else folder  # noqa: PTH114 - false where nobody may look


def closed_file(state: Path) -> Path | None:
    """The first of the daemon's own files in the state folder that this user cannot write: another one has made it."""
    there = (path for name in KEPT_OPEN if (path := state / name).exists())
    return next((path for path in there if not os.access(path, os.R_OK | os.W_OK, effective_ids=True)), None)


def pin(work: str) -> nofollow.Pin:
    """Hold a job's work folder, OUTBOX/.demixd/JOB/out or OUTBOX/.demixd/JOB/tmp. Raises OSError."""
    folder = Path(work)
    with private.inside(folder.parents[2], folder) as handle:
        return nofollow.Pin(handle, folder)
