"""Leases: whether somebody has a file open for writing.

The kernel grants a read lease (fcntl(2), F_SETLEASE, F_RDLCK) only while no process has the file open or mapped for
writing. It is given back at once. To take one needs ownership of the file or CAP_LEASE, and a local filesystem.
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
    """Why the file at `path` is not ready: OPEN_FOR_WRITING, PERMISSION, or CHANGING where it is not `identity`; else None.

    None also where the kernel cannot say whether somebody writes.
    """
    try:
        handle = nofollow.read_file(inbox, path)
    except PermissionError:
        return Reason.PERMISSION
    except OSError as error:
        # EAGAIN: a writer holds a lease, which our open would break. Any other error: it has just gone or changed.
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
    """OPEN_FOR_WRITING where a process has the file of the descriptor open or mapped for writing; else None."""
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # EACCES: neither owner nor CAP_LEASE; EINVAL: no leases on this filesystem. The settle time alone decides.
        return Reason.OPEN_FOR_WRITING if error.errno == errno.EAGAIN else None
    return None


def lease_fails(folder: Path) -> str | None:
    """Why leases do not work in `folder`, as the end of a sentence; None where they do. It is tried on a scratch file."""
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
    """Ignore SIGIO, which the kernel sends when somebody opens a leased file, and whose default action ends the process."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
