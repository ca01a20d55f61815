"""Child processes: they run this program's own code, wherever they are started, and end with their parent."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1

_RUN = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), None, '__main__', True)"
)

PAUSE_S = 5.0
"""Between two questions for the time, which is asked several times a second unless the whole process is held."""

LOOK_S = 0.5
"""How often `communicate` asks for it."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""The environment of a child whose memory is limited, and that loads numpy: each thread would reserve 32 MiB."""


def python(module: str) -> list[str]:
    """The command that runs a module of this program, to which arguments can be added.

    Python's isolated mode: neither the working directory, which others may write to, nor PYTHONPATH counts.
    """
    return [sys.executable, "-I", "-c", _RUN, str(Path(__file__).parents[2]), module]


def first_to_go() -> None:
    """Have the kernel kill this process first where memory runs out: its parent has more to lose."""
    with contextlib.suppress(OSError):  # no Linux, or a sandbox
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def end_with_parent() -> bool:
    """Have the kernel kill this process when its parent ends (prctl(2)). False: the parent has ended already, so end too."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


class AwakeTime:
    """A time that stands still while this process does: stopped, in a frozen container, held by a disk.

    What it waits for may have been paused along with it. So no limit runs out by a pause.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._asked_at, self._paused_s = now, now(), 0.0

    def now(self) -> float:
        now = self._now()
        if now > self._asked_at + PAUSE_S:
            self._paused_s += now - self._asked_at
        self._asked_at = now
        return now - self._paused_s


def communicate(process: "subprocess.Popen[bytes]", given: bytes | None, limit_s: float) -> tuple[bytes, bytes]:
    """`process.communicate`, for `limit_s` of awake time. Raises TimeoutExpired, and leaves the process as it is then."""
    awake = AwakeTime()
    until = awake.now() + limit_s
    while True:
        try:
            return process.communicate(given, timeout=LOOK_S)
        except subprocess.TimeoutExpired:
            given = None  # it was taken, and may not be given again
            if awake.now() > until:
                raise
