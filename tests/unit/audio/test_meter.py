"""Loudness: EBU's own cases, torchaudio's opinion, FFmpeg's true peak, and that nothing but the audio matters."""

import gc
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av.filter
import numpy as np
import pytest
import torch
import torchaudio

from demixd.audio.ffmpeg.filtering import LAYOUTS
from demixd.audio.ffmpeg.meter import Loudness, Meter
from demixd.audio.pcm import BLOCK, Frames

RATES = [8000, 11025, 22050, 44100, 48000, 96000, 192000]

TASKS = Path("/proc/self/task")
"""This process' threads, one folder each."""


def measured(audio: Frames, rate: int, size: int = BLOCK) -> Loudness:
    meter = Meter(rate, audio.shape[1])
    for start in range(0, len(audio), size):
        meter.feed(audio[start : start + size])
    return meter.read()


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
    assert measured(tone(*parts), 48000).lufs == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [rate for rate in RATES if rate >= 22050])
def test_torchaudio_agrees(rate: int, channels: int) -> None:
    """torchaudio says the same within 0.1 LU in mono and stereo, of noise and sines; below 22 kHz its shelf is off."""
    for audio in (bursts(rate, channels), tone((-20, 4), rate=rate, channels=channels)):
        theirs = torchaudio.functional.loudness(torch.from_numpy(np.ascontiguousarray(audio.T)), rate)
        assert measured(audio, rate).lufs == pytest.approx(float(theirs), abs=0.1)


@pytest.mark.parametrize("rate", RATES)
def test_every_rate(rate: int) -> None:
    """EBU's reference tone reads -23 LUFS at every rate."""
    assert measured(tone((-23, 5), rate=rate), rate).lufs == pytest.approx(-23, abs=0.1)


def test_both_sides_are_louder_than_one() -> None:
    """The same on both sides is 3 LU louder than in mono, or on one side."""
    both, one = tone((-20, 4)), tone((-20, 4), channels=1)
    left = both * np.array([1, 0], dtype=np.float32)
    assert measured(both, 48000).lufs == pytest.approx((measured(one, 48000).lufs or 0) + 3.01, abs=0.02)
    assert measured(left, 48000).lufs == measured(one, 48000).lufs


@pytest.mark.parametrize(("seconds", "there"), [(0, False), (0.399, False), (0.4, True), (0.45, True)])
def test_too_short(seconds: float, there: bool) -> None:
    """Less than one gating block has no loudness, and still a peak."""
    found = measured(tone((-20, seconds)), 48000)
    assert (found.lufs is not None) == there
    assert (found.true_peak_dbtp is not None) == (seconds > 0)


def test_silence() -> None:
    """Digital silence has neither; what stays below the absolute gate has a peak."""
    assert measured(np.zeros((48000, 2), np.float32), 48000) == Loudness(lufs=None, true_peak_dbtp=None)
    assert measured(tone((-90, 2)), 48000) == Loudness(lufs=None, true_peak_dbtp=-90)


def test_nothing_was_fed() -> None:
    """A meter that got nothing reads as silence."""
    assert Meter(44100, 1).read() == Loudness(lufs=None, true_peak_dbtp=None)


# True peak


def ffmpeg_peak(audio: Frames, rate: int) -> float:
    """FFmpeg's own true peak in dB."""
    graph = av.filter.Graph()
    layout = LAYOUTS[audio.shape[1]]
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout=layout)
    sink = graph.add("abuffersink")
    graph.link_nodes(source, graph.add("ebur128", "metadata=1:peak=true:framelog=quiet"), sink).configure()
    frame = av.AudioFrame.from_ndarray(audio.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate = rate
    source.push(frame)
    source.push(None)
    found = 0.0
    while True:
        try:
            found = max(found, float(sink.pull().metadata.get("lavfi.r128.true_peak", 0)))
        except av.EOFError:
            return 20 * float(np.log10(found))


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
def test_ffmpeg_agrees(rate: int) -> None:
    """FFmpeg's true peak is ours within 0.2 dB, of what has nothing near half the rate."""
    rng = np.random.default_rng(rate)
    for audio in (bursts(rate, 2), tone((-1, 1), rate=rate), rng.uniform(-1, 1, (rate, 2)).astype(np.float32)):
        low = np.apply_along_axis(np.convolve, 0, audio, np.hanning(9) / 4, "same").astype(np.float32)
        assert measured(low, rate).true_peak_dbtp == pytest.approx(ffmpeg_peak(low, rate), abs=0.2)


# Nothing but the audio matters


@pytest.mark.parametrize("size", [1000, 4410, 7919, 44100, 1 << 20])
def test_blocks_do_not_matter(size: int) -> None:
    """However the audio is cut into blocks, both figures are the same; blocks of one frame and of none are."""
    audio = bursts(44100, 2)
    whole = measured(audio, 44100, len(audio))
    assert measured(audio, 44100, size) == whole
    meter = Meter(44100, 2)
    for part in (audio[:0], audio[:1], audio[1:2], audio[2:2], audio[2:]):
        meter.feed(part)
    assert meter.read() == whole


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
    alone = [measured(song, rate) for song, rate in zip(songs, rates, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda song, rate: measured(song, rate, 5000), songs, rates)) == alone


def test_nothing_is_left() -> None:
    """Meters start no threads, and give their memory back whether they were read or not."""
    audio = bursts(44100, 2, seconds=1)

    def use(times: int) -> None:
        for turn in range(times):
            meter = Meter(44100, 2)
            meter.feed(audio)
            if turn % 2:
                meter.read()

    use(20)
    gc.collect()
    threads, before = len(list(TASKS.iterdir())), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use(100)
    assert len(list(TASKS.iterdir())) == threads
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB; a graph has 0.6 MB and more
