"""How far each executable is in the list of ends: the number of the last end that it was run for, on disk."""

import fcntl
import hashlib
import os
import threading
from pathlib import Path

import msgspec

from demixd.errors import RefusedError
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
        """Raises OSError where `folder` cannot be made, RefusedError where another process has these places."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"{hashlib.sha256(os.fsencode(spool.status)).hexdigest()[:16]}.json"
        self._held = self._path.with_suffix(".lock").open("wb")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._held.close()
            raise RefusedError(
                f"hooks of this spool run already, with their places in {folder}: stop those first"
            ) from error
        self._lock = threading.Lock()
        self._of = documents.read(self._path, dict[str, int]) or {}

    def of(self, name: str) -> int | None:
        """The place of an executable; None for one that is new."""
        with self._lock:
            return self._of.get(name)

    def keep(self, name: str, end: int) -> None:
        """Note, durably, that the executable was run for this end. Raises OSError."""
        with self._lock:
            places = self._of | {name: end}
            write_whole(self._path, msgspec.json.encode(places), root=self._folder, durable=True)
            self._of = places
