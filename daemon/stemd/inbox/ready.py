"""When a file is ready: nobody writes it, and it has looked the same for the settle time.

`Settling` is told the time and remembers since when each name has looked as it does now. `writer_has` asks the kernel
by way of a read lease (fcntl(2), F_SETLEASE): it cannot be taken while anyone has the file open or mapped for writing.
"""

import errno
import fcntl
import os
import signal
from pathlib import Path

from stemd.identity import Identity
from stemd.inbox.scan import Seen
from stemd.job import Reason


class Settling:
    """Since when each file has looked as it does, on the monotonic clock in seconds."""

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self._since: dict[str, tuple[Identity, float]] = {}

    def look(self, seen: Seen, now: float) -> tuple[Reason | None, float]:
        """Why the file is not ready as far as its looks go (None: it is), and when to look again (monotonic)."""
        identity, since = self._since.get(seen.name, (None, now))
        if identity != seen.identity:
            since = now
            self._since[seen.name] = (seen.identity, now)
        again = max(since + self.settle_s, now)
        if seen.identity.size == 0:
            return Reason.EMPTY, now + 3600
        if seen.companion:
            return Reason.COMPANION_FILE, now + 3600
        return (Reason.CHANGING, again) if now < since + self.settle_s else (None, now)

    def forget(self, names: set[str]) -> None:
        """Drop every name that is not among `names`."""
        self._since = {name: known for name, known in self._since.items() if name in names}


def open_song(path: Path) -> int:
    """A descriptor of a regular file, never of what a link points to, never waiting for a FIFO. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def writer_has(path: Path) -> Reason | None:
    """Why the kernel or its permissions say that the file is not ready; None where it is, or where it cannot tell."""
    try:
        handle = open_song(path)
    except PermissionError:
        return Reason.PERMISSION
    except OSError as error:
        # EAGAIN: somebody holds a lease against us, so somebody writes. Anything else: it went or changed just now.
        return Reason.OPEN_FOR_WRITING if error.errno == errno.EAGAIN else Reason.CHANGING
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # EACCES: neither owner nor CAP_LEASE; EINVAL: no leases on this filesystem. The settle time alone decides.
        return Reason.OPEN_FOR_WRITING if error.errno == errno.EAGAIN else None
    finally:
        os.close(handle)
    return None


def survive_lease_breaks() -> None:
    """A lease that is broken sends SIGIO, whose default action would end the process."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
