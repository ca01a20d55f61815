"""Sidecars do not stay for ever: that of a song that is gone is removed `[status] keep_days` after its last word."""

import contextlib
import logging
import os
from pathlib import Path

from stemd import below, documents
from stemd.jobs import Jobs
from stemd.spool import Spool
from stemd.status import Sidecar

log = logging.getLogger(__name__)

EVERY_S = 3600.0


def sweep(spool: Spool, jobs: Jobs, older_than: float) -> int:
    """Remove what was last written before `older_than` (UNIX time); how many. Reads only those files. Raises OSError."""
    removed = 0
    for path, status in list(documents.sidecars(spool.status)):
        if status.st_mtime < older_than and _is_over(documents.read(path, Sidecar), spool, jobs):
            below.remove_file(spool.status, Path(path))
            removed += 1
            _remove_empty(Path(path).parent, spool.status)
    if removed:
        log.info("%d sidecars of songs that are gone were removed", removed)
    return removed


def _is_over(sidecar: Sidecar | None, spool: Spool, jobs: Jobs) -> bool:
    """Whether it is one, final, and its song is neither in the inbox nor anybody's job."""
    if sidecar is None or not sidecar.ended:
        return False
    try:
        name = os.fsdecode(sidecar.input.raw_name)
    except ValueError:
        return False
    return name not in jobs.active and name not in jobs.behind and not os.path.lexists(spool.song(name))


def _remove_empty(folder: Path, root: Path) -> None:
    """The folders that its last sidecar has left, up to `root`."""
    with contextlib.suppress(OSError):  # it is not empty
        while folder != root:
            below.remove_folder(root, folder)
            folder = folder.parent
