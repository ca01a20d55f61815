"""When the inbox is looked at, and what a look leads to.

    an event, the clock, a settling file  -->  scan  -->  intake, ends that waited, cancels, explained

The listing is the truth, and events only make a look come sooner. A look asks for each file's status; but where the kernel
tells of every change, and has told of none, most looks only see that names and inodes are the same.
"""

from collections.abc import Callable
from pathlib import Path

from demixd.config import Config
from demixd.protocol.status import WatchStatus
from demixd.spool.mounts import Root
from demixd.supervisor.inbox.cancels import Cancels
from demixd.supervisor.inbox.emptied import Emptied
from demixd.supervisor.inbox.explained import Explained
from demixd.supervisor.inbox.intake import Intake
from demixd.supervisor.inbox.profile_folders import ProfileFolders
from demixd.supervisor.inbox.readiness import Readiness
from demixd.supervisor.inbox.scan import NOTHING, Listing, scan
from demixd.supervisor.inbox.watch import InboxWatch
from demixd.supervisor.ledger import Ledger
from demixd.supervisor.runs.context import Context
from demixd.supervisor.runs.disk_thread import Rehash
from demixd.supervisor.runs.runner import Runner

CANCEL_S = 0.5
"""How often cancel files are looked for while a job runs, events or not."""

DOUBT_S = 1.0
"""When to look again at a folder that is not watched: it may have come just now."""

WHOLE_LOOKS = 6
"""One of so many looks asks for each file's status, though the kernel has told of no change."""

WAKE_GAP_S = 0.2
"""Events come in swarms; one look serves all that come within this."""


class Poller:
    """Looks at the inbox. `wake` is called, on another thread, when something there has changed; `now` is monotonic."""

    def __init__(
        self, config: Config, context: Context, runner: Runner, ledger: Ledger, wake: Callable[[], None]
    ) -> None:
        self._config = config
        self._context = context
        self._runner = runner
        self._inbox: Path = context.spool.inbox
        self._rehash = Rehash(self._inbox, wake)
        self._readiness = Readiness(config, context.spool, context.clock.wall)
        self._intake = Intake(config, context, self._readiness, self._rehash)
        self._cancels = Cancels(context, runner)
        self._explained = Explained(context.spool, context.jobs)
        self._emptied = Emptied(config, context)
        self._profile_folders = ProfileFolders(context, ledger)
        self._watch = InboxWatch(self._inbox, wake)
        self._root: Root | None = None
        self._listing = NOTHING
        self._is_wanted = True
        self._is_settled = False
        """Whether nothing can come of the last listing any more, as long as it stays the same."""
        self._scan_at = self._gap_until = self._cancel_at = 0.0
        self._looks = 0
        self._unreadable: tuple[str, ...] = ()

    def reconfigure(self, config: Config) -> None:
        self._config = config
        self._context.pause.reconfigure(config)
        self._readiness.reconfigure(config)
        self._intake.reconfigure(config)
        self._intake.ask_anew()
        self._emptied.reconfigure(config)
        self._profile_folders.look(config)
        self.want(anew=True)

    def want(self, *, anew: bool = False) -> None:
        """Look as soon as may be; `anew`: go through the listing even where nothing in it is new."""
        self._is_wanted = True
        self._is_settled = self._is_settled and not anew

    @property
    def look_at(self) -> float:
        """When the next look is due."""
        return min(self._scan_at, self._intake.look_again_at, self._emptied.look_again_at)

    @property
    def watch(self) -> WatchStatus:
        return self._watch.status

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self._unreadable, *self._readiness.mounts.warnings)

    def find_root(self) -> None:
        """See whether the inbox is another folder than before, and whether events still come."""
        root = self._context.folders.root
        if root != self._root:
            self._root = root
            self._readiness.mounts.renew(self._inbox)
            self._listing = NOTHING
            self._profile_folders.look(self._config)
            self.want(anew=True)
        self._check_watch()

    def come_back(self) -> None:
        """A missing folder has returned: explain every entry again, and go through the listing."""
        self._explained.forget()
        self.want(anew=True)

    def stop(self) -> None:
        self._rehash.stop()
        self._watch.stop()

    def look(self, now: float) -> None:
        """Scan the inbox where an event, the clock or a settling file asks for it."""
        self._context.pause.look()
        if self._context.jobs.running and now >= self._cancel_at:
            self._cancel_at = now + CANCEL_S
            if self._runner.look_for_cancels(now):
                self._is_wanted = True
        is_wanted = self._is_wanted and now >= self._gap_until
        if not is_wanted and now < self.look_at:
            return
        self._is_wanted = False
        self._scan_at = now + self._config.inbox.scan_interval
        self._gap_until = now + WAKE_GAP_S
        self._looks += 1
        is_told = self._watch.status.mode == "events" and self._is_settled and not is_wanted
        before = self._listing
        if not self._list(now, by_inode=is_told and self._looks % WHOLE_LOOKS > 0):
            self._is_settled = False
        elif not self._is_settled or self._listing is not before:
            self._serve(self._listing, now)

    def _list(self, now: float, *, by_inode: bool) -> bool:
        """See what lies in the inbox; False where it cannot be read, or became another folder meanwhile."""
        folders = self._context.folders
        folders.look()
        root = folders.root
        self._check_watch()
        if "inbox" in folders.missing:
            return False
        try:
            recursive = self._config.inbox.recursive
            listing = scan(self._inbox, recursive=recursive, before=self._listing, by_inode=by_inode)
        except OSError as error:
            self._unreadable = (f"The inbox {self._inbox} cannot be read: {error.strerror}.",)
            return False
        self._unreadable = ()
        folders.look()
        if folders.root != root:
            return False
        self._listing = listing
        if not self._watch.compare(listing.folders, now):
            self._scan_at = min(self._scan_at, now + DOUBT_S)
        return True

    def _check_watch(self) -> None:
        self._watch.check(self._config.inbox.watch, self._context.folders.root, self._readiness.mounts.mount)

    def _serve(self, listing: Listing, now: float) -> None:
        """Bring everything up to what lies in the inbox."""
        self._intake.look(listing, now)
        self._context.ending.go_on()
        told = self._cancels.look(listing, self._intake.fresh, now)
        self._explained.look(listing, [*self._intake.foreign, *told])
        self._emptied.look(listing, now)
        self._profile_folders.clear()
        jobs = self._context.jobs
        is_busy = jobs.active or jobs.successors or listing.cancels or self._emptied.is_waiting
        self._is_settled = not is_busy and self._intake.is_settled
