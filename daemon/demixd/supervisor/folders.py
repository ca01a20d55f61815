"""Whether the folders of the spool are there. Made once, in their first days; never again in place of what is missing.

A share that is not mounted looks like an empty folder, or like none. So what has been there before, which the ledger
remembers, is waited for; and an inbox that is another folder than before says nothing about the songs that were in it. Only
the private folder of the outbox is made again, where that is the folder as before: others may have removed it.
"""

import errno
import logging
import os
from pathlib import Path

import msgspec

from demixd.spool import nofollow, private
from demixd.spool.files import refuses_files
from demixd.spool.mounts import Root, mount_of
from demixd.spool.tree import PRIVATE, Spool
from demixd.supervisor import notify
from demixd.supervisor.ledger import Ledger

_PRIVATE = f"outbox/{PRIVATE}"

_LEDGER = "state"
"""What is missing where the ledger's file was taken away: it stays open, and all that is written into it is lost."""

_NO_INODE = 0
"""The inode that is remembered of an inbox at another path than before, until it is trusted: no folder has it."""

_OURS = ("outbox", _PRIVATE, "status", "work")
"""What nothing goes without; a done/ that takes nothing only leaves originals where they are."""

GONE = (
    "is gone, or another file: put the state folder back, and demixd goes on by itself. Where it is lost, start demixd again: "
    "it makes a new one from the status files."
)

log = logging.getLogger(__name__)


class _Known(msgspec.Struct, frozen=True):
    """What the ledger remembers of a folder: that it was there, and which one. Devices get other numbers at a restart."""

    path: str
    inode: int


