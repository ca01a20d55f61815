"""Decoding in a process of its own, which is kept for the next song, and replaced where it does not answer.

A song can come from anybody, and the libraries that open it are large. One that hangs in them, crashes them or has them
take all memory costs its own song alone: neither the warm model nor the songs beside it, and a cancel ends it at once.

    decode -- Order, song and places (open) --> decode_child
           <-- Reached ..., then Made or Refused --

The line between them is a socket that keeps messages apart (unix(7), SOCK_SEQPACKET); it carries the open files too, so
that the child opens nothing by name.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from demixd.audio.pcm import Pcm, Places, Shelf, Written
from demixd.errors import AudioProcessingError, Code, disk_error
from demixd.protocol.track import Track
from demixd.spool import child_process
from demixd.spool.files import open_song
from demixd.spool.processes import state_and_time

LOOK_S = 0.1
"""How often `check` is asked."""

STALL_S = 45.0
"""A decoder that has neither read nor decoded anything new for so long does not answer. A block takes milliseconds."""

STARVED = 0.1
"""A decoder that could run has hung if it had the processor for this share of STALL_S; with less it was not given it."""

END_S = 5.0
"""How long a killed decoder is waited for; one that a disk holds ends whenever that answers."""

LONGEST = 1 << 18
"""Bytes of a message: most are short, and an error's detail is cut."""


class Order(msgspec.Struct, frozen=True):
    """Comes with three descriptors: the song, memory of which so many bytes are `allowed`, and a new file."""

    max_duration_s: float
    allowed: int


class Reached(msgspec.Struct, frozen=True, tag=True):
    """How far the decoder is: the fraction of the song, and the furthest byte of its file that it has read."""

    fraction: float
    byte: int


class Made(msgspec.Struct, frozen=True, tag=True):
    track: Track
    written: Written


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An `AudioProcessingError`."""

    code: Code
    message: str
    detail: str | None


Answer = Reached | Made | Refused


def decode(
    song: Path,
    shelf: Shelf,
    *,
    max_duration_s: float,
    check: Callable[[], None],
    progress: Callable[[float], None],
) -> tuple[Track, Pcm]:
    """Decode `song` into a buffer of `shelf`: see `pipeline.decode.decode`.

    Raises BAD_AUDIO also for a song in which the decoder crashes or gets no further.
    """
    made: list[Track] = []

    def fill(places: Places) -> tuple[Written, int]:
        with _borrowed() as child:
            order = Order(max_duration_s=max_duration_s, allowed=places.allowed)
            files = [places.memory] if places.file is None else [places.memory, places.file]
            child.order(order, source.fileno(), *files)
            answer = child.answer(check, progress)
        made[:] = [answer.track]
        return answer.written, answer.track.channels

    try:
        with open_song(song) as source:
            pcm = shelf.filled(fill)
            return made[0], pcm
    except OSError as error:
        raise disk_error(error, "decoding the song") from error


def warm() -> None:
    """Have a decoder wait for the next song. Raises OSError."""
    with _lock:
        if not _spare:
            _spare.append(_Child())


def close() -> None:
    """End the decoder that waits for the next song."""
    with _lock:
        while _spare:
            _spare.pop().end()


_lock = threading.Lock()
_spare: "list[_Child]" = []
"""The decoder that waits for the next song; two may be at work at the same time."""


@contextlib.contextmanager
def _borrowed() -> "Iterator[_Child]":
    with _lock:
        child = _spare.pop() if _spare else None
    if child is not None and not child.is_there:
        child.end()  # for its socket
        child = None
    child = child or _Child()
    try:
        yield child
    finally:
        with _lock:
            is_kept = child.is_idle and not _spare
            if is_kept:
                _spare.append(child)
        if not is_kept:
            child.end()


class _Child:
    """One decoder process. Raises OSError where it cannot be started."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            environment = {**os.environ, **child_process.ONE_THREAD}
            words = child_process.python("demixd.pipeline.decode_child")
            self._process = subprocess.Popen(words, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment)
        self.is_idle = True

    @property
    def is_there(self) -> bool:
        return self._process.poll() is None

    def order(self, order: Order, *open_files: int) -> None:
        self.is_idle = False
        socket.send_fds(self._line, [msgspec.json.encode(order)], open_files)

    def answer(self, check: Callable[[], None], progress: Callable[[float], None]) -> Made:
        """Wait for the end of the song. Raises `AudioProcessingError`, and what `check` raises."""
        awake = child_process.AwakeTime()
        reached, since, used_s = Reached(fraction=0.0, byte=0), awake.now(), self._state()[1]
        while True:
            check()
            if awake.now() > since + STALL_S:
                raise self._stalled(used_s)
            if not select.select([self._line], [], [], LOOK_S)[0]:
                continue
            data = self._line.recv(LONGEST)
            if not data:
                raise self._dead()
            match msgspec.json.decode(data, type=Answer):
                case Made() as made:
                    self.is_idle = True
                    return made
                case Refused(code=code, message=message, detail=detail):
                    self.is_idle = True
                    raise AudioProcessingError(code, message, detail)
                case Reached(fraction=fraction, byte=byte):
                    if fraction > reached.fraction or byte > reached.byte:
                        reached, since = Reached(fraction=fraction, byte=byte), awake.now()
                        used_s = self._state()[1]
                    progress(fraction)

    def _stalled(self, used_s: float) -> AudioProcessingError:
        """Whose fault it is; the process had used so many seconds of processors' time when it last got further."""
        state, used_now_s = self._state()
        if state == "D":
            return AudioProcessingError(Code.IO_ERROR, f"The disk has not answered for {STALL_S:.0f} s.")
        if state in ("T", "t") or (state == "R" and used_now_s - used_s < STARVED * STALL_S):
            message = f"The song's decoder was stopped, or the machine had no time for it, for {STALL_S:.0f} s."
            return AudioProcessingError(Code.IO_ERROR, message)
        message = f"The song cannot be decoded: its decoder has got no further for {STALL_S:.0f} s; convert it."
        return AudioProcessingError(Code.BAD_AUDIO, message)

    def _state(self) -> tuple[str, float]:
        """The process's state, and the seconds of processors' time that it has used; nothing where there is no /proc."""
        try:
            return state_and_time(self._process.pid)
        except OSError:
            return "", 0.0

    def _dead(self) -> AudioProcessingError:
        status = self._process.wait()
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        if status == -signal.SIGKILL:
            # Nobody but the kernel, for memory, or somebody by hand.
            return AudioProcessingError(Code.IO_ERROR, "The song's decoder was killed; free some memory.", how)
        return AudioProcessingError(Code.BAD_AUDIO, "The song cannot be decoded: it ends the decoder; convert it.", how)

    def end(self) -> None:
        """End the process, at once."""
        self._line.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
