"""What is separated: the user's songs, or a synthetic one."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from stemd.bench.report import Song
from stemd.commands.submit import RefusedError
from stemd.inbox.names import Kind, kind_of_file
from stemd.models.demo.songs import make_song

RATE = 44100
LEVEL_DB = -18.0
"""RMS of the synthetic song, about that of music that has room above it."""
PIECE_S = 30.0
"""It repeats after this: what it costs does not depend on what is played, and so it is made in a second."""


def made(path: Path, seconds: float) -> tuple[Path, Song]:
    """A synthetic song of `seconds`, 16-bit stereo at 44.1 kHz, in the format of the extension."""
    piece = np.sum(list(make_song(seed=7, seconds=min(seconds, PIECE_S)).values()), axis=0).T
    piece *= 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(piece**2))
    frames = int(seconds * RATE)
    soundfile.write(path, np.resize(piece, (frames, piece.shape[1])).clip(-1, 1), RATE, subtype="PCM_16")
    return path, Song(name=path.name, seconds=frames / RATE)


def given(paths: Iterable[Path]) -> list[tuple[Path, Song]]:
    """The songs of the command line. Raises RefusedError for what one of the contenders could not read."""
    return [_given(path) for path in paths]


def _given(path: Path) -> tuple[Path, Song]:
    try:
        str(path).encode()
        info = soundfile.info(str(path))
    except (OSError, UnicodeError, soundfile.SoundFileError) as error:
        raise RefusedError(f"{path} cannot be read ({error}): take WAV, FLAC, MP3 or Ogg") from error
    if kind_of_file(path.name) is not Kind.SONG or not info.frames:
        raise RefusedError(f"{path} is no song that a daemon would take from its inbox")
    return path.absolute(), Song(name=path.name, seconds=round(info.frames / info.samplerate, 3))
