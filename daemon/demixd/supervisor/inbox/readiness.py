"""When a file in the inbox is ready: its song and options have looked the same for the settle time, and nobody writes them.

How long the settle time is depends on the filesystem. Where others may write without our kernel's knowing (a network's
filesystem, FUSE), or where a lease does not notice a writer, a file has to look the same for longer.
"""

import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from demixd.config import Config
from demixd.errors import AudioProcessingError
from demixd.protocol import options
from demixd.protocol.identity import Identity
from demixd.protocol.inbox_names import beginnings, download_of
from demixd.protocol.job import Job, Reason, waits_for
from demixd.protocol.options import JobOptions
from demixd.spool import nofollow
from demixd.spool.leases import lease_fails, writer_has
from demixd.spool.mounts import UNKNOWN, Mount, is_remote, mount_of
from demixd.spool.tree import OPTIONS, Spool, companion
from demixd.supervisor.clock import told
from demixd.supervisor.inbox.scan import NOTHING, Listing, Seen

DOWNLOAD_S = 600.0
"""How long no file of a download may have changed before its parts are songs: a merge of large files takes minutes."""

RECHECK_S = 1.0
"""When to look again at a file that somebody has open."""

FOREVER = float("inf")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Why a song is not ready (None: it is), when to look again, and what its option file says, or what is wrong in it."""

    reason: Reason | None = None
    message: str = ""
    """The reason as a sentence; empty where the job has one of its own."""
    look_again_at: float = FOREVER
    options: JobOptions | AudioProcessingError = options.NONE
    tag: str | None = None
    """The tag of options that are refused."""


class Readiness:
    """Judges the songs of the inbox. `now` is monotonic, in seconds; `wall` is the time of day."""

    def __init__(self, config: Config, spool: Spool, wall: Callable[[], float]) -> None:
        self.reconfigure(config)
        self._spool, self._wall = spool, wall
        self._settling = Settling()
        self._read: dict[str, tuple[Identity, Verdict]] = {}
        """What settled option files say, by their songs' names: each is read once, however long its song is not ready."""
        self._relatives = Relatives()
        self.mounts = InboxMounts()

    def reconfigure(self, config: Config) -> None:
        self._config = config

    def look(self, listing: Listing, now: float) -> None:
        """Take note of a listing, before its songs are judged."""
        self._relatives.look(listing, now)
        for seen in listing.options:
            self.settles_at(seen.name, seen.identity, now)  # they may settle before their song is there

    def of(self, job: Job, seen: Seen, now: float) -> Verdict:
        """Whether the song of a waiting job is ready."""
        if seen.identity.size == 0:
            return _not_ready(Reason.EMPTY)
        if seen.companion:
            message = (
                f"{_shown(seen.companion)} beside it says that it is not complete; it is taken once that has gone."
            )
            return Verdict(reason=Reason.COMPANION_FILE, message=message)
        if (verdict := self._in_use(seen.name, now)) is not None:
            return verdict
        over = self.settles_at(seen.name, seen.identity, now)  # beside its options, not after them
        verdict = self._of_options(seen, now)
        if verdict.reason is not None:
            return verdict
        chosen = verdict.options
        awaits_hash = isinstance(chosen, JobOptions) and chosen.own.wait_for_sha256 is not None
        if over > now and not awaits_hash:
            return _not_ready(Reason.CHANGING, over)
        reason = writer_has(self._spool.inbox, self._spool.song(seen.name), seen.identity)
        if reason is not None:
            return _not_ready(reason, now + RECHECK_S)
        if job.reason is Reason.TRUNCATED and job.identity == seen.identity:
            # It may heal by growing. When its grace is over it is taken once more, to fail, or with its hole.
            left = (job.truncated_since or now) + self._config.limits.truncated_grace_s - now
            if left > 0:
                return Verdict(reason=Reason.TRUNCATED, look_again_at=now + left)
        return verdict

    def _of_options(self, seen: Seen, now: float) -> Verdict:
        """Whether the song's option file is ready, by the same rules; a bad one is an answer too."""
        if seen.options is None:
            return Verdict()
        path = self._spool.options(seen.name)
        over = self.settles_at(companion(seen.name, OPTIONS), seen.options, now)
        if over > now:
            return _not_ready(Reason.CHANGING, over, "its option file")
        if reason := writer_has(self._spool.inbox, path, seen.options):
            return _not_ready(reason, now + RECHECK_S, "its option file")
        identity, verdict = self._read.get(seen.name, (None, Verdict()))
        if identity != seen.options:
            try:
                verdict = self._parsed(path, seen.options)
            except OSError:
                return _not_ready(Reason.CHANGING, now + RECHECK_S, "its option file")  # it went just now
            self._read[seen.name] = seen.options, verdict
        return verdict

    def _parsed(self, path: Path, identity: Identity) -> Verdict:
        if identity.size > options.LONGEST:
            return Verdict(options=options.bad(f"the file has {identity.size} bytes; {options.LONGEST} are allowed"))
        with os.fdopen(nofollow.read_file(self._spool.inbox, path), "rb") as file:
            data = file.read(options.LONGEST + 1)
        try:
            return Verdict(options=options.parse(data))
        except AudioProcessingError as error:
            return Verdict(options=error, tag=options.tag_of(data))

    def _in_use(self, name: str, now: float) -> Verdict | None:
        """Whether a program makes another file of the song: it is a part of a download, or is being converted."""
        for other in self._relatives.twins(name):
            over, path = self.settles_at(other.name, other.identity, now), self._spool.song(other.name)
            if over <= now and writer_has(self._spool.inbox, path, other.identity) is Reason.OPEN_FOR_WRITING:
                over = now + RECHECK_S
            if over > now:
                message = f"{_shown(other.name)} may be made of it just now; it is taken once that has been written."
                return Verdict(reason=Reason.COMPANION_FILE, message=message, look_again_at=over)
        if (over := self._relatives.complete_at(name)) <= now:
            return None
        whole = _shown(f"{download_of(name)}.")
        at = told(
            math.ceil((self._wall() + over - now) / 60) * 60
        )  # whole minutes: a clock that is put right a bit is no news
        message = (
            f"By its name it is a part of a download; it is taken at {at} if no file that begins with {whole} changes."
        )
        return Verdict(reason=Reason.COMPANION_FILE, message=message, look_again_at=over)

    def settles_at(self, name: str, identity: Identity, now: float) -> float:
        """When the file's settle time is over, if it keeps looking as it does; it is over if that is not after `now`."""
        remote = self.mounts.is_remote(self._spool.song(name).parent, identity.device)
        settle_s = self._config.inbox.settle_remote if remote else self._config.inbox.settle
        return self._settling.over_at(name, identity, settle_s, now)

    def forget_others(self, listing: Listing) -> None:
        """Drop what is known of files that are not in the listing any more."""
        self._settling.forget({*listing.songs, *(seen.name for seen in listing.options)})
        self._read = {name: read for name, read in self._read.items() if name in listing.songs}


