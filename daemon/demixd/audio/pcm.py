"""A track: what a song is once it has been decoded, and how audio lies on disk between the steps.

A spool is one headerless file of little-endian float32, frames by channels interleaved (`[T, C]`), full scale 1.0.
Nothing between decoding and encoding is ever held whole in memory; blocks of `BLOCK` frames pass through.
"""

import errno
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from demixd.errors import AudioProcessingError, Code

Frames = NDArray[np.float32]
"""A block of audio, shape `[T, C]`."""

BLOCK = 1 << 16
"""Frames a block: 0.5 MB of stereo float32, 1.5 s at 44.1 kHz."""


RATES = range(1_000, 3_000_000)
"""Hz that a song can have; the rest is a damaged header. The highest is DSD512's, eight of its bits to a frame."""

SONG = "song.f32"
"""The spool of the decoded song, in the job's `tmp`."""


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a decoded song. `channels` counts the spool's (1 or 2), `song_channels` the file's own."""

    format: str
    """Container in lower case, as the sidecar shows it: `wav`, `flac`, `mp3`, `ogg`, `mp4`, `matroska` ..."""
    codec: str = ""
    """What the audio in it is coded with: `pcm`, `flac`, `mp3`, `vorbis`, `opus`, `aac`, `alac`, else FFmpeg's name."""
    subtype: str
    """libsndfile's name of the sample format: `PCM_16`, `PCM_24`, `FLOAT`, `VORBIS`, `OPUS`, `MPEG_LAYER_III` ..."""
    rate: int
    channels: int
    song_channels: int
    frames: int
    bitrate: int | None
    """Mean kbit/s of a lossy song, else null."""
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate


def disk_error(error: OSError, doing: str) -> AudioProcessingError:
    """Ours for the operating system's: a full disk (or quota) is something to wait for, the rest is not."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AudioProcessingError(Code.NO_SPACE, f"There is no space left for {doing}; free some.", str(error))
    return AudioProcessingError(Code.IO_ERROR, f"The disk failed at {doing}: {error.strerror or error}.", str(error))


def spool_bytes(frames: int, channels: int) -> int:
    return frames * channels * 4


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
