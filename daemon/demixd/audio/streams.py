"""Between a file and the libraries: libsndfile (sndfile.py) and FFmpeg (ffmpeg/) read from a `View` and write to a `Sink`.

soundfile and av lose exceptions that are raised under their libraries. So a `View` and a `Sink` keep the first OSError, and
their users ask for it.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import SEEK_CUR, SEEK_END, SEEK_SET
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from demixd.audio.pcm import Frames
from demixd.spool.files import open_own
from demixd.spool.room import Watch


class NotReadableError(Exception):
    """The library cannot open the file; its reason is the text."""


class SoundlessError(NotReadableError):
    """There is nothing to hear in the file: it is a film without sound, or a picture."""


class FramelessError(NotReadableError):
    """The library has opened the file, and can decode none of the sound that is announced."""


class DamagedError(Exception):
    """Decoding ended before the end of the song; the library's reason is the text."""


class NotWritableError(Exception):
    """The library refuses to write the file; its reason is the text."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a finished file, as read back from it. `subtype` as `Track` has it."""

    subtype: str
    rate: int
    channels: int
    frames: int


class Reader(Protocol):
    """An open song, as both libraries offer it."""

    rate: int
    channels: int
    codec: str
    """As `Track` has it."""
    subtype: str
    """libsndfile's name of the sample format, or of a lossy codec."""
    layout: tuple[str, ...] | None
    """The speaker positions of the channels; None if nobody knows."""
    declared: int | None
    """Frames by the file's header; None where it does not say."""
    slack: int
    """Frames that may be missing from `declared` in a song that is whole."""

    def blocks(self) -> Iterator[Frames]:
        """The whole song in order, `[T, C]` float32 at a time. Raises `DamagedError`."""

    @property
    def bitrate(self) -> int | None:
        """Mean kbit/s of what was read of a lossy song, where the reader knows."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what was found while the song was decoded."""


class View:
    """A song in its file, from the byte `start` up to `stop`, for a library to read from. Its first bytes can be replaced.

    An OSError is kept in `error`, and to the library it looks like the end of the file. `furthest` is the last byte read.
    """

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        self._file, self._shift, self._head = file, start, b""
        self.size = max(0, file.seek(0, SEEK_END) - start)
        self.furthest = 0
        self.error: OSError | None = None
        self._at = 0
        self._left, self._until = sys.maxsize, math.inf
        self.exhausted = False
        """Whether the library has been refused what it wanted to read, while it was `limited`."""

    def show(self, head: bytes, start: int, stop: int | None) -> None:
        """From now on show the bytes before `stop`, and `head` instead of the first `start`. The position is the first byte."""
        self._head, self._at = head, 0
        self._shift += start - len(head)
        self.size = max(0, (self.size if stop is None else stop) - start + len(head))

    @contextmanager
    def limited(self, count: int, seconds: float) -> Iterator[None]:
        """Within, at most `count` bytes are read, and for at most `seconds` of this thread's time on a processor, since a pause
        and a slow disk are not the song's fault; then the file is as if it ended there."""
        self._left, self._until = count, time.thread_time() + seconds
        try:
            yield
        finally:
            self._left, self._until = sys.maxsize, math.inf

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = max(0, offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        if self._at >= self.size:
            return b""  # a header can point beyond any file: seek(2) fails with EINVAL there
        if self._left <= 0 or time.thread_time() > self._until:
            self.exhausted = True
            return b""
        count = min(count, self.size - self._at)
        data = self._head[self._at : self._at + count]
        try:
            if len(data) < count:
                self._file.seek(self._at + len(data) + self._shift)
                data += self._file.read(count - len(data))
        except OSError as error:
            self.error = error
        self._at, self._left = self._at + len(data), self._left - len(data)
        self.furthest = max(self.furthest, self._at)
        return data


class Sink:
    """A new file, for a library to write to.

    libsndfile goes on after a short write. So all is dropped that comes after the first OSError, which `raise_error` raises.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_own(path, "x+b", buffering=0)
        self._room = Watch(self._file.fileno())
        self._error: OSError | None = None

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        try:
            while left and self._error is None:
                count = self._file.write(left)
                left = left[count:]
                self._room.wrote(count)
        except OSError as error:
            self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        return self._kept(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._kept(self._file.tell)

    def _kept(self, work: Callable[[], int]) -> int:
        try:
            return work()
        except OSError as error:
            self._error = self._error or error
            return -1

    def raise_error(self) -> None:
        if self._error:
            raise self._error
