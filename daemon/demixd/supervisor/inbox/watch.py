"""File events, which only make us look sooner. Whatever they miss, the next scan sees.

That they come is not taken on trust: `check` asks whether every thread that came with the observer lives, and the kernel
which folders it watches (proc(5), /proc/PID/fdinfo). A folder that is not among them gives no events, whatever the
library says: its watch was refused, or an overflow of the queue swallowed the news of the folder.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from demixd.config.sections import Watch
from demixd.protocol.status import WatchStatus
from demixd.spool.mounts import Mount, Root, is_remote

log = logging.getLogger(__name__)

REFUSED_S = 60.0
"""How long a watch that the kernel has refused for some of the folders is left at that before it is tried again."""

_WATCHED = re.compile(rb"^inotify wd:[0-9a-f]+ ino:([0-9a-f]+) ", re.MULTILINE)


class _Ring(FileSystemEventHandler):
    """Calls `ring` for every event and decides nothing, so that no event can break it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def on_any_event(self, event: FileSystemEvent) -> None:
        # Reading and closing what we read are our own doing; to wake by them would never end.
        if event.event_type not in ("opened", "closed_no_write"):
            self._ring()


class InboxWatch:
    """Calls `ring` when something in the inbox changes, as long as the kernel can tell. `now` is monotonic, in seconds."""

    def __init__(self, inbox: Path, ring: Callable[[], None]) -> None:
        self._inbox = inbox
        self._ring = ring
        self._observer: BaseObserver | None = None
        self._threads: set[threading.Thread] = set()
        self._root: Root | None = None
        self._is_told = False
        """Whether the kernel tells which folders it watches, by the numbers that stat(2) knows them by."""
        self._missing: set[int] = set()
        """The folders that were not watched at the last look."""
        self._refused_at = -REFUSED_S
        self._events = WatchStatus(mode="events", why="")
        self.status = WatchStatus(mode="poll", why="not started")

    def check(self, watch: Watch, root: Root | None, mount: Mount) -> None:
        """Start the observer, or start it anew where a thread of it has died or the inbox is another folder now.

        On a network's filesystem or FUSE `auto` polls: what others write there makes no event here.
        """
        if watch is Watch.POLL:
            self._poll("[inbox] watch = poll")
        elif watch is Watch.AUTO and is_remote(mount.kind):
            self._poll(f"the inbox is on {mount.kind}, where others write without our kernel's knowing")
        elif root is None:
            self._poll("the inbox is not there")
        elif self._observer is None:
            self._start(root)
        elif root != self._root:
            self._start(root, "the inbox is another folder")
        elif not all(thread.is_alive() for thread in self._threads):
            self._start(root, "a thread of it had died")

    def compare(self, folders: Iterable[int], now: float) -> bool:
        """See whether the kernel watches all of `folders`, by inode; where it does not, begin anew, or say so.

        False where a folder is not watched for the first time: it may have come just now, and is to be looked at again.
        """
        if self._observer is None or self._root is None or not self._is_told:
            return True
        wanted = {self._root[1], *folders}
        missing = wanted - _watched()
        is_doubt, self._missing = bool(missing - self._missing), missing
        if is_doubt:
            return False
        if missing and now >= self._refused_at + REFUSED_S:
            self._refused_at = now
            self._start(self._root, f"{len(missing)} of {len(wanted)} folders were not watched")
            self._missing = missing = wanted - _watched()
        if self._observer is not None:
            few = f"the kernel does not watch {len(missing)} of {len(wanted)} folders (fs.inotify.max_user_watches)"
            self.status = WatchStatus(mode="poll", why=few) if missing else self._events
        return True

    def stop(self) -> None:
        if self._observer is not None:
            _end(self._observer)
            self._observer = None

    def _poll(self, why: str) -> None:
        self.stop()
        self.status = WatchStatus(mode="poll", why=why)

    def _start(self, root: Root, since: str = "") -> None:
        """Start the observer; `since` is why it is not the first. What came meanwhile is looked for at once."""
        self.stop()
        if since:
            log.warning("The watch of %s begins anew, since %s.", self._inbox, since)
        before = set(threading.enumerate())
        observer: BaseObserver | None = None
        try:
            observer = Observer()
            observer.schedule(_Ring(self._ring), str(self._inbox.resolve()), recursive=True)
            observer.start()
        except (OSError, RecursionError) as error:  # the library walks the folders by recursion
            # Some of it may have begun: its first thread comes with the object, and has a descriptor of the kernel's.
            if observer is not None:
                _end(observer)
            self._poll(f"the kernel refuses to watch: {getattr(error, 'strerror', None) or error}")
            return
        self._threads = set(threading.enumerate()) - before
        self._observer, self._root, self._is_told = observer, root, root[1] in _watched()
        anew = f"begun anew since {since}, " if since else ""
        self.status = self._events = WatchStatus(mode="events", why=f"inotify, {anew}and a scan every scan_interval")
        self._ring()


def _end(observer: BaseObserver) -> None:
    try:
        observer.stop()
    except OSError as error:  # its thread hears of it through a pipe
        log.warning("A watch that is over cannot be ended: %s", error)
        return
    if observer.is_alive():
        observer.join()


def _watched() -> set[int]:
    """The inodes that the kernel watches for this process, in all of its inotify(7) descriptors."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # no such /proc
        for handle in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # closed since it was listed
                if str(handle.readlink()) == "anon_inode:inotify":
                    facts = Path(f"/proc/self/fdinfo/{handle.name}").read_bytes()
                    found.update(int(inode, 16) for inode in _WATCHED.findall(facts))
    return found
