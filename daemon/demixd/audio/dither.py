"""Dither with a triangular probability density (TPDF), where samples lose bits. Pure.

Rounding leaves an error that depends on the signal: at the end of a fade it is heard as distortion. The difference of two
independent random numbers, each even in [0, 1), has a triangular density in (-1, 1). Added before rounding, it makes the
mean and the variance of the error the same for every signal (Lipshitz, Wannamaker, Vanderkooy, "Quantization and Dither",
1992). A sample that is a whole number already, silence above all, gets no noise.
"""

import numpy as np
from numpy.typing import NDArray


class Dither:
    """Noise for one stem of one or two channels; the same `seed` gives the same, however the stem is cut into blocks."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.SFC64(seed)

    def rounded(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """`steps`, `[T, C]` in units of the last bit, with noise and rounded to whole numbers."""
        whole = np.rint(steps)
        noise = self._noise(steps.shape)
        noise *= whole != steps
        noise += steps
        return np.rint(noise, out=noise)

    def _noise(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Noise `shape` `[T, C]`: of 64 random bits a frame, each channel has 32, and the difference of their halves."""
        frames, channels = shape
        numbers = self._bits.random_raw(frames).view(np.uint32).reshape(frames, 2)[:, :channels]
        return ((numbers >> 16).astype(np.int32) - (numbers & 0xFFFF).astype(np.int32)) / 65536
