"""Loudness: EBU's own cases, FFmpeg's and torchaudio's opinions, and that nothing but the audio matters."""

import gc
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio

from demixd.audio.ffmpeg.filtering import Filter
from demixd.audio.loudness import Loudness, loudness
from demixd.audio.pcm import BLOCK, Frames

RATES = [8000, 11025, 22050, 44100, 48000, 96000, 192000]

TASKS = Path("/proc/self/task")
"""This process' threads, one folder each."""


def measured(audio: Frames, rate: int, size: int = BLOCK) -> float | None:
    meter = Loudness(rate, audio.shape[1])
    for start in range(0, len(audio), size):
        meter.feed(audio[start : start + size])
    return meter.read()


def told(lufs: float | None) -> float | None:
    """As manifests tell it."""
    return None if lufs is None else round(lufs, 2)


def ffmpeg_says(audio: Frames, rate: int) -> float:
    """FFmpeg's `ebur128`, which cuts to steps of 0.01."""
    ebur128 = Filter("ebur128", "metadata=1:framelog=quiet", rate, audio.shape[1])
    return float(ebur128.feed(audio)[-1].metadata["lavfi.r128.I"])


def tone(*parts: tuple[float, float], rate: int = 48000, channels: int = 2) -> Frames:
    """A 1 kHz sine in parts of (dBFS, seconds)."""
    levels = np.concatenate([np.full(round(seconds * rate), 10 ** (level / 20)) for level, seconds in parts])
    wave = levels * np.sin(2 * np.pi * 1000 / rate * np.arange(len(levels)))
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def bursts(rate: int, channels: int, *, seconds: float = 8) -> Frames:
    """Noise with a slope, in beats and with a quiet half: something like music."""
    rng = np.random.default_rng(rate + channels)
    frames = round(seconds * rate)
    high = rng.standard_normal((frames, channels))
    low = np.repeat(rng.standard_normal((frames // 8 + 1, channels)), 8, axis=0)[:frames]
    time = np.arange(frames)[:, None] / rate
    envelope = np.exp(-6 * (time % 0.5)) * np.where(time < seconds / 2, 1, 0.05)
    return (envelope * (0.02 * high + 0.1 * low)).astype(np.float32)


# Loudness


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(-23, 20)], -23),
        ([(-33, 20)], -33),
        ([(-36, 10), (-23, 60), (-36, 10)], -23),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23),
    ],
)
def test_ebu_cases(parts: list[tuple[float, float]], expected: float) -> None:
    """EBU Tech 3341's stereo cases, 1 to 5, read within its 0.1 LU."""
    assert measured(tone(*parts), 48000) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [rate for rate in RATES if rate >= 22050])
def test_torchaudio_agrees(rate: int, channels: int) -> None:
    """torchaudio says the same within 0.1 LU in mono and stereo, of noise and sines; below 22 kHz its shelf is off."""
    for audio in (bursts(rate, channels), tone((-20, 4), rate=rate, channels=channels)):
        theirs = torchaudio.functional.loudness(torch.from_numpy(np.ascontiguousarray(audio.T)), rate)
        assert measured(audio, rate) == pytest.approx(float(theirs), abs=0.1)


@pytest.mark.parametrize("rate", RATES)
def test_every_rate(rate: int) -> None:
    """EBU's reference tone reads -23 LUFS at every rate."""
    assert measured(tone((-23, 5), rate=rate), rate) == pytest.approx(-23, abs=0.1)


def test_both_sides_are_louder_than_one() -> None:
    """The same on both sides is 3 LU louder than in mono, or on one side."""
    both, one = tone((-20, 4)), tone((-20, 4), channels=1)
    left = both * np.array([1, 0], dtype=np.float32)
    assert measured(both, 48000) == pytest.approx((measured(one, 48000) or 0) + 3.01, abs=0.02)
    assert measured(left, 48000) == measured(one, 48000)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", RATES)
def test_ffmpeg_agrees(rate: int, channels: int) -> None:
    """FFmpeg says the same within its own steps, of what is loud and quiet.

    Where a tenth of a second has no whole number of frames its windows are not as far apart as they are long.
    """
    audio = bursts(rate, channels)
    assert measured(audio, rate) == pytest.approx(ffmpeg_says(audio, rate), abs=0.07 if rate % 10 else 0.015)


