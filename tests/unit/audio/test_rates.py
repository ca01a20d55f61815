"""Any rate becomes any other: as many frames as there should be, at the right pitch and level, and nothing besides."""

import numpy as np
import pytest

from audio import blocks, tones
from demixd.audio.ffmpeg.rates import converted
from demixd.audio.pcm import Frames

PAIRS = [
    (44100, 48000),
    (44100, 44101),
    (44100, 44110),
    (8000, 8001),
    (8000, 191_999),
    (11025, 192_000),
    (192_000, 11025),
    (44056, 44100),
    (22254, 44100),
    (48048, 44100),
    (2_999_999, 191_999),
    (2_999_999, 8000),
]
"""Of these only the first has small terms."""


def sine(hz: float, rate: int, frames: int) -> Frames:
    return np.sin(2 * np.pi * hz * np.arange(frames)[:, None] / rate).astype(np.float32)


def at(audio: Frames, old: int, new: int, size: int = 1 << 16) -> Frames:
    return np.concatenate(list(converted(blocks(audio, size), old, new)))


@pytest.mark.parametrize(("old", "new"), PAIRS)
@pytest.mark.parametrize("part", [0.02, 0.6, 0.9])
def test_a_tone_stays_itself(old: int, new: int, part: float) -> None:
    """Each frame is the one that the tone has there: its number, place, pitch and level are right up to 0.9 of the band."""
    hz, frames = part * min(old, new) / 2, max(20_011, old // 3)
    found = at(sine(hz, old, frames), old, new)
    assert len(found) == -(-frames * new // old)
    inside = slice(len(found) // 8, -len(found) // 8)
    assert np.abs(found - sine(hz, new, len(found)))[inside].max() < 1e-4


@pytest.mark.parametrize(("old", "new"), [(192_000, 11025), (48000, 44100), (96000, 44101)])
def test_what_the_new_rate_cannot_have_is_gone(old: int, new: int) -> None:
    """A tone above the band does not come back in it."""
    found = at(sine(1.03 * new / 2, old, old), old, new)
    assert np.abs(found[len(found) // 8 : -len(found) // 8]).max() < 1e-4


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_cuts_change_nothing(old: int, new: int) -> None:
    """The same sound in other blocks is the same; also one that is shorter than the filter has all its frames."""
    audio = tones(70_001)
    whole = at(audio, old, new, len(audio))
    assert all(np.array_equal(at(audio, old, new, size), whole) for size in (1000, 1 << 16))
    for frames in (1, 2, 100):
        assert len(at(audio[:frames], old, new)) == -(-frames * new // old)
