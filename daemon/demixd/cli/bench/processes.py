"""Child processes that do not outlive their block, and what they took."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

STOP_S = 20.0
"""How long one may take to stop before it is killed. The daemon stops within 5 s."""


@contextlib.contextmanager
def child(module: list[str], log: Path, *, talks: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m MODULE ...`, which is asked to stop at the end of the block. What it says is in `log`.

    One that `talks` has pipes for its input and output, and only what it complains of is in `log`.
    """
    words = [sys.executable, "-P", "-m", *module]
    with (
        log.open("ab") as said,
        subprocess.Popen(
            words,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else said,
            stderr=said,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def last_line(log: Path) -> str:
    """What a process said last, which is most often why it has ended."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it does not say why"


def peak_bytes(pid: int) -> int:
    """The most that a process has had resident (proc(5), VmHWM); 0 where the system does not tell, or it has just ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
