"""A folder of this process's own, which goes with it, and after a kill with the next process of its kind."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from demixd.spool.files import open_own
from demixd.spool.tree import PRIVATE_LOCK

NEW_S = 60.0
"""How long a folder stays in any case."""


class Scratch:
    """A new private folder in `parent`; older ones of the same `prefix` that no process holds any more are removed.

    Raises OSError.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        for each in parent.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):  # another user's, or one that a process holds
                _remove_unheld(each)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = open_own(self.path / PRIVATE_LOCK, "x+b")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_unheld(folder: Path) -> None:
    status = folder.lstat()
    is_new = time.time() - status.st_mtime < NEW_S  # and may be without its lock still
    if folder.is_symlink() or status.st_uid != os.geteuid() or is_new:
        return
    try:
        with open_own(folder / PRIVATE_LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except FileNotFoundError:
        shutil.rmtree(folder)  # it could not be removed whole
