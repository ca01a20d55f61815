"""Waveforms: each point is the lowest and highest of its samples, exactly, in the form that players read."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from demixd.audio.waveform import MOST, Waveform, document, measured


def drawn(audio: NDArray[Any], size: int = 1 << 16) -> Waveform:
    waveform = Waveform(*audio.shape)
    for start in range(0, len(audio), size):
        waveform.feed(audio[start : start + size])
    return waveform


def plain(audio: NDArray[Any], step: int, scale: float) -> list[list[int]]:
    """The points of `[T, C]`, one after the other; `scale` is what a full scale of 128 is."""
    points = (audio[start : start + step].astype(np.float64) / scale for start in range(0, len(audio), step))
    ends = ((np.floor(each.min()), np.floor(each.max())) for each in points)
    return [[int(np.clip(each, -128, 127)) for each in pair] for pair in ends]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("frames", [1, 3999, 4000, 4001, 100_003])
def test_every_point(frames: int, kind: str, channels: int) -> None:
    """Lowest and highest of every point are those of its samples, whatever their type."""
    rng = np.random.default_rng(frames)
    audio: NDArray[Any] = np.clip(rng.normal(0, 0.6, (frames, channels)), -1.5, 1.5)
    scale = 1 / 128
    if kind.startswith("int"):
        most = np.iinfo(kind).max
        audio, scale = np.clip(audio, -1, 1) * most, (most + 1) / 128
    audio = audio.astype(kind)
    waveform = drawn(audio, 5000)
    assert waveform.read().tolist() == plain(audio, waveform.step, scale)


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_blocks_do_not_matter(size: int) -> None:
    audio = np.random.default_rng(1).integers(-(2**15), 2**15, (9001, 2), dtype=np.int16)
    assert np.array_equal(drawn(audio, size).read(), drawn(audio).read())


@pytest.mark.parametrize("frames", [1, 4000, 4001, 8000, 8001, 14400 * 192_000])
def test_at_most_4000_points(frames: int) -> None:
    """A long stem has longer points."""
    step = Waveform(frames, 2).step
    assert -(-frames // step) <= MOST
    assert step == 1 or -(-frames // (step - 1)) > MOST


def test_the_document() -> None:
    """The channels are the stems, side by side in each point; the head says how long a point is."""
    low, high = np.full((8000, 2), -(2**15), np.int16), np.full((8000, 2), 2**15 - 1, np.int16)
    found = json.loads(document(measured([drawn(low), drawn(high)], 44100)))
    assert found.pop("data") == [-128, -128, 127, 127] * 4000
    assert found == {
        "version": 2,
        "channels": 2,
        "sample_rate": 44100,
        "samples_per_pixel": 2,
        "bits": 8,
        "length": 4000,
    }


def test_nothing() -> None:
    """A stem without a frame has no point."""
    assert json.loads(document(measured([Waveform(0, 2)], 44100)))["data"] == []
