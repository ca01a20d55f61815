"""One daemon on a folder: each of state/, status/ and outbox/ holds a lock file that says who has it.

On one machine flock(2) decides, and a dead process holds nothing. On a share the other machine's lock may not be seen:
there its name in the file, and a heartbeat that goes on, tell that it is alive; also on a disk of our own, which may be a
share for others. Whoever may read a file may lock it: so the files are their owner's alone. The heartbeat is not: its interval
is believed between our own and the longest that can be configured.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from demixd.config.sections import HEARTBEAT_MOST_S
from demixd.errors import ConfigError
from demixd.protocol.status import ProcessFacts
from demixd.spool import documents, nofollow
from demixd.spool.mounts import is_remote, mount_of
from demixd.spool.processes import is_alive, this_process
from demixd.spool.tree import DAEMON, LOCK, PRIVATE_LOCK, Spool

MODE = 0o600

log = logging.getLogger(__name__)


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock; see `ProcessFacts`."""

    host: str
    boot: str
    pid: int
    instance: str
    namespace: int = 0
    started: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class _Heartbeat(msgspec.Struct, frozen=True):
    seq: int
    interval_s: Annotated[float, Meta(gt=0)]


class Locks:
    """The locks of one daemon. A folder that is away is locked when it comes back."""

    def __init__(self, state: Path, spool: Spool, instance: str, heartbeat_s: float) -> None:
        """`heartbeat_s` is our own configured interval."""
        self._files = {
            "state": state / PRIVATE_LOCK,
            "status": spool.status / LOCK,
            "outbox": spool.private / PRIVATE_LOCK,
        }
        self._roots = {"state": state, "status": spool.status, "outbox": spool.outbox}
        self._heartbeat = spool.status / DAEMON
        self._heartbeat_s = heartbeat_s
        self._held: dict[str, int] = {}
        self._me = Owner(pid=os.getpid(), instance=instance, **msgspec.structs.asdict(this_process()))
        self._seen: tuple[_Heartbeat, float] | None = None
        self.rival: Owner | None = None
        """Another machine's daemon, as long as it is not known whether it still lives."""

    def take(self, *parts: str) -> bool:
        """Lock the folders that are not locked yet, or are other folders by now; whether there were any.

        Raises ConfigError, naming who holds one, and OSError.
        """
        are_new = False
        for part in parts:
            path = self._files[part]
            if part in self._held:
                if _is_file_of(self._held[part], path):
                    continue
                nofollow.close(self._held.pop(part))
            self._held[part] = self._lock(part, path)
            are_new = True
        return are_new

    def _lock(self, part: str, path: Path) -> int:
        with nofollow.reach(self._roots[part], path.parent, follow=part == "state") as folder:
            handle = _opened(folder, path)
        try:
            with _named(path):
                self._claim(part, path, handle)
        except (OSError, ConfigError):
            nofollow.close(handle)  # or the next try would find it locked, by ourselves
            raise
        return handle

    def _claim(self, part: str, path: Path, handle: int) -> None:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            # What is written into it would be written into somebody else's file.
            raise OSError(errno.EEXIST, "it is not a file of its own")
        if stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.geteuid():
            with suppress(OSError):  # a filesystem without modes
                os.fchmod(handle, MODE)
        if found.st_uid != os.geteuid() and not is_remote(mount_of(path.parent).kind):
            raise _of_another_user(found.st_uid, path)
        owner = _owner(os.pread(handle, 4096, 0))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(path, owner, found.st_mtime)
            raise ConfigError(f"{path.parent} is used by {who}; each daemon needs its own {part} folder.") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
            # A filesystem without locks: the name in the file has to do.
        if owner is not None and self._may_live_elsewhere(owner, path):
            self.rival = owner
            log.warning(
                "%s is signed by %s: waiting %g s to see whether its heartbeat goes on; if it does not, demixd goes on by "
                "itself. Where that daemon is gone for good, delete the file and start demixd again, to wait no longer.",
                path,
                owner,
                self.wait_s,
            )
        else:
            self._sign(handle)

    def _may_live_elsewhere(self, owner: Owner, path: Path) -> bool:
        """Whether it may be another machine's, whose lock is not seen here: a disk of our own may be a share for others."""
        if owner.host == self._me.host and owner.boot != self._me.boot:
            return is_remote(
                mount_of(path.parent).kind
            )  # two machines of one name, or this one before it was started anew
        return owner.host != self._me.host

    def _sign(self, handle: int) -> None:
        os.ftruncate(handle, 0)
        os.pwrite(handle, msgspec.json.encode(self._me), 0)

    def holds(self, part: str) -> bool:
        return part in self._held

    def judge_rival(self, now: float) -> bool:
        """Whether the folders are ours: True once there is no rival. Raises ConfigError where a rival proves to be alive.

        It is if its heartbeat goes on; it is not if that stands still for `wait_s`. `now` is monotonic.
        Raises OSError where our name cannot be written yet.
        """
        if self.rival is None:
            return True
        beat = self._beat()
        first, since = self._seen = self._seen or (beat, now)
        if beat.seq not in (first.seq, 0):  # that the file is taken away is no sign of life
            self._seen = beat, now
            raise ConfigError(
                f"{self._heartbeat.parent} is used by another demixd ({self.rival}); stop it, or use another spool."
            )
        if now < since + self.wait_s:
            return False
        for part, handle in self._held.items():
            with _named(self._files[part]):
                self._sign(handle)
        self.rival = self._seen = None
        return True

    @property
    def wait_s(self) -> float:
        """How long a dead rival's heartbeat stands still, in all: three of its intervals, which others may forge."""
        beat = self._seen[0] if self._seen else self._beat()
        return 3 * max(self._heartbeat_s, min(beat.interval_s, HEARTBEAT_MOST_S))

    def _beat(self) -> _Heartbeat:
        return documents.read(self._heartbeat, _Heartbeat, largest=documents.LARGEST_LIST) or _Heartbeat(0, 5.0)

    def release(self) -> None:
        for handle in self._held.values():
            if self.rival is None:
                os.ftruncate(handle, 0)
            nofollow.close(handle)
        self._held.clear()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give an error at a descriptor the name of its file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _owner(data: bytes) -> Owner | None:
    try:
        return msgspec.json.decode(data, type=Owner)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _opened(folder: int, path: Path) -> int:
    """The lock file, which is made where there is none. Raises OSError, EPERM where it is another user's."""
    try:
        return os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE, dir_fd=folder)
    except PermissionError:
        with suppress(FileNotFoundError):
            user = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_uid
            if user != os.geteuid():
                raise _of_another_user(user, path) from None
        raise


def _of_another_user(user: int, path: Path) -> OSError:
    reason = (
        f"the file belongs to user {user}, whose daemon may use its folder; where no such daemon runs, remove the file"
    )
    return OSError(errno.EPERM, reason, str(path))


def _holder(path: Path, owner: Owner | None, signed_at: float) -> str:
    """Who has locked the file: who has signed it, unless that process has ended."""
    facts = msgspec.convert(owner, ProcessFacts, from_attributes=True) if owner else ProcessFacts()
    if owner is None or is_alive(owner.pid, facts, signed_at) is False:
        return f"another demixd, or by a process that has locked {path} without a name (fuser -v tells which)"
    return f"another demixd ({owner})"


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False
