"""The supervisor's end of a worker process: start it, talk to it, hear from it, end it. Imports no torch."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from demixd import child_process
from demixd.engine import host
from demixd.supervisor.workers.validate import doubt
from demixd.worker.messages import FromWorker, ToWorker

PROGRAM = child_process.python("demixd.worker")

ENVIRONMENT = {
    # OpenMP's threads spin while they wait for each other, which on a machine that does something else as well makes
    # them twenty times slower than sleeping.
    "OMP_WAIT_POLICY": "passive",
    # glibc gives large blocks back to the kernel at once and asks for them anew, page by page: half a million faults, and
    # a fifth of the time of a segment on a CPU. So they are kept, in huge pages. Elsewhere nobody reads this.
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={1 << 32}:glibc.malloc.trim_threshold={1 << 33}:glibc.malloc.hugetlb=1",
}
"""Of a worker, where the daemon's own environment does not say otherwise."""

LONGEST = 1 << 20
"""Bytes of a line. One with 64 stems has 40,000; what is longer is no message, and must not be held in memory whole."""

UNHEARD = 1000
"""Lines that may wait for the main loop. After that the worker waits, for its pipe is full."""

CLOSE_S = 5.0
"""How long a worker may take to end once it has closed its line."""

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


class WorkerProcess:
    """One worker process. What it says goes to `post`, from a thread of its own, as `Said` and at last one `Died`."""

    def __init__(self, post: Callable[[Said | Died], None], threads: int | None = None) -> None:
        """`threads`: how many it may compute with; None where the whole machine is its own."""
        self._post = post
        environment = ENVIRONMENT | os.environ | ({host.THREADS: str(threads)} if threads else {})
        self._process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.pid = self._process.pid
        self._room = threading.Semaphore(UNHEARD)
        self._closed = False
        self._thread = threading.Thread(target=self._listen, name="worker-listener", daemon=True)
        self._thread.start()

    def send(self, message: ToWorker) -> None:
        """Write a message to the worker. Where it has ended nothing happens; where writing fails it is killed (`Died`)."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return
        except OSError:
            self._process.kill()  # who has heard half a line understands nothing more

    def heard(self) -> None:
        """A posted line has been taken: there is room for another one."""
        self._room.release()

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

    def close(self) -> None:
        """End the process and its listener."""
        self.kill()
        self._closed = True
        self._room.release()
        self._thread.join(CLOSE_S)
        assert self._process.stdin is not None and self._process.stdout is not None
        if not self._thread.is_alive():  # else it reads from that
            self._process.stdout.close()
        with contextlib.suppress(OSError):  # the half line that it does not hear any more
            self._process.stdin.close()

    def _listen(self) -> None:
        try:
            how = self._hear()
        except OSError as error:
            self._process.kill()
            how = f"it cannot be heard: {error.strerror}"
        if how is not None:
            self._post(Died(self.pid, how))

    def _hear(self) -> str | None:
        """Post every message; how the process died, or None once nobody listens any more. Raises OSError."""
        assert self._process.stdout is not None
        # A last line without an end is one that the worker died in: its death is what there is to tell.
        while (line := self._process.stdout.readline(LONGEST)).endswith(b"\n") or len(line) == LONGEST:
            message = _understood(line)
            if isinstance(message, str):
                self._process.kill()
                return f"it said what is not in the protocol ({message}): {line[:200]!r}"
            self._room.acquire()
            if self._closed:
                return None
            self._post(Said(self.pid, message))
        return self._ended()

    def _ended(self) -> str:
        """How the process ended; one that does not end soon is killed."""
        try:
            code = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "it closed its line and did not end"
        return f"killed by signal {-code}" if code < 0 else f"it ended with status {code}"


def _understood(line: bytes) -> FromWorker | str:
    """The message in a line, or a sentence about why there is none."""
    try:
        message = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return doubt(message) or message


Post = Callable[[Said | Died], None]


class Worker(Protocol):
    """A worker, as the manager sees it; `WorkerProcess` is one."""

    @property
    def pid(self) -> int: ...

    def send(self, message: ToWorker) -> None: ...

    def heard(self) -> None: ...

    def resident_bytes(self) -> int | None: ...

    def close(self) -> None: ...


class StartWorker(Protocol):
    """Starts a worker; what it says is posted. `WorkerProcess` is one."""

    def __call__(self, post: Post, threads: int | None = None) -> Worker: ...
