"""The cancel file of a job: whether it stands, whom it means, and how it is taken away."""

import logging
from pathlib import Path

import msgspec

from demixd.protocol.identity import Identity
from demixd.protocol.job import Job
from demixd.spool import nofollow
from demixd.spool.tree import Spool
from demixd.supervisor.jobs.table import JobTable

log = logging.getLogger(__name__)


def is_for_a_newer_drop(job: Job, cancel: Identity, spool: Spool) -> bool:
    """Whether the name is that of a new drop by now, and the cancel came after it."""
    try:
        song = Identity.of(spool.song(job.name).lstat())
    except OSError:
        return False
    return not song.is_same_drop(job.identity) and cancel.ctime_ns >= song.ctime_ns


def standing_cancel(job: Job, spool: Spool) -> Identity | None:
    """The cancel file of the job's name, if there is one that has not been obeyed before."""
    try:
        found = Identity.of(spool.cancel(job.name).lstat())
    except OSError:
        return None
    return None if found == job.cancel_file else found


def remove_cancel(job: Job, seen: Identity, path: Path, spool: Spool) -> Job:
    """Delete an obeyed cancel file. One that cannot be deleted is remembered, so that it is not obeyed again."""
    try:
        nofollow.remove_file(spool.inbox, path, follow=True)
    except OSError as error:
        is_news = job.cancel_file != seen
        log.log(logging.WARNING if is_news else logging.DEBUG, "%s cannot be removed: %s", path, error)
        return msgspec.structs.replace(job, cancel_file=seen)
    return job


def is_cancelled(job: Job, jobs: JobTable, spool: Spool) -> bool:
    """Whether a cancel file that means `job` is there: its own, or the bare one."""
    if standing_cancel(job, spool) is not None:
        return True
    try:
        everything = Identity.of(spool.cancel_all.lstat())
    except OSError:
        return False
    return everything != jobs.cancelled_all
