"""A worker in a process of its own on this machine: start it, and end it. Imports no torch."""

import contextlib
import os
import subprocess
from pathlib import Path

from demixd.engine import host
from demixd.spool import child_process
from demixd.supervisor.workers.line import CLOSE_S, Died, Line, Post

PROGRAM = child_process.python("demixd.worker")

_PAGE = os.sysconf("SC_PAGE_SIZE")


class WorkerProcess(Line):
    """One worker process."""

    def __init__(self, post: Post, threads: int | None = None) -> None:
        environment = host.for_worker(threads)
        self._process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin is not None and self._process.stdout is not None
        super().__init__(self._process.pid, post, self._process.stdout, self._process.stdin)  # type: ignore[arg-type]

    def resident_bytes(self) -> int | None:
        """The resident memory of the process (proc(5), statm); None where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
        except (OSError, IndexError):
            return None

    def kill(self) -> None:
        """End the process at once and wait for it; not for long, since the kernel may hold one that waits for a disk."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_S)

    def _ended(self) -> Died:
        """How the process ended; one that does not end soon is killed."""
        try:
            code = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return Died(self.pid, "it closed its line and did not end")
        return Died(self.pid, f"killed by signal {-code}" if code < 0 else f"it ended with status {code}")
