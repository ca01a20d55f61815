"""Reading status/ again and again: a document is read anew only when its file has changed."""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from demixd.client import text
from demixd.protocol.status import DaemonStatus, InboxStatus, Sidecar
from demixd.spool import documents
from demixd.spool.tree import DAEMON, INBOX, Spool

T = TypeVar("T")

IDLE_FACTOR = 10
"""The pause after a look lasts at least this many times as long as the look."""

FileVersion = tuple[int, int, int, int]
"""Inode, size, and the times of the last write and the last change in nanoseconds: equal means the same content."""


class CachedDocument(Generic[T]):
    """One file of status/."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self._kind = kind
        self._version: FileVersion | None = None
        self.value: T | None = None

    def refresh(self) -> T | None:
        """The document as it is now; None where there is none."""
        try:
            version = version_of(self._path.lstat())
        except OSError:
            self._version = self.value = None
            return None
        if version != self._version:
            self._version = version
            self.value = documents.read(self._path, self._kind, largest=documents.LARGEST_LIST)
        return self.value


class StatusReader:
    """Every sidecar, the heartbeat and the inbox's listing. 10,000 sidecars of which none has changed cost one listing."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._files: dict[str, tuple[FileVersion, Sidecar | None]] = {}
        self._heartbeat = CachedDocument(spool.status / DAEMON, DaemonStatus)
        self._inbox = CachedDocument(spool.status / INBOX, InboxStatus)
        self.daemon: DaemonStatus | None = None
        self.inbox: InboxStatus | None = None
        self.trouble: str | None = None
        """A sentence that says why status/ cannot be read."""
        self.is_hidden = False
        """Whether that is since this user may not look into it."""

    def refresh(self) -> None:
        """Read what has changed."""
        files = {}
        self.trouble, self.is_hidden = None, False
        try:
            for path, status in documents.sidecars(self._spool.status):
                version = version_of(status)
                known = self._files.get(path)
                is_same = known is not None and known[0] == version
                files[path] = known if known and is_same else (version, documents.read(path, Sidecar))
        except FileNotFoundError:  # before its first start, which makes it
            if not (spool := self._spool.status.parent).exists():
                self.trouble = f"{spool} is not there: mount it, or make it"
        except OSError as error:
            self.trouble, self.is_hidden = text.refusal(error), error.errno == errno.EACCES
        self._files = files
        self.daemon = self._heartbeat.refresh()
        self.inbox = self._inbox.refresh()

    @property
    def songs(self) -> list[Sidecar]:
        return [song for _, song in self._files.values() if song is not None]


def read(path: str | Path) -> dict[str, Any] | None:
    """A status file; None where there is none, or something else."""
    return documents.read(path, dict[str, Any])


def heartbeat(spool: Spool) -> dict[str, Any] | None:
    """The daemon's last heartbeat. It may be old: a daemon that runs changes `seq` before the next reading."""
    return documents.read(spool.status / DAEMON, dict[str, Any], largest=documents.LARGEST_LIST)


def sidecars(spool: Spool) -> Iterator[dict[str, Any]]:
    """Every song's sidecar in the order of paths; none where there is no status/ yet. Raises OSError where it cannot be read."""
    for path, _ in sorted(documents.sidecars(spool.status)) if spool.status.exists() else ():
        document = read(path)
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert(document, Sidecar)
            yield document or {}


def read_songs(spool: Spool) -> list[Sidecar]:
    """Every song's sidecar, read once."""
    reader = StatusReader(spool)
    reader.refresh()
    return reader.songs


def version_of(status: os.stat_result) -> FileVersion:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def pause(began: float, least_s: float) -> None:
    """Sleep until the next look, after one that began at `began` (monotonic): 10,000 songs may be followed at once."""
    time.sleep(max(least_s, IDLE_FACTOR * (time.monotonic() - began)))
