"""How much of a stem is silence, and whether it is there at all. Pure.

A separated stem is never digital silence: where nobody sings, `vocals` holds what the model could not tell apart, 40 to 60 dB
below the song. So silence is a level here: that of a window of 0.1 s, and, for the whole stem, its distance from the song.
"""

import numpy as np
from numpy.typing import NDArray

from stemd.track import Frames

SILENCE = 10 ** (-60 / 10)
"""The mean square of a window that counts as silence: -60 dB, full scale 1."""

SILENT = 10 ** (-50 / 10)
"""The part of the song's energy that a stem must have in order not to be `silent`."""

WINDOWS_S = 10
"""Windows a second."""


class Levels:
    """Takes a stem's blocks in order."""

    def __init__(self, rate: int) -> None:
        self._window = max(1, rate // WINDOWS_S)
        self._rest: NDArray[np.float64] = np.zeros(0)
        self._windows = self._quiet = self._frames = 0
        self.energy = 0.0
        """The sum of squares so far, over all channels, divided by their number."""

    def feed(self, block: Frames) -> None:
        """A block `[T, C]`."""
        squares = np.mean(np.square(block, dtype=np.float64), axis=1)
        self.energy += float(squares.sum())
        self._frames += len(squares)
        pending = np.concatenate((self._rest, squares))
        whole = len(pending) // self._window * self._window
        means = pending[:whole].reshape(-1, self._window).mean(axis=1)
        self._count(means)
        self._rest = pending[whole:]

    def silence(self) -> float:
        """The share of silent windows, 0 to 1; what is left at the end counts as one."""
        if len(self._rest):
            self._count(np.array([self._rest.mean()]))
            self._rest = self._rest[:0]
        return round(self._quiet / self._windows, 4) if self._windows else 1.0

    def is_silent(self, song: float) -> bool:
        """Whether the stem lies 50 dB or more below a song whose frames have a mean square of `song`."""
        return not self._frames or self.energy / self._frames <= SILENT * song

    def _count(self, means: NDArray[np.float64]) -> None:
        self._windows += len(means)
        self._quiet += int((means < SILENCE).sum())
