"""Folders of the inbox that their last song has left, where `[inbox] leftovers = "move"` asks for it.

    inbox/Album/  cover.jpg  notes.txt      ->      done/Album/  cover.jpg  notes.txt  and the songs, which went before

What lay beside the songs follows them to done/, and a folder in which nothing is left goes. It waits until nothing there has
changed for WAIT_S, since more may be coming. Folders of profiles stay, and so does one with a file that somebody is writing, or
with anything that is not walked.
"""

import itertools
import logging
import unicodedata
from pathlib import Path

import msgspec

from demixd.config import Config
from demixd.protocol.identity import Identity
from demixd.protocol.inbox_names import Kind, is_unfinished
from demixd.spool import nofollow
from demixd.supervisor.inbox.readiness import FOREVER
from demixd.supervisor.inbox.scan import NOTHING, Listing, Seen
from demixd.supervisor.runs import originals
from demixd.supervisor.runs.context import Context

log = logging.getLogger(__name__)

WAIT_S = 60.0

AT_ONCE = 100
"""How many files one look moves, also where they are small: the loop, and the heart, go on between."""

MOVABLE = frozenset({Kind.NOT_AUDIO, Kind.UNSUPPORTED, Kind.IGNORED, Kind.OPTIONS})


class _Left(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that a song has left, what is in it, and since when (monotonic) that has been so."""

    inside: dict[str, Identity]
    since: float


class Emptied:
    """Sees to the folders that songs have left since the daemon has started. `now` is monotonic, in seconds."""

    def __init__(self, config: Config, context: Context) -> None:
        self.reconfigure(config)
        self._spool, self._jobs = context.spool, context.jobs
        self._before = NOTHING
        self._left: dict[str, _Left] = {}
        self.look_again_at = FOREVER
        """When (monotonic) the next files of a folder are to be moved."""

    def reconfigure(self, config: Config) -> None:
        self._is_wanted = config.inbox.leftovers == "move"
        self._profiles = config.profiles

    @property
    def is_waiting(self) -> bool:
        """Whether a folder is to be looked at again."""
        return bool(self._left)

    def look(self, listing: Listing, now: float) -> None:
        """Note the folders that songs have left since the last listing, and clear those that have been quiet for long enough."""
        self.look_again_at = FOREVER
        gone, self._before = self._before.songs.keys() - listing.songs.keys(), listing
        if not self._is_wanted or not listing.complete:
            self._left = {}
            return
        for folder in {name.rpartition("/")[0] for name in gone} - {""}:
            self._left.setdefault(folder, _Left(inside={}, since=now))
        for folder, inside in self._inside(listing).items():
            left = self._left[folder]
            identities = {name: seen.identity for name, seen in inside.items()}
            if not identities.items() <= left.inside.items():  # a file that went is no change
                self._left[folder] = _Left(inside=identities, since=now)
            elif now >= left.since + WAIT_S and not self._is_in_use(folder):
                if all(map(_is_movable, inside.values())) and self._clear(folder, inside):
                    self.look_again_at = now
                else:
                    del self._left[folder]

    def _inside(self, listing: Listing) -> dict[str, dict[str, Seen]]:
        """What is in each folder that a song has left, and in those below it."""
        inside: dict[str, dict[str, Seen]] = {folder: {} for folder in self._left}
        for seen in listing.files.values() if inside else ():
            folder = seen.name
            while folder := folder.rpartition("/")[0]:
                if folder in inside:
                    inside[folder][seen.name] = seen
        return inside

    def _is_in_use(self, folder: str) -> bool:
        """Whether a job's song is, or was, in the folder: it may come back to it."""
        return any(name.startswith(f"{folder}/") for name in (*self._jobs.active, *self._jobs.successors))

    def _clear(self, folder: str, inside: dict[str, Seen]) -> bool:
        """Move the first files, and remove the folders that are empty then; whether there are more to move."""
        inbox, done = self._spool.inbox, self._spool.done
        names = _portion(inside)
        try:
            for name in names:
                originals.move(inbox / name, done / name, source_root=inbox, target_root=done)
            folders = {(inbox / name).parent for name in names} | {inbox / folder}
            for each in sorted(folders, reverse=True):
                self._remove_empty(each)
        except OSError as error:
            log.warning("%s stays in the inbox, with what lies in it: %s", folder, error)
            return False
        return len(names) < len(inside)

    def _remove_empty(self, folder: Path) -> None:
        """Remove the folder and those above it, where they are empty and no profile's."""
        while folder != self._spool.inbox and unicodedata.normalize("NFC", folder.name) not in self._profiles:
            try:
                nofollow.remove_folder(self._spool.inbox, folder)
            except FileNotFoundError:
                pass  # it went with one below it
            except OSError:
                return  # something is in it
            folder = folder.parent


def _portion(inside: dict[str, Seen]) -> list[str]:
    """The first files: at most AT_ONCE, and, but for one, no more bytes than one original may have to be compared."""
    totals = itertools.accumulate(seen.identity.size for seen in inside.values())
    first = zip(itertools.islice(inside, AT_ONCE), totals, strict=False)
    return [name for name, total in first if total <= originals.LARGEST_TWIN] or list(inside)[:1]


def _is_movable(seen: Seen) -> bool:
    return seen.kind in MOVABLE and not (seen.kind is Kind.IGNORED and is_unfinished(seen.name.rpartition("/")[2]))
