"""The hash of a song that may be the one we know under another inode: a restored backup, a share mounted again.

It is computed on a thread, one song at a time, since the main loop never waits. Whoever asks comes back later.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from demixd.protocol.identity import Identity
from demixd.spool import nofollow

CHUNK = 1 << 20


class Recheck:
    """`ring` is called, on the thread, when an answer is there."""

    def __init__(self, inbox: Path, ring: Callable[[], None]) -> None:
        self._inbox = inbox
        self._ring = ring
        self._known: dict[Path, tuple[Identity, str]] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def sha256(self, song: Path, identity: Identity) -> str | None:
        """The hash of `song` as it looks in `identity`, once; None while it is not known yet."""
        known = self._known.pop(song, None)
        if known is not None and known[0] == identity:
            return known[1]
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._hash, args=(song, identity), name="recheck")
            self._thread.start()
        return None

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _hash(self, song: Path, identity: Identity) -> None:
        digest = hashlib.sha256()
        try:
            with os.fdopen(nofollow.read_file(self._inbox, song), "rb", buffering=0) as file:
                if Identity.of(os.fstat(file.fileno())) != identity:
                    return
                while (chunk := file.read(CHUNK)) and not self._stop.is_set():
                    digest.update(chunk)
        except OSError:
            return  # it went, or cannot be read: the next look says so
        if not self._stop.is_set():
            self._known[song] = (identity, digest.hexdigest())
            self._ring()
