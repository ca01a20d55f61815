"""Sidecars do not stay for ever: that of a song that is gone is removed `[status] keep_days` after its last word.

Nor do lines of the list of ends, which are cut off after as long, once a day. Nor do rows of the ledger: a job is forgotten
when it ended `keep_days` ago, and its song is gone from the inbox, its sidecar and its result as well. Nothing is removed
while a folder is away, since what lies in it cannot be seen; nor of a song that was left in a share of its own within the
inbox, while that is not mounted.

How old one is only the time of day can say, and that may be put right by years at any time, also while no daemon runs. So
once it has jumped it is believed again only when the daemon has seen it go on for `keep_days` without another jump.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from demixd.config import Config
from demixd.protocol.job import Job
from demixd.protocol.status import Sidecar
from demixd.spool import documents, nofollow
from demixd.spool.files import CHUNK, write_pieces
from demixd.spool.tree import ENDS, Spool
from demixd.supervisor.clock import Clock, utc
from demixd.supervisor.folders import Folders
from demixd.supervisor.jobs import reasons
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.ledger import Ledger

log = logging.getLogger(__name__)

EVERY_S = 3600.0
DAY_S = 86400.0

AT_ONCE = 200
"""How many rows of the ledger one look goes through: the loop, and the heart, go on between."""

JUMP_S = 3600.0
"""What may be between the clocks from one look to the next, since they drift."""


CALENDAR = "calendar"


class _Noted(msgspec.Struct, frozen=True, kw_only=True):
    """The calendar when it was last looked at, and from when on it is believed (both UNIX time)."""

    seen: float
    believed: float


class Retention:
    """Sweeps every hour. `now` is monotonic, in seconds."""

    def __init__(self, spool: Spool, jobs: JobTable, clock: Clock, ledger: Ledger, folders: Folders) -> None:
        self._spool = spool
        self._jobs = jobs
        self._clock = clock
        self._ledger = ledger
        self._folders = folders
        self._calendar = Calendar(ledger)
        self._due = 0.0
        self._older_than: float | None = None
        """Jobs that ended before this (UNIX time) are being forgotten, as far as row number `_passed`; None between sweeps."""
        self._passed = 0

    def look(self, now: float, config: Config, go_on: Callable[[], None]) -> None:
        """Remove the sidecars of songs that are gone since `keep_days`, and reasons of songs that are, where that is due.

        `go_on` is called with each file.
        """
        if self._folders.missing or self._folders.inbox_is_another:
            return
        if self._older_than is not None:
            self._forget(self._older_than)
            return
        if now < self._due:
            return
        self._due = now + EVERY_S
        older_than = self._calendar.before(self._clock.wall(), self._clock.uptime(), config.status.keep_days * DAY_S)
        if older_than is not None:
            sweep(self._spool, self._jobs, older_than, go_on)
            cut_ends(self._spool, older_than, go_on)
            self._older_than, self._passed = older_than, 0
        if config.inbox.reasons:
            reasons.sweep(self._spool, go_on)

    def _forget(self, older_than: float) -> None:
        """Go on through the ledger, and forget the old jobs of which nothing is left."""
        before = utc(older_than)
        rows = self._ledger.ended(self._passed, AT_ONCE)
        old = [(job, is_newest) for _, job, is_newest in rows if isinstance(job, Job) and job.state_since < before]
        gone = [job for job, is_newest in old if not _is_left(job, self._spool, is_newest=is_newest)]
        if gone and not self._folders.are_away():  # if one went meanwhile, the next sweep looks again
            self._ledger.forget(gone)
            log.info("%d old jobs were forgotten: their songs, sidecars and results are gone", len(gone))
        if len(rows) == AT_ONCE:
            self._passed = rows[-1][0]
        else:
            self._older_than = None


def _is_left(job: Job, spool: Spool, *, is_newest: bool) -> bool:
    """Whether anything is there of the job; song and sidecar belong to the newest job of their name."""
    if is_newest and _may_be_away(job, spool):
        return True
    places = [spool.song(job.name), spool.sidecar(job.name)] if is_newest else []
    places += [spool.outbox / job.output.dir] if job.output is not None else []
    return any(nofollow.is_there(place, in_doubt=True) for place in places)


def _may_be_away(job: Job | None, spool: Spool) -> bool:
    """Whether the song may lie in a share that is not mounted: it was left in a sub-folder on another device than the inbox's,
    and what is there of that folder's path is the inbox's now. A share that is mounted again may have another number."""
    if job is None or job.kept is None or "/" not in job.name:
        return False
    for folder in spool.song(job.name).parents:
        try:
            with nofollow.reach(spool.inbox, folder) as handle:
                return job.kept.device != os.fstat(handle).st_dev == spool.inbox.stat().st_dev
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            break
    return True


class Calendar:
    """How far the wall clock can be believed; the ledger remembers it from one daemon to the next."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._noted = ledger.fact(CALENDAR, _Noted)
        self._looked: float | None = None

    def before(self, wall: float, now: float, keep_s: float) -> float | None:
        """The UNIX time before which everything is older than `keep_s`; None where that cannot be said.

        `wall` is the wall clock, `now` is `uptime()`. A daemon that was down for longer than `keep_s` may have missed a
        jump as well.
        """
        noted = self._noted or _Noted(seen=wall, believed=wall)
        passed = wall - noted.seen
        lived = now - self._looked if self._looked is not None else None
        is_jump = abs(passed - lived) > JUMP_S if lived is not None else not -JUMP_S < passed < keep_s
        if is_jump:
            log.warning("The clock has jumped by %.0f days: no sidecar is removed for a while.", passed / DAY_S)
        self._looked = now
        self._noted = _Noted(seen=wall, believed=wall + keep_s if is_jump else noted.believed)
        self._ledger.note(CALENDAR, self._noted)
        return wall - keep_s if wall >= self._noted.believed else None


