"""Samples on disk between the steps of a song: PCM files, and blocks of them in memory.

A PCM file is headerless: little-endian float32, the channels of a frame side by side (`[T, C]`), full scale 1.0.
No step between decoding and encoding holds a whole song in memory; blocks of `BLOCK` frames pass through.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from demixd.protocol.track import pcm_bytes
from demixd.spool.files import open_own
from demixd.spool.room import Watch, require

Frames = NDArray[np.float32]
"""A block of audio, shape `[T, C]`."""

BLOCK = 1 << 16
"""Frames a block: 0.5 MB of stereo float32, 1.5 s at 44.1 kHz."""

SONG = "song.f32"
"""The PCM file of the decoded song, in the job's `tmp`."""


class PcmReader:
    """Random access to a PCM file of `[T, C]`; frames outside it read as silence."""

    def __init__(self, path: Path, channels: int) -> None:
        self.channels = channels
        self._file = open_own(path, "rb")
        self.frames = os.fstat(self._file.fileno()).st_size // (4 * channels)

    def __enter__(self) -> "PcmReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, stop: int) -> Frames:
        """Frames `start` to `stop` (either may lie outside the file), shape `[stop - start, C]`."""
        block = np.zeros((stop - start, self.channels), dtype=np.float32)
        first, last = max(start, 0), min(stop, self.frames)
        if first < last:
            self._file.seek(first * 4 * self.channels)
            data = self._file.read((last - first) * 4 * self.channels)
            block[first - start : last - start] = np.frombuffer(data, dtype="<f4").reshape(-1, self.channels)
        return block

    def blocks(self, size: int = BLOCK) -> Iterator[Frames]:
        """The whole file in order, `[<= size, C]` at a time."""
        for start in range(0, self.frames, size):
            yield self.read(start, min(start + size, self.frames))


class PcmWriter:
    """Appends blocks of `[T, C]` to a new PCM file, and closes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._room = Watch(file.fileno())
        self.frames = 0

    def __enter__(self) -> "PcmWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, block: Frames) -> None:
        """Append a block. Raises OSError."""
        self._file.write(np.ascontiguousarray(block, dtype="<f4").data)
        self._room.wrote(block.size * 4)
        self.frames += len(block)

    def require(self, frames: int, channels: int) -> None:
        """Raise NO_SPACE or TOO_LARGE where the disk has no room for so many frames. Raises OSError."""
        require(self._file.fileno(), pcm_bytes(frames, channels))

    def flush(self) -> None:
        """Hand all of it to the kernel: whoever reads the file from now on has it. Raises OSError."""
        self._file.flush()
