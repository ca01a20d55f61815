"""Child processes: they run this program's own code, wherever they are started, and end with their parent."""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1

_RUN = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), None, '__main__', True)"
)


ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""The environment of a child whose memory is limited, and that loads numpy: each thread would reserve 32 MiB."""


def python(module: str) -> list[str]:
    """The command that runs a module of this program, to which arguments can be added.

    Python's isolated mode: neither the working directory, which others may write to, nor PYTHONPATH counts.
    """
    return [sys.executable, "-I", "-c", _RUN, str(Path(__file__).parents[1]), module]


def first_to_go() -> None:
    """Have the kernel kill this process first where memory runs out: its parent has more to lose."""
    with contextlib.suppress(OSError):  # no Linux, or a sandbox
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def end_with_parent() -> bool:
    """Have the kernel kill this process when its parent ends (prctl(2)). False: the parent has ended already, so end too."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent
