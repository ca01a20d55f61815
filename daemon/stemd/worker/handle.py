"""The supervisor's end of a worker process: start it, talk to it, hear from it, end it. Imports no torch."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from stemd.worker.messages import FromWorker, ToWorker

PROGRAM = [sys.executable, "-m", "stemd.worker"]

ENVIRONMENT = {
    # OpenMP's threads spin while they wait for each other, which on a machine that does something else as well makes
    # them twenty times slower than sleeping.
    "OMP_WAIT_POLICY": "passive",
    # glibc gives large blocks back to the kernel at once and asks for them anew, page by page: half a million faults, and
    # a fifth of the time of a segment on a CPU. So they are kept, in huge pages. Elsewhere nobody reads this.
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={1 << 32}:glibc.malloc.trim_threshold={1 << 33}:glibc.malloc.hugetlb=1",
}
"""Of a worker, where the daemon's own environment does not say otherwise."""

_PAGE = os.sysconf("SC_PAGE_SIZE")

_decoder = msgspec.json.Decoder(FromWorker)


class Said(msgspec.Struct, frozen=True):
    """A line from the worker process `pid`."""

    pid: int
    message: FromWorker


class Died(msgspec.Struct, frozen=True):
    """The worker process `pid` is gone; `how` says it in words."""

    pid: int
    how: str


class Handle:
    """One worker process. What it says goes to `post`, from a thread of its own, as `Said` and at last one `Died`."""

    def __init__(self, post: Callable[[Said | Died], None]) -> None:
        self._post = post
        environment = ENVIRONMENT | os.environ
        self._process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.pid = self._process.pid
        self._thread = threading.Thread(target=self._listen, name="worker-listener", daemon=True)
        self._thread.start()

    def send(self, message: ToWorker) -> None:
        """Say something. A worker that is gone hears nothing, and one that cannot be told is ended: `Died` tells."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return
        except OSError:
            self._process.kill()  # who has heard half a line understands nothing more

    def resident_bytes(self) -> int | None:
        """The memory that the process has resident (proc(5), statm), where the system tells."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
        except (OSError, IndexError):
            return None

    def kill(self) -> None:
        """End the process at once and wait for it."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process and its listener."""
        self.kill()
        self._thread.join()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            return

    def _listen(self) -> None:
        assert self._process.stdout is not None
        line = b""
        try:
            for line in self._process.stdout:
                self._post(Said(self.pid, _decoder.decode(line)))
        except msgspec.DecodeError as error:
            self._process.kill()
            self._post(Died(self.pid, f"it said what is not in the protocol ({error}): {line[:200]!r}"))
            return
        except OSError as error:
            self._process.kill()
            self._post(Died(self.pid, f"it cannot be heard: {error.strerror}"))
            return
        code = self._process.wait()
        self._post(Died(self.pid, f"killed by signal {-code}" if code < 0 else f"it ended with status {code}"))