def test_the_standard_agrees() -> None:
    """BS.1770's own coefficients at 48 kHz, frame by frame in float64, give the same within a ten thousandth of a dB."""
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]
    audio = bursts(48000, 2)
    weighted = torch.from_numpy(audio.T.astype(np.float64))
    for numerator, denominator in (shelf, high_pass):
        weights = (torch.tensor(each, dtype=torch.float64) for each in (denominator, numerator))
        weighted = torchaudio.functional.lfilter(weighted, *weights, clamp=False)
    blocks = weighted.unfold(1, 19200, 4800).square().mean(2).sum(0)
    blocks = blocks[blocks > 10 ** ((0.691 - 70) / 10)]
    blocks = blocks[blocks > blocks.mean() / 10]
    assert measured(audio, 48000) == pytest.approx(-0.691 + 10 * float(blocks.mean().log10()), abs=1e-4)


def test_offset() -> None:
    """A constant far above the sound, which nobody hears, costs the sound no precision."""
    audio = np.float32(0.01) * bursts(44100, 2) + np.float32(0.9)
    assert measured(audio, 44100) == pytest.approx(ffmpeg_says(audio, 44100), abs=0.015)


def test_far_above_full_scale() -> None:
    """What is a million times too loud reads as that much louder."""
    audio = bursts(44100, 2)
    assert measured(audio * np.float32(1e6), 44100) == pytest.approx((measured(audio, 44100) or 0) + 120, abs=0.2)


@pytest.mark.parametrize(("seconds", "there"), [(0, False), (0.399, False), (0.4, True), (0.45, True)])
def test_too_short(seconds: float, there: bool) -> None:
    """Less than one gating block has no loudness."""
    assert (measured(tone((-20, seconds)), 48000) is not None) == there


def test_silence() -> None:
    """Neither digital silence has one, nor what stays below the absolute gate, nor nothing at all."""
    assert measured(np.zeros((48000, 2), np.float32), 48000) is None
    assert measured(tone((-90, 2)), 48000) is None
    assert Loudness(44100, 1).read() is None


# Nothing but the audio matters


@pytest.mark.parametrize("size", [1000, 4410, 7919, 44100, 1 << 20])
def test_blocks_do_not_matter(size: int) -> None:
    """However the audio is cut into blocks, loudness is the same; blocks of one frame and of none are blocks."""
    audio = bursts(44100, 2)
    whole = told(loudness(audio, 44100))
    assert told(measured(audio, 44100, size)) == whole
    meter = Loudness(44100, 2)
    for part in (audio[:0], audio[:1], audio[1:2], audio[2:2], audio[2:]):
        meter.feed(part)
    assert told(meter.read()) == whole


def test_other_memory() -> None:
    """Blocks that are no contiguous float32 are measured all the same, and left as they are."""
    audio = bursts(44100, 2)
    whole = measured(audio, 44100)
    assert measured(np.asfortranarray(audio), 44100) == whole
    assert measured(np.repeat(audio, 2, axis=0)[::2], 44100) == whole
    assert np.array_equal(audio, bursts(44100, 2))


def test_threads() -> None:
    """Meters in several threads at once read as they do alone."""
    songs = [bursts(rate, channels) for rate in (22050, 44100) for channels in (1, 2)] * 2
    rates = [22050, 22050, 44100, 44100] * 2
    alone = [told(measured(song, rate)) for song, rate in zip(songs, rates, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda song, rate: told(measured(song, rate, 5000)), songs, rates)) == alone


def test_nothing_is_left() -> None:
    """Meters start no threads, and give their memory back whether they were read or not."""
    audio = bursts(44100, 2, seconds=1)

    def use(times: int) -> None:
        for turn in range(times):
            meter = Loudness(44100, 2)
            meter.feed(audio)
            if turn % 2:
                meter.read()

    use(20)
    gc.collect()
    threads, before = len(list(TASKS.iterdir())), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use(100)
    assert len(list(TASKS.iterdir())) == threads
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB; each has 1.6 MB
