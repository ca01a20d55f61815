"""Whether a process lives, by the facts that it has given of itself."""

import os
import signal
import socket
import subprocess
import time

import msgspec
import pytest

from demixd.spool.processes import is_alive, state_and_time, this_process


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


def test_state_and_time_of_a_process() -> None:
    """A stopped one is `T`; the time that it has used is that of the processors, not of the clock."""
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    state, used_s = state_and_time(child.pid)
    child.kill()
    child.wait()
    assert state == "T" and used_s < 1
    before = state_and_time(os.getpid())[1]
    until = time.process_time() + 0.2
    while time.process_time() < until:
        continue
    assert 0.1 < state_and_time(os.getpid())[1] - before < 5
