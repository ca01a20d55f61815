"""Changing stems to the rate of their files, which may be any, with FFmpeg's libswresample; `resample` is the model's.

Each frame is a sum over a windowed sinc, whose weights lie in a table of 2^shift phases and are interpolated between two of
them. With 4096 phases that errs by -140 dB; where a rate comes down, the sinc is as much longer, and as many fewer do, so
that the table stays as large. The window (Kaiser's, beta 9) is flat up to 0.91 of the lower rate's half and stops at -90 dB.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import ceil

import numpy as np

from demixd.audio.ffmpeg.filtering import Filter
from demixd.audio.ffmpeg.frames import samples_of
from demixd.audio.pcm import Frames

TAPS = 128
"""Weights of the sinc at the lower rate."""

CUTOFF = 0.955
"""The middle of the filter's slope, in parts of the lower rate's half."""


def converted(blocks: Iterable[Frames], old: int, new: int) -> Iterator[Frames]:
    """Blocks `[T, C]` at `old` Hz, together `[⌈T·new/old⌉, C]` at `new` Hz, aligned at the first frame.

    However the blocks are cut, the frames are the same. Before the first frame counts what follows it, mirrored.
    """
    if old == new:
        yield from blocks
        return
    swresample: Filter | None = None
    silence = np.zeros((0, 0), np.float32)
    taken = given = 0
    for block in blocks:
        if swresample is None:
            swresample = Filter("aresample", _options(old, new), old, block.shape[1])
            silence = np.zeros((ceil(TAPS * max(1, old / new)), block.shape[1]), np.float32)
        taken += len(block)
        for frame in swresample.feed(block):
            given += frame.samples
            yield samples_of(frame)
    left = ceil(Fraction(taken * new, old)) - given
    while swresample is not None and left > 0:  # at its own end it would mirror the sound, and lack some frames
        for frame in swresample.feed(silence):
            if left > 0:
                yield samples_of(frame)[:left]
            left -= frame.samples


def _options(old: int, new: int) -> str:
    """The shift's second bound: FFmpeg counts phases of the old rate, in lowest terms, in 30 bits."""
    slow = Fraction(old, new)
    shift = min(13 - max(1, int(slow).bit_length()), 30 - slow.numerator.bit_length())
    return f"{new}:filter_size={TAPS}:phase_shift={shift}:cutoff={CUTOFF}:filter_type=kaiser:kaiser_beta=9"
