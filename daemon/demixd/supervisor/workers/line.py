"""The supervisor's end of the line to a worker, wherever that is: what it is told, and what it says. Imports no torch."""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import BinaryIO, Protocol

import msgspec

from demixd.supervisor.workers.validate import doubt
from demixd.worker.messages import LONGEST, FromWorker, Gone, ToWorker

UNHEARD = 1000
"""Lines that may wait for the main loop. After that the worker waits, for its pipe is full."""

CLOSE_S = 5.0
"""How long a worker may take to end once it has closed its line."""

_decoder = msgspec.json.Decoder(FromWorker)


class Said(msgspec.Struct, frozen=True):
    """A line from the worker `pid`."""

    pid: int
    message: FromWorker


class Died(msgspec.Struct, frozen=True):
    """The worker `pid` is gone; `how` says it in words. `is_lost`: with its machine, which is not the fault of a song.

    `is_ours`: by what no song can be the cause of.
    """

    pid: int
    how: str
    is_lost: bool = False
    is_ours: bool = False


Post = Callable[[Said | Died], None]


class Worker(Protocol):
    """A worker, as the manager sees it; every `Line` is one."""

    @property
    def pid(self) -> int: ...

    def send(self, message: ToWorker) -> None: ...

    def heard(self) -> None: ...

    def resident_bytes(self) -> int | None: ...

    def close(self) -> None: ...


class StartWorker(Protocol):
    """Starts a worker; what it says is posted. `threads`: how many it may compute with; None for all of its machine's."""

    def __call__(self, post: Post, threads: int | None = None) -> Worker: ...


class Line(ABC):
    """One worker. What it says goes to `post`, from a thread of its own, as `Said` and at last one `Died`."""

    def __init__(self, pid: int, post: Post, reader: BinaryIO, writer: BinaryIO) -> None:
        """`pid`: the number of its process; of one on another machine a number below zero."""
        self.pid = pid
        self._post, self._reader, self._writer = post, reader, writer
        self._room = threading.Semaphore(UNHEARD)
        self._closed = False
        self._thread = threading.Thread(target=self._listen, name="worker-listener", daemon=True)
        self._thread.start()

    @abstractmethod
    def kill(self) -> None:
        """End the worker at once."""

    @abstractmethod
    def _ended(self) -> Died:
        """How the worker ended, that has closed its line."""

    @abstractmethod
    def resident_bytes(self) -> int | None:
        """The resident memory of its process; None where nobody tells."""

    def send(self, message: ToWorker) -> None:
        """Write a message to the worker. Where it has ended nothing happens; where writing fails it is killed (`Died`)."""
        try:
            self._writer.write(msgspec.json.encode(message) + b"\n")
            self._writer.flush()
        except (BrokenPipeError, ValueError):
            return
        except OSError:
            self.kill()  # who has heard half a line understands nothing more

    def heard(self) -> None:
        """A posted line has been taken: there is room for another one."""
        self._room.release()

    def close(self) -> None:
        """End the worker and its listener."""
        self.kill()
        self._closed = True
        self._room.release()
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():  # else it reads from that
            self._reader.close()
        with contextlib.suppress(OSError):  # the half line that it does not hear any more
            self._writer.close()

    def _listen(self) -> None:
        try:
            died = self._hear()
        except OSError as error:
            self.kill()
            died = Died(self.pid, f"it cannot be heard: {error.strerror}")
        if died is not None:
            self._post(died)

    def _hear(self) -> Died | None:
        """Post every message; how the worker died, or None once nobody listens any more. Raises OSError."""
        # A last line without an end is one that the worker died in: its death is what there is to tell.
        while (line := self._reader.readline(LONGEST)).endswith(b"\n") or len(line) == LONGEST:
            message = _understood(line)
            if isinstance(message, str):
                self.kill()
                return Died(self.pid, f"it said what is not in the protocol ({message}): {line[:200]!r}")
            if isinstance(message, Gone):
                return Died(self.pid, message.how, message.is_lost, message.is_ours)
            self._room.acquire()
            if self._closed:
                return None
            self._post(Said(self.pid, message))
        return self._ended()


def _understood(line: bytes) -> FromWorker | str:
    """The message in a line, or a sentence about why there is none."""
    try:
        message = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return doubt(message) or message
