"""Errors of the system as errors of ours: whose fault it is, which disk it was, and what helps."""

import errno
import os

import pytest

from demixd.errors import disk_error


def error_of(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("name", "disk", "named"),
    [
        ("/work", "/outbox", " of /work"),
        (None, "/outbox", " of /outbox"),
        ("/proc/self/fd/9/vocals.wav", "/outbox", " of /outbox"),
        ("/proc/self/fd/9/vocals.wav", None, ""),
    ],
)
def test_the_disk_that_failed(name: str | None, disk: str | None, named: str) -> None:
    """It is the one that the error names, else that of the work; the path of an open folder says nothing to people."""
    told = disk_error(error_of(errno.EIO, name), "vocals.wav", disk)
    assert told.message == f"The disk{named} failed at vocals.wav: Input/output error."
    told = disk_error(error_of(errno.ENOSPC, name), "vocals.wav", disk)
    where = f" on the disk{named}" if named else ""
    assert told.message == f"There is no space left for vocals.wav{where}; free some."
