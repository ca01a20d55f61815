"""The true peak: what lies between the samples is found, and nothing is missed by looking only where it can be."""

import numpy as np
import pytest
from numpy.typing import NDArray

from demixd.audio import truepeak
from demixd.audio.ffmpeg.filtering import Filter
from demixd.audio.pcm import Frames
from demixd.audio.truepeak import TruePeak, interpolator, true_peak


def sine(frequency: float, degrees: float, amplitude: float, *, frames: int = 48000) -> Frames:
    """`frequency` in parts of the rate, faded in and out so that only the sine is measured; `[T, 2]`."""
    phase = 2 * np.pi * frequency * np.arange(frames) + np.radians(degrees)
    fade = np.minimum(1, np.minimum(np.arange(frames), np.arange(frames)[::-1]) / 2000)
    return np.repeat((amplitude * fade * np.sin(phase)).astype(np.float32)[:, None], 2, axis=1)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 88200])
@pytest.mark.parametrize(
    ("frequency", "degrees", "amplitude", "expected"),
    [(1 / 4, 0, 0.5, -6), (1 / 4, 45, 0.5, -6), (1 / 6, 60, 0.5, -6), (1 / 8, 67.5, 0.5, -6), (1 / 4, 45, 1.41, 3)],
)
def test_ebu_cases(frequency: float, degrees: float, amplitude: float, expected: float, rate: int) -> None:
    """EBU Tech 3341's cases 15 to 19 read within its +0.2 and -0.4 dB."""
    found = true_peak(sine(frequency, degrees, amplitude), rate)
    assert found is not None
    assert -0.4 <= found - expected <= 0.2


@pytest.mark.parametrize(("rate", "expected"), [(96000, -6.02), (176400, -6.02), (192000, -9.03)])
def test_high_rates(rate: int, expected: float) -> None:
    """From 96 kHz twice as many points do, from 192 kHz the samples themselves."""
    assert true_peak(sine(1 / 4, 45, 0.5), rate) == pytest.approx(expected, abs=0.02)


def test_flat() -> None:
    """The interpolator changes no level by more than 0.05 dB up to 0.4 of the rate."""
    for fraction, weights in zip((0.25, 0.5, 0.75), interpolator(4), strict=True):
        away = np.arange(truepeak.TAPS) - (truepeak.TAPS // 2 - 1) - fraction
        for frequency in np.linspace(0, 0.4, 81):
            response = np.sum(weights * np.exp(-2j * np.pi * frequency * away))
            assert abs(20 * np.log10(abs(response))) < 0.05


def everything(audio: Frames) -> float:
    """The largest magnitude of all samples and of all points between them, by plain convolution."""
    channels = audio.T.astype(np.float64)
    between = [np.convolve(channel, weights[::-1]) for channel in channels for weights in interpolator(4)]
    return float(max(np.abs(channels).max(), *(np.abs(points).max() for points in between)))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 15, 31, 32, 33, 1000, 65537])
def test_nothing_is_missed(frames: int, channels: int) -> None:
    """Loud, quiet, short, steep or at an edge: the same as oversampling everything."""
    rng = np.random.default_rng(frames)
    for shape in (1.0, np.linspace(0, 1, frames)[:, None], np.linspace(1, 0, frames)[:, None] ** 8):
        for audio in (rng.uniform(-1, 1, (frames, channels)), rng.standard_normal((frames, channels)) ** 5):
            block = (audio * shape + 1e-9).astype(np.float32)
            found = true_peak(block, 44100)
            assert found == pytest.approx(20 * np.log10(everything(block)), abs=1e-4)


@pytest.mark.parametrize("size", [1, 7, 31, 33, 4411])
def test_blocks_do_not_matter(size: int) -> None:
    """However the audio is cut into blocks, the true peak is the same."""
    audio = np.random.default_rng(1).uniform(-1, 1, (9000, 2)).astype(np.float32)
    meter = TruePeak(44100, 2)
    for start in range(0, len(audio), size):
        meter.feed(audio[start : start + size])
    assert meter.read() == pytest.approx(true_peak(audio, 44100), abs=1e-4)


def test_the_end_counts() -> None:
    """A last sample at full scale rings beyond the end, and a click is as high as it is."""
    audio = np.zeros((500, 2), dtype=np.float32)
    assert true_peak(audio, 44100) is None
    audio[-1, 1] = -1
    assert true_peak(audio, 44100) == 0
    audio[-2, 1] = -1
    assert true_peak(audio, 44100) == pytest.approx(20 * np.log10(everything(audio)), abs=1e-4)


def test_most_is_left_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of audio with one loud moment only the windows around it are oversampled."""
    looked: list[int] = []

    def look(_self: TruePeak, _audio: Frames, chosen: NDArray[np.intp]) -> None:
        looked.extend(chosen)

    monkeypatch.setattr(TruePeak, "_oversample", look)
    audio = 0.3 * np.random.default_rng(1).uniform(-1, 1, (64000, 2)).astype(np.float32)
    audio[5000] = 1
    true_peak(audio, 44100)
    assert 1 <= len(looked) <= 2


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
def test_ffmpeg_agrees(rate: int) -> None:
    """FFmpeg's true peak, of three decimals, is ours within 0.2 dB, of what has nothing near half the rate."""
    rng = np.random.default_rng(rate)
    for audio in (rng.uniform(-1, 1, (rate, 2)), sine(1 / 48, 0, 0.9, frames=rate)):
        low = np.apply_along_axis(np.convolve, 0, audio, np.hanning(9) / 4, "same").astype(np.float32)
        ebur128 = Filter("ebur128", "metadata=1:peak=true:framelog=quiet", rate, 2)
        highest = max(float(frame.metadata["lavfi.r128.true_peak"]) for frame in ebur128.feed(low))
        assert true_peak(low, rate) == pytest.approx(20 * np.log10(highest), abs=0.2)
