"""The folders of profiles in the inbox: made for each profile, so that people see where to drop.

One that was made here, and whose profile the configuration has no more, goes again where nothing is in it. A folder that
somebody else has made stays, and so does one in which anything lies, until it is empty at a later look. The ledger remembers
what was made, by inode: a name alone may be that of another folder by now.
"""

import logging
import os
import unicodedata

from demixd.config import Config
from demixd.spool import nofollow
from demixd.supervisor.ledger import Ledger
from demixd.supervisor.runs.context import Context

FACT = "profile folders"

log = logging.getLogger(__name__)


class ProfileFolders:
    """Looked after at the start, when the inbox is another folder than before, and when the configuration is read again."""

    def __init__(self, context: Context, ledger: Ledger) -> None:
        self._inbox, self._folders, self._ledger = context.spool.inbox, context.folders, ledger

    def look(self, config: Config) -> None:
        """Bring the folders up to the configuration; not in an inbox that may be an empty mount point."""
        if self._folders.root is None or self._folders.inbox_is_another:
            return
        wanted = config.profiles.keys() if config.inbox.profile_folders and config.inbox.recursive else set[str]()
        made = self._ledger.fact(FACT, dict[str, int]) or {}
        known = dict(made)
        try:
            there = {unicodedata.normalize("NFC", each.name) for each in self._inbox.iterdir()}
            for name in wanted - there:
                with nofollow.reach(self._inbox, self._inbox / name, make=self._inbox) as handle:
                    made[name] = os.fstat(handle).st_ino
                    log.info("%s: made for the profile", self._inbox / name)
        except OSError as error:
            log.warning("The folders of profiles cannot be made in %s: %s", self._inbox, error.strerror)
        for name in made.keys() - wanted:
            if self._is_gone(name, made[name]):
                del made[name]
        if made != known:
            self._ledger.note(FACT, made)

    def _is_gone(self, name: str, inode: int) -> bool:
        """Whether the folder that was made for a profile is there no more; an empty one is removed."""
        folder = self._inbox / name
        try:
            if folder.lstat().st_ino == inode:
                nofollow.remove_folder(self._inbox, folder)
                log.info("%s: removed, since there is no such profile any more", folder)
        except FileNotFoundError:
            pass  # somebody has removed it
        except OSError:
            return False  # something is in it
        return True
