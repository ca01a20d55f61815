"""Mixing more than two channels down to two, by ITU-R BS.775 (table 2, two channels out).

    left  = FL + 0.7071 FC + 0.7071 BL + 0.7071 SL + 0.5 BC         right likewise; LFE is left out

A centre goes to both sides at -3 dB each, a surround to its own side at -3 dB; a back centre is first split between
the two surrounds at -3 dB, so it arrives at -6 dB. FLC and FRC (between centre and front) count as fronts; SL and SR
are the sides, BL and BR the backs. Nothing is normalised: a sum may pass full scale in float32, and the stems' joint
gain brings it down.

The names are the speaker positions of WAVEFORMATEXTENSIBLE, in the order of its mask. A file without a mask has the
usual layout of its number of channels:

    channels  WAV, AIFF
    3         FL FR FC
    4         FL FR BL BR
    5         FL FR FC BL BR
    6         FL FR FC LFE BL BR
    7         FL FR FC LFE BC SL SR
    8         FL FR FC LFE BL BR SL SR
"""

import math

import numpy as np

from demixd.audio.pcm import Frames

POSITIONS = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
"""Bit 0 to bit 10 of the mask; BS.775 has no height channels, which are the bits above."""

WAVE = {
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}

HALF = math.sqrt(0.5)

WEIGHTS = {
    "FL": (1.0, 0.0),
    "FLC": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FRC": (0.0, 1.0),
    "FC": (HALF, HALF),
    "LFE": (0.0, 0.0),
    "BL": (HALF, 0.0),
    "SL": (HALF, 0.0),
    "BR": (0.0, HALF),
    "SR": (0.0, HALF),
    "BC": (0.5, 0.5),
}
"""Position -> its share of left and of right."""


def masked(mask: int, channels: int) -> tuple[str, ...] | None:
    """The layout of a WAV's channel mask; None if it has not `channels` positions, or heights among them."""
    names = tuple(name for bit, name in enumerate(POSITIONS) if mask >> bit & 1)
    return names if len(names) == channels and not mask >> len(POSITIONS) else None


def matrix(layout: tuple[str, ...] | None, channels: int) -> Frames:
    """The matrix `[channels, 2]` by which a block `[T, channels]` is multiplied.

    Where the layout is unknown (None) both sides get the mean of all channels: none is lost, none is on a wrong side.
    """
    if layout is None:
        return np.full((channels, 2), 1 / channels, dtype=np.float32)
    return np.array([WEIGHTS[name] for name in layout], dtype=np.float32)
