"""Whether a process lives, by the facts that it has given of itself."""

import os
import socket
import subprocess
import time

import msgspec
import pytest

from demixd.spool.processes import is_alive, this_process


def test_this_process_lives() -> None:
    """By its own facts, now and whenever it gave them."""
    assert is_alive(os.getpid(), this_process(), time.time()) is True
    assert is_alive(os.getpid(), this_process(), 0.0) is True


def test_one_that_has_ended() -> None:
    """Also as long as nobody has taken notice of its end; and whoever has its number now is not it."""
    facts = this_process()
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(child.pid, facts, time.time()) is False
    child.wait()
    assert is_alive(child.pid, facts, time.time()) is False
    other = msgspec.structs.replace(facts, started=facts.started + 1)
    assert is_alive(os.getpid(), other, time.time()) is False


@pytest.mark.parametrize("pid", [0, -1, 1 << 40])
def test_numbers_of_nobody(pid: int) -> None:
    """What is no process's number tells nothing."""
    assert is_alive(pid, this_process(), time.time()) in (None, False)


def test_where_this_machine_cannot_tell() -> None:
    """Another machine, another container, files of former versions; but a sign from before this machine's start was the last."""
    mine = this_process()
    changes = ({"boot": "x", "host": "other"}, {"boot": "x"}, {"boot": ""}, {"namespace": 1})
    for change in changes:
        assert is_alive(os.getpid(), msgspec.structs.replace(mine, **change), time.time()) is None
    before = msgspec.structs.replace(mine, boot="x", host=socket.gethostname())
    assert is_alive(os.getpid(), before, 1.0) is False
