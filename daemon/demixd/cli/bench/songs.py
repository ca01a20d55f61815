"""What is separated: the user's songs, or a synthetic one; and what lies in files of audio."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import soundfile

from demixd.audio.pcm import BLOCK
from demixd.cli.bench.report import Song
from demixd.cli.bench.sdr import Block
from demixd.cli.console import RefusedError
from demixd.engine.models.demo.songs import make_song
from demixd.protocol.inbox_names import Kind, kind_of_file

Piece = tuple[Path, Song]
"""A song's file, and what is told of it."""

RATE = 44100
LEVEL_DB = -18.0
"""RMS of the synthetic song, about that of music that has room above it."""
PIECE_S = 30.0
"""It repeats after this: what it costs does not depend on what is played, and so it is made in a second."""


def made(path: Path, seconds: float) -> Piece:
    """A synthetic song of `seconds`, 16-bit stereo at 44.1 kHz, in the format of the extension."""
    piece = np.sum(list(make_song(seed=7, seconds=min(seconds, PIECE_S)).values()), axis=0).T
    piece *= 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(piece**2))
    frames = int(seconds * RATE)
    soundfile.write(path, np.resize(piece, (frames, piece.shape[1])).clip(-1, 1), RATE, subtype="PCM_16")
    return path, Song(name=path.name, seconds=frames / RATE)


def given(paths: Iterable[Path]) -> list[Piece]:
    """The songs of the command line. Raises RefusedError for what one of the contenders could not read."""
    return [_given(path) for path in paths]


def _given(path: Path) -> Piece:
    found = sound(path)
    if kind_of_file(path.name) is not Kind.SONG or not found.frames:
        raise RefusedError(f"{path} is no song that a daemon would take from its inbox")
    return path.absolute(), Song(name=path.name, seconds=round(found.frames / found.rate, 3))


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a file says."""

    rate: int
    channels: int
    frames: int


def sound(path: Path) -> Sound:
    """Raises RefusedError for what one of the contenders could not read."""
    try:
        str(path).encode()
        info = soundfile.info(str(path))
    except (OSError, UnicodeError, soundfile.SoundFileError) as error:
        raise _unreadable(path, error) from error
    return Sound(rate=info.samplerate, channels=info.channels, frames=info.frames)


def blocks(path: Path) -> Iterator[Block]:
    """What is in the file, from its start to its end. Raises RefusedError where that cannot be read."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            while len(block := np.asarray(file.read(BLOCK, dtype="float64", always_2d=True), np.float64)):
                yield block
    except (OSError, soundfile.SoundFileError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RefusedError:
    return RefusedError(f"{path} cannot be read ({error}): take WAV, FLAC, MP3 or Ogg")
