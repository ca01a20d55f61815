"""How much of a stem is silence, and whether all of it is. Pure.

A separated stem is never digital silence: where nobody sings, `vocals` holds what the model could not tell apart, 40 to 60 dB
below the song. So silence is a level: of a window of 0.1 s, below -60 dB; of the whole stem, 50 dB below the song.
"""

import numpy as np

from demixd.audio.pcm import Frames

SILENCE = 10 ** (-60 / 10)
"""The mean square of a window that counts as silence: -60 dB, full scale 1."""

SILENT = 10 ** (-50 / 10)
"""The largest part of the song's energy that a `silent` stem has: -50 dB."""

WINDOWS_S = 10
"""Windows a second."""


class Levels:
    """Measures one stem, whose blocks are fed in order."""

    def __init__(self, rate: int, channels: int) -> None:
        self._window = max(1, rate // WINDOWS_S) * channels
        self._rest = np.zeros(0, dtype=np.float32)
        self._windows = self._quiet = self._samples = 0
        self._energy = 0.0

    def feed(self, block: Frames) -> None:
        """Measure the next block, `[T, C]`."""
        samples = np.concatenate((self._rest, block.reshape(-1)))
        whole = len(samples) // self._window * self._window
        self._count(samples[:whole].reshape(-1, self._window))
        self._rest = samples[whole:]

    def silence(self) -> float:
        """The share of silent windows, 0 to 1; a shorter rest at the end counts as one. Called after the last block."""
        if len(self._rest):
            self._count(self._rest.reshape(1, -1))
            self._rest = self._rest[:0]
        return round(self._quiet / self._windows, 4) if self._windows else 1.0

    def is_silent(self, song: float) -> bool:
        """Whether the stem lies 50 dB or more below a song whose mean square is `song`. Called after `silence`."""
        return self._energy <= SILENT * song * self._samples

    def _count(self, windows: Frames) -> None:
        energies = np.einsum("ij,ij->i", windows, windows)
        self._windows += len(energies)
        self._quiet += int((energies < SILENCE * windows.shape[1]).sum())
        self._energy += float(energies.sum(dtype=np.float64))
        self._samples += windows.size
