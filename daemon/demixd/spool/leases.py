"""When a file is ready: nobody writes it, and it has looked the same for the settle time.

`Settling` is told the time and remembers since when each file has looked as it does now. `writer_of` asks the kernel by
way of a read lease (fcntl(2), F_SETLEASE): it cannot be taken while anyone has the file open or mapped for writing.
"""

import errno
import fcntl
import os
import signal
import stat
from pathlib import Path

from demixd.protocol.identity import Identity
from demixd.protocol.job import Reason
from demixd.spool import nofollow
from demixd.spool.files import open_file
from demixd.spool.tree import LEASE


def writer_has(inbox: Path, path: Path, identity: Identity) -> Reason | None:
    """Why the kernel or its permissions say that the file is not ready; None where it is, or where it cannot tell."""
    try:
        handle = nofollow.read_file(inbox, path)
    except PermissionError:
        return Reason.PERMISSION
    except OSError as error:
        # EAGAIN: somebody holds a lease against us, so somebody writes. Anything else: it went or changed just now.
        return Reason.OPEN_FOR_WRITING if error.errno == errno.EAGAIN else Reason.CHANGING
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or Identity.of(status) != identity:
            return Reason.CHANGING
        return writer_of(handle)
    except OSError:
        return Reason.CHANGING
    finally:
        nofollow.close(handle)


def writer_of(handle: int) -> Reason | None:
    """OPEN_FOR_WRITING where somebody has the open file open or mapped for writing. The lease is given back at once."""
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # EACCES: neither owner nor CAP_LEASE; EINVAL: no leases on this filesystem. The settle time alone decides.
        return Reason.OPEN_FOR_WRITING if error.errno == errno.EAGAIN else None
    return None


def lease_fails(folder: Path) -> str | None:
    """Why a lease cannot be relied on in `folder`, tried on a scratch file with a writer; None where it can."""
    scratch = folder / LEASE
    try:
        writer = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return f"it cannot be tried: {error.strerror}"
    try:
        reader = open_file(scratch)
        try:
            if writer_of(reader) is not Reason.OPEN_FOR_WRITING:
                return "it does not notice a writer"
            nofollow.close(writer)
            writer = -1
            fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        finally:
            nofollow.close(reader)
    except OSError as error:
        return f"the kernel refuses it: {error.strerror}"
    finally:
        if writer >= 0:
            nofollow.close(writer)
        scratch.unlink(missing_ok=True)
    return None


def survive_lease_breaks() -> None:
    """A lease that is broken sends SIGIO, whose default action would end the process."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
