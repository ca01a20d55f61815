"""The signal-to-distortion ratio: how near what was separated is to what was mixed. Pure.

    SDR = 10 log10( sum of reference^2 / sum of (reference - estimate)^2 )        in dB

over the whole song and all of its channels: the definition of the demo model's card, and of the Music Demixing Challenge
2021 (Mitsufuji et al., section 3.2). Silence gets 0 dB, an error of a tenth of the level 20 dB.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float64]
"""A piece of audio, shape `[T, C]`."""


def sdr(reference: Iterable[Block], estimate: Iterable[Block]) -> float | None:
    """In dB, from the blocks of both, which are cut at the same frames. A sound in one channel is the same on both sides.

    None where there is no such number: the reference is silent, or the estimate is the reference itself.
    Raises ValueError, saying why, where they cannot be compared.
    """
    power = error = 0.0
    for wanted, found in _pairs(reference, estimate):
        power += float(np.vdot(wanted, wanted))
        apart = wanted - found
        error += float(np.vdot(apart, apart))
    if not math.isfinite(power + error):
        raise ValueError("a sample is not a number, or infinite")
    return 10 * math.log10(power / error) if power and error else None


def _pairs(reference: Iterable[Block], estimate: Iterable[Block]) -> Iterator[tuple[Block, Block]]:
    for wanted, found in zip_longest(reference, estimate):
        if wanted is None or found is None or len(wanted) != len(found):
            raise ValueError("one is longer than the other")
        channels = {wanted.shape[1], found.shape[1]}
        if len(channels) > 1 and 1 not in channels:
            raise ValueError(f"one has {min(channels)} channels, the other {max(channels)}")
        one, other = np.broadcast_arrays(wanted, found)
        yield one, other
