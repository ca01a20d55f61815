"""The cancel file of a job: whether it stands, whom it means, and how it goes.

    NAME.cancel   means the job of NAME
    .cancel       means every job there is

A cancel file that cannot be removed is remembered by its identity, and means nothing more.
"""

import logging
import stat
from pathlib import Path

import msgspec

from demixd.protocol.identity import Identity
from demixd.protocol.job import Job
from demixd.spool import nofollow
from demixd.spool.tree import Spool
from demixd.supervisor.ledger import Ledger

log = logging.getLogger(__name__)

OBEYED_ALL = "cancelled all"
"""The ledger's fact about the last bare cancel file that was obeyed and cannot be removed."""


class CancelFiles:
    """The cancel files in the inbox."""

    def __init__(self, spool: Spool, ledger: Ledger) -> None:
        self._spool = spool
        self._ledger = ledger
        self.obeyed_all = ledger.fact(OBEYED_ALL, Identity)
        """The last bare cancel file that was obeyed."""

    def standing(self, job: Job) -> Identity | None:
        """The cancel file of the job's name; None where there is none, or it has been obeyed before."""
        found = _identity_of(self._spool.cancel(job.name))
        return None if found == job.cancel_file else found

    def mean(self, job: Job) -> bool:
        """Whether a cancel file means `job`: its own, or the bare one."""
        if self.standing(job) is not None:
            return True
        everything = _identity_of(self._spool.cancel_all)
        return everything is not None and everything != self.obeyed_all

    def is_for_a_newer_drop(self, job: Job, cancel: Identity) -> bool:
        """Whether the job's name is that of a new drop by now, and the cancel came after it."""
        try:
            song = Identity.of(self._spool.song(job.name).lstat())
        except OSError:
            return False
        return not song.is_same_drop(job.identity) and cancel.ctime_ns >= song.ctime_ns

    def remove_of(self, job: Job, seen: Identity, name: str) -> Job:
        """Remove the job's obeyed cancel file `name`; where that cannot be, the job remembers that it was obeyed."""
        is_news = job.cancel_file != seen
        if self.remove(name, level=logging.WARNING if is_news else logging.DEBUG):
            return job
        return msgspec.structs.replace(job, cancel_file=seen)

    def remove(self, name: str, *, level: int = logging.WARNING) -> bool:
        """Remove the cancel file `name` (its path below the inbox); False, and a line in the log, where that cannot be."""
        try:
            nofollow.remove_file(self._spool.inbox, self._spool.inbox / name)
        except OSError as error:
            log.log(level, "%s cannot be removed: %s", name, error)
            return False
        return True

    def remember_all(self, seen: Identity) -> None:
        """Remember beyond this start that the bare cancel file `seen`, which cannot be removed, has been obeyed."""
        self._ledger.note(OBEYED_ALL, seen)


def _identity_of(path: Path) -> Identity | None:
    """The identity of a cancel file, whatever its content; None where there is none. A folder of that name is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return None if stat.S_ISDIR(status.st_mode) else Identity.of(status)
