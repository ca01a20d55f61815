"""A track: what a song is once it has been decoded, and how audio lies on disk between the steps.

A spool is one headerless file of little-endian float32, frames by channels interleaved (`[T, C]`), full scale 1.0.
Nothing between decoding and encoding is ever held whole in memory; blocks of `BLOCK` frames pass through.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.float32]
"""A block of audio, shape `[T, C]`."""

BLOCK = 1 << 16
"""Frames a block: 0.5 MB of stereo float32, 1.5 s at 44.1 kHz."""


SONG = "song.f32"
"""The spool of the decoded song, in the job's `tmp`."""


class SpoolReader:
    """Random access to a spool of `[T, C]`; frames outside it read as silence."""

    def __init__(self, path: Path, channels: int) -> None:
        self.channels = channels
        self._file = path.open("rb")
        self.frames = path.stat().st_size // (4 * channels)

    def __enter__(self) -> "SpoolReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, stop: int) -> Frames:
        """Frames `start` to `stop` (either may lie outside the spool), shape `[stop - start, C]`."""
        block = np.zeros((stop - start, self.channels), dtype=np.float32)
        first, last = max(start, 0), min(stop, self.frames)
        if first < last:
            self._file.seek(first * 4 * self.channels)
            data = self._file.read((last - first) * 4 * self.channels)
            block[first - start : last - start] = np.frombuffer(data, dtype="<f4").reshape(-1, self.channels)
        return block

    def blocks(self, size: int = BLOCK) -> Iterator[Frames]:
        """The whole spool in order, `[<= size, C]` at a time."""
        for start in range(0, self.frames, size):
            yield self.read(start, min(start + size, self.frames))


class SpoolWriter:
    """Appends blocks of `[T, C]` to a spool."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._file = path.open("xb")  # never what a link points to
        self.frames = 0

    def __enter__(self) -> "SpoolWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, block: Frames) -> None:
        self._file.write(np.ascontiguousarray(block, dtype="<f4").data)
        self.frames += len(block)
