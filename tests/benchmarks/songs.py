"""The sound in files: rate, channels and length, and its blocks."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import soundfile
from benchmarks.quality.sdr import Block

from demixd.audio.pcm import BLOCK
from demixd.errors import RefusedError


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """The facts in a file's header."""

    rate: int
    channels: int
    frames: int


def sound(path: Path) -> Sound:
    """Raises RefusedError for a file that libsndfile cannot read."""
    try:
        info = soundfile.info(str(path))
    except (OSError, UnicodeError, soundfile.SoundFileError) as error:
        raise _unreadable(path, error) from error
    return Sound(rate=info.samplerate, channels=info.channels, frames=info.frames)


def blocks(path: Path) -> Iterator[Block]:
    """The sound of the file from its start to its end. Raises RefusedError where it cannot be read."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            while len(block := np.asarray(file.read(BLOCK, dtype="float64", always_2d=True), np.float64)):
                yield block
    except (OSError, soundfile.SoundFileError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RefusedError:
    return RefusedError(f"{path} cannot be read ({error}): take WAV, FLAC, MP3 or Ogg")
