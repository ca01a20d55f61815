"""Waveforms to be drawn: the lowest and the highest sample of each point of a stem's time line, in 8 bits. Pure.

    samples --floor(128 x), 8 bits--> lowest and highest of every `step` frames, of both channels --> JSON

The document is that of `protocol.peaks`. What is measured are the samples as they are written: of a lossless file exactly
those that it holds, where integers lose all but their upper 8 bits.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from demixd.protocol.peaks import BITS, Peaks

MOST = 4000
"""Points of a stem."""


class Waveform:
    """That of one stem of `frames` frames, whose blocks are fed in order."""

    def __init__(self, frames: int, channels: int) -> None:
        self.step = max(1, -(-frames // MOST))
        """Frames of a point."""
        self._samples = self.step * channels
        self._rest: NDArray[Any] = np.zeros(0)
        self._ends: list[NDArray[np.int8]] = []
        """Of some points each, `[N, 2]`: lowest and highest."""

    def feed(self, block: NDArray[Any]) -> None:
        """Take in the next block, `[T, C]`: int16 and int32 fill their type, floats have a full scale of 1."""
        flat = block.reshape(-1)
        samples = np.concatenate((self._rest, flat)) if len(self._rest) else flat
        whole = len(samples) // self._samples * self._samples
        self._add(samples[:whole].reshape(-1, self._samples))
        self._rest = samples[whole:].copy()

    def read(self) -> NDArray[np.int8]:
        """All points, `[N, 2]`: lowest and highest; a shorter rest at the end is one, too. Called once, after the last block."""
        if len(self._rest):
            self._add(self._rest.reshape(1, -1))
        return np.concatenate(self._ends) if self._ends else np.zeros((0, 2), np.int8)

    def _add(self, points: NDArray[Any]) -> None:
        if len(points):
            self._ends.append(np.stack([_in_8_bits(points.min(axis=1)), _in_8_bits(points.max(axis=1))], axis=1))


def measured(waveforms: Sequence[Waveform], rate: int) -> Peaks:
    """The waveforms of stems of one length, one a channel, in this order."""
    points = np.stack([each.read() for each in waveforms], axis=1)
    return Peaks(
        channels=len(waveforms),
        sample_rate=rate,
        samples_per_pixel=waveforms[0].step,
        length=len(points),
        data=points.reshape(-1).tolist(),
    )


def document(peaks: Peaks) -> bytes:
    """peaks.json."""
    return msgspec.json.encode(peaks) + b"\n"


def _in_8_bits(values: NDArray[Any]) -> NDArray[np.int8]:
    if values.dtype.kind == "i":
        return np.asarray(values >> (values.itemsize * 8 - BITS), dtype=np.int8)
    return np.asarray(np.clip(np.floor(values * 128.0), -128, 127), dtype=np.int8)
