"""The spool: where everything lies on disk, and how files are put there.

    SPOOL/
      inbox/   Song.flac   Song.flac.job.json   Song.flac.cancel   .cancel
               .demixd-JOB (an original on its way out)   .demixd-lease (a scratch file)
      status/  Song.flac.json   _daemon.json   _inbox.json   .demixd-lock
      outbox/  Song/ vocals.flac ... stems.json
               .demixd/ lock   JOB/ out/ (what will be renamed)  tmp/ (snapshot, spools)
      done/    failed/
    STATE/     ledger.sqlite3   lock   models/

A sidecar's path is a pure function of the dropped name. Whatever others read appears by one rename. Nothing in here
knows what a job is.
"""

import hashlib
import logging
import os
import re
from pathlib import Path

from demixd.config import Config
from demixd.protocol.result_names import LONGEST
from demixd.spool import nofollow

log = logging.getLogger(__name__)

OPTIONS = ".job.json"
"""Suffix of the options that come with a song."""
CANCEL = ".cancel"
"""Suffix of a cancel file; alone, in the inbox's root, it cancels everything."""
SIDECAR = ".json"
DAEMON = "_daemon.json"
INBOX = "_inbox.json"
PRIVATE = ".demixd"
LOCK = ".demixd-lock"
PRIVATE_LOCK = "lock"
"""Where nobody else looks."""
LEASE = ".demixd-lease"
LEDGER = "ledger.sqlite3"
SNAPSHOT = "song"
"""The private copy of the song, in the job's `tmp`."""

_ID = re.compile("[0-9a-f]{32}")
"""A job's id."""


def short(name: str) -> str:
    """`name`, or where it is over 120 bytes: 80 bytes of it, cut at a character, `~`, and 16 hex digits of its sha256."""
    raw = os.fsencode(name)
    if len(raw) <= LONGEST:
        return name
    # At most three bytes back: more of them that continue a character do not continue one.
    cut = next((at for at in range(80, 76, -1) if raw[at] & 0xC0 != 0x80), 80)
    return os.fsdecode(raw[:cut]) + "~" + hashlib.sha256(raw).hexdigest()[:16]


def companion(name: str, suffix: str) -> str:
    """The path of the file that goes with the song `name` (a path below the inbox)."""
    folder, _, leaf = name.rpartition("/")
    return f"{folder}/{short(leaf)}{suffix}" if folder else short(leaf) + suffix


class Spool:
    """The folders of one daemon."""

    def __init__(self, config: Config) -> None:
        self.named = {part: config.folder(part) for part in ("outbox", "status", "done", "failed")}
        """What the configuration calls them."""
        self.inbox = config.folder("inbox")
        self.outbox = real(self.named["outbox"])
        self.status = real(self.named["status"])
        self.done = real(self.named["done"])
        self.failed = real(self.named["failed"])
        self.private = self.outbox / PRIVATE
        self.own_work = bool(config.paths.work)
        self.scratch = real(Path(config.paths.work)) if self.own_work else self.private
        self.scratch_root = self.scratch if self.own_work else self.outbox
        self._is_tidy = False

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
        """The job's private folder, on the outbox's own filesystem."""
        return self.private / job_id

    def out(self, job_id: str) -> Path:
        return self.job(job_id) / "out"

    def tmp(self, job_id: str) -> Path:
        return self.scratch / job_id / "tmp"

    def taken(self, name: str, job_id: str) -> Path:
        """Where an original waits, out of everyone's way, while it is moved to done/ or failed/."""
        return self.song(name).parent / f".demixd-{job_id}"

    def make_work(self, job_id: str) -> None:
        """An empty work area for the job. Raises OSError."""
        self._remove_work(job_id)
        with nofollow.reach(self.outbox, self.out(job_id), make=self.private):
            pass
        with nofollow.reach(self.scratch_root, self.tmp(job_id), make=self.scratch):
            pass

    def _remove_tmp(self, job_id: str) -> bool:
        was_there = nofollow.remove_tree(self.scratch_root, self.tmp(job_id))
        if self.own_work:
            nofollow.remove_tree(self.scratch, self.scratch / job_id)
        return was_there

    def remove_work(self, job_id: str) -> None:
        """The work area goes; one that cannot go now, or is away with the disk it lies on, goes later, by `tidy`."""
        try:
            if not self._remove_work(job_id):
                self._is_tidy = False
        except OSError as error:
            log.warning("%s cannot be removed yet: %s", self.job(job_id), error)
            self._is_tidy = False

    def doubt(self) -> None:
        """A disk has come back, and with it what could not be removed meanwhile."""
        self._is_tidy = False

    def tidy(self, keep: set[str]) -> None:
        """Remove the work areas that are left of other lives, or could not be removed before: all but those in `keep`."""
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
        """Whether all of it was there."""
        tmp_was_there = self._remove_tmp(job_id)
        return nofollow.remove_tree(self.outbox, self.job(job_id)) and tmp_was_there

    def work_folders(self) -> set[str]:
        """The jobs that have a work folder. What else lies there is not ours to remove."""
        found = nofollow.folders_in(self.outbox, self.private) | nofollow.folders_in(self.scratch_root, self.scratch)
        return {name for name in found if _ID.fullmatch(name)}


def real(folder: Path) -> Path:
    """Where the folder is that the configuration names: a link there is as meant now, and nobody else's later."""
    return folder.resolve() if folder.is_symlink() else folder


def pin(work: str) -> nofollow.Pin:
    """One of a job's work folders, held fast: OUTBOX/.demixd/JOB/out, or tmp there or below a scratch folder. Raises OSError."""
    folder = Path(work)
    is_private = folder.parents[1].name == PRIVATE
    return nofollow.Pin(folder.parents[2] if is_private else folder.parents[1], folder)
