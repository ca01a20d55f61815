"""File events, which only make us look sooner. Whatever they miss, the next scan sees."""

from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from stemd.config import Watch
from stemd.inbox.filesystem import Mount, Root, is_remote
from stemd.status import WatchStatus


class _Ring(FileSystemEventHandler):
    """Rings for every event; it decides nothing, so that no event can break it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def on_any_event(self, event: FileSystemEvent) -> None:
        # Reading and closing what we read are our own doing; to wake by them would never end.
        if event.event_type not in ("opened", "closed_no_write"):
            self._ring()


class Waker:
    """Rings when something in the inbox changes, as long as the kernel can tell."""

    def __init__(self, inbox: Path, ring: Callable[[], None]) -> None:
        self._inbox = inbox
        self._ring = ring
        self._observer: BaseObserver | None = None
        self._root: Root | None = None
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
        else:
            if self._observer is not None and (root != self._root or not self._is_alive()):
                self.stop()
            if self._observer is None:
                self._start(root)

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            if self._observer.is_alive():
                self._observer.join()
            self._observer = None

    def _poll(self, why: str) -> None:
        self.stop()
        self.status = WatchStatus(mode="poll", why=why)

    def _start(self, root: Root) -> None:
        observer = Observer()
        try:
            observer.schedule(_Ring(self._ring), str(self._inbox.resolve()), recursive=True)
            observer.start()
        except OSError as error:
            self._poll(f"the kernel refuses to watch: {error.strerror or error}")
            return
        self._observer, self._root = observer, root
        self.status = WatchStatus(mode="events", why="inotify, and a scan every scan_interval")

    def _is_alive(self) -> bool:
        observer = self._observer
        return observer is not None and observer.is_alive() and all(each.is_alive() for each in observer.emitters)
