"""Sidecars do not stay for ever: that of a song that is gone is removed `[status] keep_days` after its last word.

How old one is only the time of day can say, and that may be put right by years at any time, also while no daemon runs. So
once it has jumped it is believed again only when the daemon has seen it go on for `keep_days` without another jump.
"""

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from demixd.config import Config
from demixd.protocol.status import Sidecar
from demixd.spool import documents, nofollow
from demixd.spool.tree import Spool
from demixd.supervisor.clock import Clock
from demixd.supervisor.jobs import reasons
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.ledger import Ledger

log = logging.getLogger(__name__)

EVERY_S = 3600.0
DAY_S = 86400.0

JUMP_S = 3600.0
"""What may be between the clocks from one look to the next, since they drift."""


CALENDAR = "calendar"


class _Noted(msgspec.Struct, frozen=True, kw_only=True):
    """The calendar when it was last looked at, and from when on it is believed (both UNIX time)."""

    seen: float
    believed: float


class Retention:
    """Sweeps every hour. `now` is monotonic, in seconds."""

    def __init__(self, spool: Spool, jobs: JobTable, clock: Clock, ledger: Ledger) -> None:
        self._spool = spool
        self._jobs = jobs
        self._clock = clock
        self._calendar = Calendar(ledger)
        self._due = 0.0

    def look(self, now: float, config: Config) -> None:
        """Remove the sidecars of songs that are gone since `keep_days`, and reasons of songs that are, where that is due."""
        if now < self._due:
            return
        self._due = now + EVERY_S
        older_than = self._calendar.before(self._clock.wall(), self._clock.uptime(), config.status.keep_days * DAY_S)
        if older_than is not None:
            sweep(self._spool, self._jobs, older_than)
        if config.inbox.reasons:
            reasons.sweep(self._spool)


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


def sweep(spool: Spool, jobs: JobTable, older_than: float) -> int:
    """Remove the sidecars that were last written before `older_than` (UNIX time); how many. Reads only those."""
    removed = 0
    for path, status in list(documents.sidecars(spool.status)):
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


def _is_over(sidecar: Sidecar | None, spool: Spool, jobs: JobTable) -> bool:
    """Whether the sidecar is final, and its song is neither in the inbox nor anybody's job."""
    if sidecar is None or not sidecar.ended:
        return False
    try:
        name = os.fsdecode(sidecar.input.raw_name)
    except ValueError:
        return False
    return name not in jobs.active and name not in jobs.successors and not os.path.lexists(spool.song(name))


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove `folder` and those above it up to `root`, where they are empty."""
    with contextlib.suppress(OSError):  # it is not empty
        while folder != root:
            nofollow.remove_folder(root, folder)
            folder = folder.parent
