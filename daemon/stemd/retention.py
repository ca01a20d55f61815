"""Sidecars do not stay for ever: that of a song that is gone is removed `[status] keep_days` after its last word."""

import base64
import contextlib
import logging
import os
from pathlib import Path

import msgspec

from stemd.job import FINAL
from stemd.jobs import Jobs
from stemd.spool import DAEMON, INBOX, Spool
from stemd.status import Sidecar

log = logging.getLogger(__name__)

EVERY_S = 3600.0


def sweep(spool: Spool, jobs: Jobs, older_than: float) -> int:
    """Remove what was last written before `older_than` (UNIX time); how many. Reads only those files."""
    removed = 0
    for folder, _, leaves in os.walk(spool.status, topdown=False):
        for leaf in leaves:
            path = Path(folder, leaf)
            if leaf.endswith(".json") and leaf not in (DAEMON, INBOX) and _is_over(path, spool, jobs, older_than):
                path.unlink(missing_ok=True)
                removed += 1
        if Path(folder) != spool.status:
            with contextlib.suppress(OSError):  # it is not empty
                Path(folder).rmdir()
    if removed:
        log.info("%d sidecars of songs that are gone were removed", removed)
    return removed


def _is_over(path: Path, spool: Spool, jobs: Jobs, older_than: float) -> bool:
    """Whether it is a sidecar of ours, old, final, and its song is neither in the inbox nor anybody's job."""
    try:
        if path.stat().st_mtime >= older_than:
            return False
        sidecar = msgspec.json.decode(path.read_bytes(), type=Sidecar)
    except (OSError, msgspec.DecodeError):
        return False
    name = os.fsdecode(base64.b64decode(sidecar.input.name_b64))
    is_current = name in jobs.active or name in jobs.behind
    return sidecar.state in FINAL and not is_current and not spool.song(name).exists()
