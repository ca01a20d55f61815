"""A child process that ends with its parent."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> bool:
    """Have the kernel kill this process when its parent ends (prctl(2)). False: the parent has ended already, so end too."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent
