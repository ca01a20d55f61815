"""Synthetic songs whose stems are known, as files."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from demixd.engine.models.demo.songs import make_song

RATE = 44100


def write(folder: Path, name: str, seconds: float) -> Path:
    """`folder`/NAME and, for SONG = NAME without its extension, its references SONG.vocals.flac and SONG.instrumental.flac."""
    parts = {stem: audio.T for stem, audio in make_song(seed=3, seconds=seconds).items()}
    vocals: NDArray[np.float32] = parts.pop("vocals")
    instrumental = np.sum(list(parts.values()), axis=0)
    song = folder / name
    for path, audio in (
        (song, vocals + instrumental),
        (folder / f"{song.stem}.vocals.flac", vocals),
        (folder / f"{song.stem}.instrumental.flac", instrumental),
    ):
        soundfile.write(path, audio, RATE, subtype="PCM_16")
    return song