def _not_ready(reason: Reason, look_again_at: float = FOREVER, it: str = "the song") -> Verdict:
    return Verdict(reason=reason, message=waits_for(reason, it), look_again_at=look_again_at)


def _shown(name: str) -> str:
    """The last part of a file's name, as sentences and JSON can have it."""
    return os.fsencode(name.rpartition("/")[2]).decode("utf-8", "replace")


class Settling:
    """Since when each file has looked as it does, on the monotonic clock in seconds."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[Identity, float]] = {}

    def over_at(self, name: str, identity: Identity, settle_s: float, now: float) -> float:
        """When the settle time of the file is over, if it keeps looking like this; it is, if that is not after `now`."""
        known, since = self._since.get(name, (None, now))
        if known != identity:
            since = now
            self._since[name] = (identity, now)
        return since + settle_s

    def forget(self, names: set[str]) -> None:
        """Drop every name that is not among `names`."""
        self._since = {name: known for name, known in self._since.items() if name in names}


class Relatives:
    """The files that other programs make of one another, by their names in a listing.

    Clip.f137.mp4  Clip.f251.webm  ->  Clip.temp.mp4  ->  Clip.mp4       a download of yt-dlp and its merge
    Tune.webm  ->  Tune.mp3                                              a conversion
    """

    def __init__(self) -> None:
        self._listing = NOTHING
        self._twins: dict[str, list[Seen]] = {}
        self._downloads: dict[str, tuple[set[tuple[str, Identity]], float]] = {}
        """The files whose names begin as a download's, and since when they have looked as they do."""

    def look(self, listing: Listing, now: float) -> None:
        """Group the files of a listing; `now` is monotonic, in seconds."""
        if listing is self._listing:
            return
        self._listing, self._twins = listing, {}
        counts = Counter(hash(_stem(name)) for name in listing.songs)  # of ten thousand songs hardly one has a twin
        for name, seen in listing.songs.items() if len(counts) < len(listing.songs) else ():
            if counts[hash(_stem(name))] > 1:
                self._twins.setdefault(_stem(name), []).append(seen)
        found: dict[str, set[tuple[str, Identity]]] = {key: set() for key in map(download_of, listing.songs) if key}
        if found:
            for name, seen in listing.files.items():
                for key in found.keys() & beginnings(name):
                    found[key].add((name, seen.identity))
        for key, files in found.items():
            before, since = self._downloads.get(key, (set[tuple[str, Identity]](), now))
            self._downloads[key] = (files, since if files <= before else now)  # a file that went is no change
        self._downloads = {key: self._downloads[key] for key in found}

    def twins(self, name: str) -> list[Seen]:
        """The other songs that differ from `name` in the extension alone."""
        return [seen for seen in self._twins.get(_stem(name), ()) if seen.name != name]

    def complete_at(self, name: str) -> float:
        """When the song counts as complete in spite of its name, if no file of its download changes; 0 for other songs."""
        known = self._downloads.get(download_of(name) or "")
        return known[1] + DOWNLOAD_S if known else 0.0


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


class InboxMounts:
    """What is known of the inbox's filesystems, by device number; a sub-folder may be a mount of its own."""

    def __init__(self) -> None:
        self._remote: dict[int, bool] = {}
        self.mount: Mount = UNKNOWN
        self.warnings: tuple[str, ...] = ()

    def renew(self, inbox: Path) -> None:
        """Look anew: the daemon starts, or the inbox is another folder now."""
        self._remote = {}
        self.warnings = ()
        try:
            self.mount = mount_of(inbox)
            device = inbox.stat().st_dev
        except OSError:
            self.mount = UNKNOWN
            return
        self._remote[device] = is_remote(self.mount.kind)
        if not self._remote[device] and (why := lease_fails(inbox)):
            self.warnings = (f"The inbox's lease cannot be relied on ({why}): the settle time alone decides.",)

    def is_remote(self, folder: Path, device: int) -> bool:
        """Whether `folder`, on `device`, is on a network's filesystem or FUSE."""
        if device not in self._remote:
            try:
                self._remote[device] = is_remote(mount_of(folder).kind)
            except OSError:
                return True
        return self._remote[device]
