"""A folder of this process's own, which goes with it, and after a kill with the next process of its kind."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from demixd.spool.files import open_own
from demixd.spool.tree import PRIVATE_LOCK


class Scratch:
    """A new private folder in `parent`; older ones of the same `prefix` that no process holds any more are removed.

    Raises OSError.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        for each in parent.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):  # another user's, or one that a process holds
                _remove_unheld(each)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = _held(open_own(self.path / PRIVATE_LOCK, "x+b"))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_unheld(folder: Path) -> None:
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.geteuid():
        return
    with _held(open_own(folder / PRIVATE_LOCK, "rb")):
        shutil.rmtree(folder)


def _held(lock: BinaryIO) -> BinaryIO:
    """The lock file, locked. Raises BlockingIOError where another process has it."""
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock
