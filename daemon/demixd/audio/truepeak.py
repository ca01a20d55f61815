"""The true peak of audio: the highest level of the analogue signal, between samples as well as on them.

ITU-R BS.1770-4, Annex 2: oversample by 4 (by 2 from 96 kHz, not at all from 192 kHz), then take the largest magnitude.
The value at a fraction p of the way from one sample to the next is a sum over the 16 samples around it,

    y = sum over k of h[k] x[k],    h[k] = sinc(k - 7 - p) kaiser(k - 7 - p),    k = 0 ... 15, sum of h = 1

With Kaiser's beta = 5, h is flat within 0.05 dB up to 0.4 of the rate (17.6 kHz at 44.1). A sine that peaks halfway
between the points looked at reads low by at most -20 log10(cos(pi f / 4)) dB, f in parts of the rate: 0.17 dB at 1/4.

Most windows need not be oversampled for that result. |y| <= sum |h| * max |x|, so a window whose samples stay below the
highest peak so far, divided by sum |h| = 2.1, cannot have a higher one. Of separated stems one window in ten or twenty
remains. Those are oversampled in one product with a banded (Toeplitz) matrix:

    window of x, 32 + 15 samples  @  [32 + 15, 32 x 3]  =  the three points after each of 32 samples

Audio counts as silent before its start and after its end. Pure.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from demixd.audio.pcm import Frames

TAPS = 16
BETA = 5.0

WINDOW = 32
"""Frames that are oversampled together, or not at all."""

OVERLAP = TAPS - 1
"""Frames that a window needs beyond its own."""

ROUNDING = 1 + 1e-5
"""The largest relative error of a sum of 16 products in float32, with room to spare."""

SERIAL = 1 << 18
"""Multiplications up to which OpenBLAS stays in its caller's thread; starting its threads would cost ten times the work."""


class TruePeak:
    """Measures blocks of finite audio; `read` is called once, after the last. However it is cut, the result is the same."""

    def __init__(self, rate: int, channels: int) -> None:
        phases = interpolator(4 if rate < 96000 else 2 if rate < 192000 else 1)
        self._matrix = _banded(phases)
        self._gain = float(np.abs(phases).sum(axis=1).max(initial=0.0)) * ROUNDING
        self._stack = max(1, SERIAL // max(1, self._matrix.size * channels))
        self._rest = np.zeros((OVERLAP, channels), dtype=np.float32)
        self._highest = 0.0

    def feed(self, block: Frames) -> None:
        """Measure the next block, `[T, channels]`."""
        audio = np.concatenate([self._rest, block], dtype=np.float32)
        windows = (len(audio) - OVERLAP) // WINDOW
        self._rest = audio[windows * WINDOW :].copy()
        # A window reaches into the next one, and the last into the rest.
        cells = audio[: windows * WINDOW].reshape(windows, WINDOW * audio.shape[1])
        levels = np.append(_levels(cells), _levels(self._rest.reshape(1, -1)))
        self._highest = max(self._highest, float(levels.max()))
        bounds = np.maximum(levels[:-1], levels[1:]) * self._gain
        chosen = np.flatnonzero(bounds > self._highest)
        if chosen.size:
            self._oversample(audio, chosen)

    def read(self) -> float | None:
        """The true peak in dB relative to full scale (dBTP); None where all samples are zero."""
        self.feed(np.zeros((OVERLAP + WINDOW, self._rest.shape[1]), dtype=np.float32))
        return 20 * float(np.log10(self._highest)) if self._highest else None

    def _oversample(self, audio: Frames, chosen: NDArray[np.intp]) -> None:
        whole = np.resize(chosen, -(-chosen.size // self._stack) * self._stack)  # filled up with some of them again
        rows = sliding_window_view(audio, WINDOW + OVERLAP, axis=0)[::WINDOW][whole]
        between = rows.reshape(-1, self._stack * audio.shape[1], WINDOW + OVERLAP) @ self._matrix
        self._highest = max(self._highest, float(between.max()), -float(between.min()))


def true_peak(audio: Frames, rate: int) -> float | None:
    """The true peak of `[T, C]` in dBTP; None where everything is zero."""
    meter = TruePeak(rate, audio.shape[1])
    meter.feed(audio)
    return meter.read()


def interpolator(factor: int) -> NDArray[np.float32]:
    """The weights `h` of each point between two samples, `[factor - 1, TAPS]`."""
    fractions = np.arange(1, factor).reshape(-1, 1) / factor
    away = np.arange(TAPS) - (TAPS // 2 - 1) - fractions
    weights = np.sinc(away) * np.i0(BETA * np.sqrt(1 - (away / (TAPS // 2)) ** 2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _banded(phases: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[WINDOW + OVERLAP, WINDOW * len(phases)]`: each column has the weights of one point, in the rows of its samples."""
    matrix = np.zeros((WINDOW + OVERLAP, WINDOW, len(phases)), dtype=np.float32)
    for frame in range(WINDOW):
        matrix[frame : frame + TAPS, frame] = phases.T
    return matrix.reshape(WINDOW + OVERLAP, -1)


def _levels(rows: Frames) -> NDArray[np.float32]:
    """The largest magnitude of each row. NumPy takes three times as long for `max` along short rows."""
    return np.asarray(np.maximum.reduceat(np.abs(rows).reshape(-1), np.arange(0, rows.size, rows.shape[1])))