def sweep(spool: Spool, jobs: JobTable, older_than: float, go_on: Callable[[], None]) -> int:
    """Remove the sidecars that were last written before `older_than` (UNIX time); how many. Reads only those."""
    removed = 0
    for path, status in documents.sidecars(spool.status, go_on):
        if status.st_mtime < older_than and _is_over(documents.read(path, Sidecar), spool, jobs):
            try:
                nofollow.remove_file(spool.status, Path(path))
            except OSError as error:
                log.warning("%s cannot be removed: %s", path, error)
                continue
            removed += 1
            _remove_empty(Path(path).parent, spool.status)
    if removed:
        log.info("%d sidecars of songs that are gone were removed", removed)
    return removed


class _Told(msgspec.Struct, frozen=True):
    """What says how old a line of the list of ends is."""

    updated_at: str


def cut_ends(spool: Spool, older_than: float, go_on: Callable[[], None]) -> None:
    """Leave out the lines of the list of ends that were written before `older_than` (UNIX time), once its first is a day older.

    `go_on` is called with each line, and each piece of the rest, which may be long.
    """
    path = spool.status / ENDS
    try:
        with os.fdopen(nofollow.read_file(spool.status, path), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or not _is_older(_line(file), utc(older_than - DAY_S)):
                return
            begin = file.tell()
            while _is_older(line := _line(file), utc(older_than)):
                go_on()
                begin += len(line)
            file.seek(begin)
            write_pieces(path, iter(lambda: _piece(file, go_on), b""), root=spool.status)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s cannot be cut: %s", path, error)


def _line(file: BinaryIO) -> bytes:
    return file.readline(documents.LARGEST)


def _piece(file: BinaryIO, go_on: Callable[[], None]) -> bytes:
    go_on()
    return file.read(CHUNK)


def _is_older(line: bytes, than: str) -> bool:
    """Whether a line is there, and old: also one that is none of ours, as long as it lies before those that are not old."""
    try:
        return bool(line) and msgspec.json.decode(line, type=_Told).updated_at < than
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True


def _is_over(sidecar: Sidecar | None, spool: Spool, jobs: JobTable) -> bool:
    """Whether the sidecar is final, and its song is neither in the inbox nor anybody's job."""
    if sidecar is None or not sidecar.ended:
        return False
    try:
        name = os.fsdecode(sidecar.input.raw_name)
    except ValueError:
        return False
    return (
        name not in jobs.active
        and name not in jobs.successors
        and not nofollow.is_there(spool.song(name), in_doubt=True)
        and not _may_be_away(jobs.newest(name), spool)
    )


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove `folder` and those above it up to `root`, where they are empty."""
    with contextlib.suppress(OSError):  # it is not empty
        while folder != root:
            nofollow.remove_folder(root, folder)
            folder = folder.parent
