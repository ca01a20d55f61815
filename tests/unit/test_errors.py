"""Errors of the system as errors of ours: whose fault it is, which disk it was, and what helps."""

import errno
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest

from demixd.errors import Code, disk_error
from demixd.worker.channel import described


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


def test_memory_is_no_disk() -> None:
    """ENOMEM is tried again as a disk's failure is, but blames no disk, and names the key that asks for less memory."""
    told = disk_error(error_of(errno.ENOMEM, "/work"), "separating", "/outbox")
    assert told.code is Code.IO_ERROR
    assert told.message == "There is no memory left for separating; free some, or set [limits] memory_bytes lower."


def huge_stack() -> None:
    before = threading.stack_size(1 << 50)
    try:
        threading.Thread(target=print).start()
    finally:
        threading.stack_size(before)


@pytest.mark.parametrize("allocate", [lambda: np.empty(1 << 50), huge_stack], ids=["numpy", "thread"])
def test_a_worker_without_memory(allocate: Callable[[], object]) -> None:
    """Memory that is lacking anywhere in a worker is no error of ours that is to be reported."""
    with pytest.raises(Exception) as error:
        allocate()
    assert described(error.value).code is Code.IO_ERROR
