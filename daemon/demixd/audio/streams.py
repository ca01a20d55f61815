"""What the two readers of songs (sndfile.py, ffmpeg/reader.py) have in common: what they read from, and how they end."""

from collections.abc import Iterator
from io import SEEK_CUR, SEEK_END, SEEK_SET
from typing import BinaryIO, Protocol

import msgspec

from demixd.audio.pcm import Frames


class NotReadableError(Exception):
    """The library can do nothing with the file; its words are the text."""


class DamagedError(Exception):
    """Decoding ended in the middle, with the library's words."""


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished file turns out to be."""

    subtype: str
    rate: int
    channels: int
    frames: int


class Reader(Protocol):
    """An open song."""

    rate: int
    channels: int
    codec: str
    """As `Track` has it."""
    subtype: str
    """libsndfile's name of the sample format, or of a lossy codec."""
    layout: tuple[str, ...] | None
    """The speaker positions of the channels; None if nobody knows."""
    declared: int | None
    """The frames that the file speaks of, where it does."""
    slack: int
    """Frames by which it may come out short of that."""

    def blocks(self) -> Iterator[Frames]:
        """All of it in order, `[T, C]` at a time. Raises `DamagedError`."""

    @property
    def bitrate(self) -> int | None:
        """Mean kbit/s of what was read of a lossy song, where the reader knows."""


class View:
    """A file whose first `start` bytes are replaced by `head`; what the libraries read from.

    They lose exceptions raised under them, so an OSError is kept in `error` and looks like the file's end.
    """

    def __init__(self, file: BinaryIO, head: bytes, start: int) -> None:
        self._file, self._head = file, head
        self._shift = start - len(head)
        self.size = file.seek(0, SEEK_END) - self._shift
        self.furthest = 0
        self.error: OSError | None = None
        self._at = 0

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = max(0, offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        if self._at >= self.size:
            return b""  # a header can point to where no file can end, which the kernel calls an invalid argument
        data = self._head[self._at : self._at + count]
        try:
            if len(data) < count:
                self._file.seek(self._at + len(data) + self._shift)
                data += self._file.read(count - len(data))
        except OSError as error:
            self.error = error
        self._at += len(data)
        self.furthest = max(self.furthest, self._at)
        return data