class Folders:
    """The folders of one daemon, by what the configuration calls them."""

    def __init__(self, spool: Spool, ledger: Ledger) -> None:
        self._ledger = ledger
        self._folders = {
            "inbox": spool.inbox,
            "outbox": spool.outbox,
            "status": spool.status,
            "done": spool.done,
            "failed": spool.failed,
            _PRIVATE: spool.private,
        }
        if spool.own_work:
            self._folders["work"] = spool.scratch
        self._folders[_LEDGER] = ledger.path
        self._inbox = spool.inbox
        self._became_links: dict[str, Path] = {}
        """What was a folder in a former life, and is a link now."""
        self._is_at_another_path = False
        """Whether [paths] named another inbox in a former life: this one is not trusted as long as songs are missed in it."""
        self._named = spool.named
        self._known = {part: self._recall(part) for part in self._folders}
        self.missing: dict[str, str] = {}
        """What is not there, by part, and a sentence about it."""
        self.root: Root | None = None
        """The inbox as it is now."""
        self._trusted: Root | None = None

    def look(self) -> None:
        """See what is there, and make what never was. What is missing is in `missing` afterwards."""
        before = self.missing
        self.missing = {}
        for part, folder in self._folders.items():
            # What lies in a folder is not looked for where that one is another one.
            reason = self.missing.get("outbox") if part == _PRIVATE else None
            was_there = part == _LEDGER or self._known[part] is not None
            reason = reason or self._reason(part, folder)
            if reason is not None:
                if part not in before and reason not in self.missing.values():  # all of a spool say the same
                    log.error("%s", reason)
                self.missing[part] = reason
            elif part in before:
                log.info("%s is there%s", folder, " again" if was_there else "")
        self.root = self._root()
        known = self._known["inbox"]
        is_known = self._trusted is None and self.root is not None and known is not None and known.inode == self.root[1]
        if is_known or not self.inbox_is_another:
            self._trusted = self.root

    @property
    def lockable(self) -> tuple[str, ...]:
        """Which of the folders that only one daemon may use are there."""
        return tuple(part for part in ("status", "outbox") if not {part, f"{part}/{PRIVATE}"} & self.missing.keys())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what is not there, and about an inbox that is not the one its songs were in."""
        said = tuple(dict.fromkeys(self.missing.values()))
        if self.root is not None and self.inbox_is_another:
            said += (
                f"{self._inbox} (inbox) is another folder than before: songs that it does not show wait for theirs.",
            )
        return said

    def are_away(self) -> bool:
        """Whether any folder is missing now, or the inbox is another folder than before."""
        self.look()
        return bool(self.missing) or self.inbox_is_another

    def are_away_for(self, name: str) -> bool:
        """Whether the end of the song `name` has to wait for a folder: any of ours, or the inbox that the song was in."""
        self.look()
        return bool(self.missing) or not self.may_hold(name)

    @property
    def inbox_is_another(self) -> bool:
        """Whether the inbox is not the folder in which its songs were first seen."""
        return self.root is None or self._trusted is None or self.root[:2] != self._trusted[:2]

    def may_hold(self, name: str) -> bool:
        """Whether the inbox can hold the song `name`: not where it is another folder than before and does not show it."""
        return not self.inbox_is_another or nofollow.is_there(self._inbox / name, in_doubt=False)

    @property
    def inbox_is_elsewhere(self) -> bool:
        """Whether the inbox is on another device or mount than before: perhaps its share is not mounted.

        One at another path is where somebody wants it.
        """
        known = self._known["inbox"]
        if self.root is None or self._trusted is None:
            return self.root is None or known is None or known.inode != _NO_INODE
        return (self.root[0], self.root[2]) != (self._trusted[0], self._trusted[2])

    def trust_inbox(self) -> None:
        """Take the inbox as it is now for the one that counts."""
        if self.root is not None and self.inbox_is_another:
            self._trusted = self.root
            self._remember("inbox", self._inbox, self.root[1])

    def _reason(self, part: str, folder: Path) -> str | None:
        """Why a folder cannot be used; None where it can. A folder that never was there is made."""
        known = self._known[part]
        if part == _LEDGER:
            return None if self._ledger.is_there else f"{folder} {GONE}"
        try:
            if (reason := self._other_reason(part, folder)) is not None:
                return reason
            if not folder.is_dir():
                if known is not None and not (part == _PRIVATE and self._is_same_outbox):
                    return f"{folder} ({part}) is gone: mount it, or make it again; demixd goes on by itself then."
                if not folder.parent.is_dir():
                    return f"{folder.parent} is not there: mount it, or make it; demixd goes on by itself then."
                self._make(part, folder)
            if part == _PRIVATE:
                self._close_private(folder)
            if part in _OURS and (reason := self._closed_reason(part, folder)) is not None:
                return reason
            if known is None:
                is_new = part == "inbox" and self._is_at_another_path
                self._remember(part, folder, _NO_INODE if is_new else folder.stat().st_ino)
        except OSError as error:
            return f"{folder} ({part}) cannot be used: {notify.reason(error)}."
        return None

    def _closed_reason(self, part: str, folder: Path) -> str | None:
        """Why nothing can be written in a folder; that one in /proc, say, holds no files is seen only the first time."""
        if not os.access(folder, os.W_OK | os.X_OK):
            return _unwritable(part, folder)
        if part == "work" and self._known[part] is None and (reason := refuses_files(folder)) is not None:
            return f"{folder} (work) cannot be used, {reason}: set [paths] work to a folder on a disk."
        return None

    def _other_reason(self, part: str, folder: Path) -> str | None:
        """Why what is there, a link or a file, cannot be used in place of a folder. Raises OSError."""
        if part in self._became_links:
            return (
                f"{self._became_links[part]} ({part}) is a link, and was a folder: put the folder back, or let [paths] name "
                "where the link leads; then start demixd again."
            )
        if folder.is_symlink():
            return f"{folder} ({part}) is a link, and was a folder: put the folder back; demixd goes on by itself then."
        if folder.exists() and not folder.is_dir():
            return f"{folder} ({part}) is no folder: put one in its place; demixd goes on by itself then."
        return None

    def _make(self, part: str, folder: Path) -> None:
        if part != _PRIVATE:
            folder.mkdir()
            return
        with nofollow.reach(folder.parent, folder.parent) as outbox:
            os.mkdir(folder.name, private.MODE, dir_fd=outbox)

    def _close_private(self, folder: Path) -> None:
        """Keep others out of the private folder, and remember the outbox in which it is."""
        with nofollow.reach(folder.parent, folder) as handle:
            private.close_to_others(handle, folder)
        if not self._is_same_outbox:
            self._remember("outbox", folder.parent, folder.parent.stat().st_ino)

    @property
    def _is_same_outbox(self) -> bool:
        """Whether the outbox is the folder in which the private one was. Raises OSError."""
        outbox, known = self._folders["outbox"], self._known["outbox"]
        return known is not None and known.inode == outbox.stat().st_ino

    def _root(self) -> Root | None:
        try:
            status = self._inbox.stat()
            return status.st_dev, status.st_ino, mount_of(self._inbox).id
        except OSError:
            return None

    def _recall(self, part: str) -> _Known | None:
        known = self._ledger.fact(f"place {part}", _Known)
        if known is None or known.path == str(self._folders[part]):
            return known
        named = self._named.get(part)
        if named is not None and known.path == str(named) and named.is_symlink():
            self._became_links[part] = named
        self._is_at_another_path = self._is_at_another_path or part == "inbox"
        return None

    def _remember(self, part: str, folder: Path, inode: int) -> None:
        self._known[part] = known = _Known(path=str(folder), inode=inode)
        self._ledger.note(f"place {part}", known)


def _unwritable(part: str, folder: Path) -> str:
    """The sentence about a folder that cannot be written. Raises OSError where its disk is read-only: no owner would help."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    return f"{folder} ({part}) cannot be written: let demixd's user write there; it goes on by itself then."
