"""Synthetic songs as files, for a first try and for measuring: of any length, made in a second."""

from pathlib import Path

import numpy as np

from demixd.audio import sndfile
from demixd.audio.formats import Target
from demixd.audio.streams import Sink
from demixd.engine.models.demo.songs import make_song

RATE = 44100
LEVEL_DB = -18.0
"""RMS, about that of music with headroom."""
LOOP_S = 30.0
"""A song repeats after this: its content does not change the work that it makes."""


def record(path: Path, seconds: float) -> float:
    """Write a song of 16-bit stereo at 44.1 kHz, in the format of the path's extension; its exact duration in seconds."""
    loop = np.sum(list(make_song(seed=7, seconds=min(seconds, LOOP_S)).values()), axis=0).T
    loop *= 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(loop**2))
    frames = int(seconds * RATE)
    target = Target(format=path.suffix.removeprefix("."), subtype="PCM_16", rate=RATE, channels=loop.shape[1])
    with Sink(path) as sink:
        with sndfile.created(sink, target, frames) as file:
            file.write(np.resize(loop, (frames, loop.shape[1])).clip(-1, 1))
        sink.raise_error()
    return frames / RATE
