"""The folders of profiles in the inbox: made for each profile, so that people see where to drop.

One that was made here, and whose profile the configuration has no more, goes again once nothing is in it. A folder that
somebody else has made stays. The ledger remembers what was made, by inode, owner and birth: a name alone may be that of
another folder by now, and so may an inode.
"""

import logging
import unicodedata
from pathlib import Path

import msgspec

from demixd.config import Config
from demixd.spool import nofollow
from demixd.spool.files import born_ns
from demixd.supervisor.ledger import Ledger
from demixd.supervisor.runs.context import Context

FACT = "profile folders"

log = logging.getLogger(__name__)


class _Made(msgspec.Struct, frozen=True):
    """A folder as it was made. Its birth is None where the filesystem does not keep it."""

    inode: int
    owner: int
    born_ns: int | None


class ProfileFolders:
    """Made at the start, when the inbox is another folder than before, and when the configuration is read again."""

    def __init__(self, context: Context, ledger: Ledger) -> None:
        self._inbox, self._folders, self._ledger = context.spool.inbox, context.folders, ledger
        self._made = ledger.fact(FACT, dict[str, _Made]) or {}
        self._wanted: set[str] | None = None
        """The names of the profiles that have a folder; None until they are known."""

    def look(self, config: Config) -> None:
        """Bring the folders up to the configuration; not in an inbox that may be an empty mount point."""
        self._wanted = set(config.profiles) if config.inbox.profile_folders and config.inbox.recursive else set()
        if self._folders.root is None or self._folders.inbox_is_another:
            return
        known = dict(self._made)
        try:
            there = {unicodedata.normalize("NFC", each.name) for each in self._inbox.iterdir()}
            for name in self._wanted - there:
                folder = self._inbox / name
                with nofollow.reach(self._inbox, folder, make=self._inbox):
                    self._made[name] = self._seen(folder)
                    log.info("%s: made for the profile", folder)
        except OSError as error:
            log.warning("The folders of profiles cannot be made in %s: %s", self._inbox, error.strerror)
        if self._made != known:
            self._ledger.note(FACT, self._made)
        self.clear()

    def clear(self) -> None:
        """Remove the folders that were made for profiles which are no more, where nothing is in them."""
        if self._wanted is None or self._folders.root is None or self._folders.inbox_is_another:
            return
        gone = [name for name in self._made.keys() - self._wanted if self._is_gone(name)]
        if gone:
            self._made = {name: made for name, made in self._made.items() if name not in gone}
            self._ledger.note(FACT, self._made)

    def _seen(self, folder: Path) -> _Made:
        """Raises OSError."""
        status = folder.lstat()
        return _Made(status.st_ino, status.st_uid, born_ns(self._inbox, folder))

    def _is_gone(self, name: str) -> bool:
        """Whether the folder that was made for a profile is there no more; an empty one is removed."""
        folder = self._inbox / name
        try:
            if self._seen(folder) == self._made[name]:
                nofollow.remove_folder(self._inbox, folder)
                log.info("%s: removed, since there is no such profile any more", folder)
        except FileNotFoundError:
            pass  # somebody has removed it
        except OSError:
            return False  # something is in it
        return True
