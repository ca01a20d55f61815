"""How far each executable is in the list of ends: the number of the last end that it was run for, on disk."""

import hashlib
import os
import threading
from pathlib import Path

import msgspec

from demixd.spool import documents
from demixd.spool.files import write_whole
from demixd.spool.tree import Spool


def state_folder() -> Path:
    """The folder of our own: that of the unit (systemd.exec(5), StateDirectory=), else one in the user's home."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "demixd-hooks"


class Places:
    """The places in the list of one spool. Several threads use them."""

    def __init__(self, folder: Path, spool: Spool) -> None:
        """Raises OSError where `folder` cannot be made."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"{hashlib.sha256(os.fsencode(spool.status)).hexdigest()[:16]}.json"
        self._lock = threading.Lock()
        self._of = documents.read(self._path, dict[str, int]) or {}

    def of(self, name: str, otherwise: int) -> int:
        """The place of an executable; one that is new begins after the end `otherwise`, and its place is kept from now on."""
        with self._lock:
            known = self._of.get(name)
        if known is None:
            self.keep(name, otherwise)
        return otherwise if known is None else known

    def keep(self, name: str, end: int) -> None:
        """Note, durably, that the executable was run for this end. Raises OSError."""
        with self._lock:
            self._of[name] = end
            write_whole(self._path, msgspec.json.encode(self._of), root=self._folder, durable=True)
