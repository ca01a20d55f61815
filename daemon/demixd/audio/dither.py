"""Dither with a triangular probability density (TPDF), where samples lose bits. Pure.

Rounding leaves an error that depends on the signal: at the end of a fade it is heard as distortion. The difference of two
independent random numbers, each even in [0, 1), has a triangular density in (-1, 1). Added before rounding, it makes the
mean and the variance of the error the same for every signal (Lipshitz, Wannamaker, Vanderkooy, "Quantization and Dither",
1992). A sample that is a whole number already, silence above all, gets no noise.
"""

from typing import Any

import numpy as np
from numpy.random import SFC64  # now, for numpy would load it with the first song
from numpy.typing import NDArray


class Dither:
    """Noise for one stem of one or two channels; the same `seed` gives the same, however the stem is cut into blocks."""

    def __init__(self, seed: int) -> None:
        self._bits = SFC64(seed)

    def rounded(self, steps: NDArray[Any]) -> NDArray[Any]:
        """`steps`, `[T, C]` in units of the last bit, with noise and rounded to whole numbers; in their own precision."""
        whole = np.rint(steps)
        noise = self._noise(steps)
        noise += steps
        np.rint(noise, out=noise)
        np.copyto(noise, steps, where=whole == steps)
        return noise

    def _noise(self, like: NDArray[Any]) -> NDArray[Any]:
        """Noise `[T, C]`: of 64 random bits a frame, each channel has 32, and the difference of their halves."""
        frames, channels = like.shape
        numbers: NDArray[np.uint64] = np.asarray(self._bits.random_raw(frames))
        words = numbers.view("<u4").reshape(frames, 2)[:, :channels]
        differences = (words >> 16).view("<i4")
        differences -= (words & 0xFFFF).view("<i4")
        noise: NDArray[Any] = differences.astype(like.dtype)
        noise *= 1 / 65536
        return noise
