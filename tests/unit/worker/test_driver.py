"""The child that speaks to a cluster, where something of Ray holds it."""

import importlib.util
import signal
import subprocess
import sys

import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("no Ray: see config/requirements-ray.lock", allow_module_level=True)

HELD = """
import ctypes, socket
from demixd.worker.ray import driver

class Held:
    def __init__(self, begin): pass

    async def keep(self):
        ctypes.PyDLL(None).sleep(60)  # with Python's lock held

driver.STILL_S, driver.Cluster = 1, Held
ours, theirs = socket.socketpair()
driver.serve(None, theirs)
"""


def test_a_child_that_is_held_is_ended_by_the_kernel() -> None:
    """The supervisor then sees the end of its workers' lines, and starts another."""
    assert subprocess.run([sys.executable, "-c", HELD], timeout=30).returncode == -signal.SIGALRM
