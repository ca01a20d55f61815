"""A bound on the memory that opening a song may take, of the whole process: FFmpeg believes the counts in a header.

An M4A of 1 KB can claim four billion samples, for which FFmpeg would make a table of 100 GB. The kernel counts what a
process may write to (RLIMIT_DATA); above the bound FFmpeg gets no memory, and says so. The other threads of the process have
the same bound for these milliseconds.
"""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from demixd.spool.files import open_file

MORE = 1 << 30
"""Bytes above what the process has. An index of ten hours of film takes 100 MB."""

_lock = threading.Lock()


@contextmanager
def bounded(more: int = MORE) -> Iterator[None]:
    """Within, the process gets at most `more` bytes of memory; nothing is bounded where the kernel does not tell (Linux does)."""
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        try:
            wanted = _data_bytes() + more
        except OSError:
            wanted = hard
        most = min((each for each in (wanted, soft, hard) if each != resource.RLIM_INFINITY), default=soft)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """The memory that this process may write to (proc(5), statm: the sixth number, in pages). Raises OSError."""
    handle = open_file("/proc/self/statm")
    try:
        return int(os.read(handle, 200).split()[5]) * resource.getpagesize()
    finally:
        os.close(handle)
