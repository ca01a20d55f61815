"""Sounds for synthetic songs: notes, noise, envelopes, and a place in the stereo picture.

- A note is one cycle read over and over. The cycle is a sum of harmonics below half the sample rate, so it does not
  alias at any pitch, and a filter is no more than a gain for each harmonic. Timbre moves by fading into a second cycle.
- Noise is shaped in the frequency domain, once for each burst.

Sounds are float64 [frames] around -1..1 in value; frequencies and widths are in Hz, times in seconds.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]
Gain = Callable[[Signal], Signal]
"""Frequencies to gains at those frequencies."""

CYCLE = 4096
"""Samples in one stored cycle: reading the nearest one puts the error about 60 dB below the note."""


def seconds(frames: int, rate: int) -> Signal:
    """The time of each frame."""
    return np.arange(frames) / rate


def low_pass(corner: float) -> Gain:
    """12 dB an octave above `corner`."""
    return lambda hz: 1 / (1 + (hz / corner) ** 2)


def resonances(peaks: list[tuple[float, float, float]], floor: float) -> Gain:
    """A sum of bell-shaped (centre, width, height), never below `floor`: the formants of a vowel."""

    def gain(hz: Signal) -> Signal:
        total = np.full_like(hz, floor)
        for centre, width, height in peaks:
            total += height / (1 + ((hz - centre) / width) ** 2)
        return total

    return gain


def even(sound: Signal) -> Signal:
    """`sound` at an RMS of one third, so that neither pitch nor filter makes one louder than another."""
    rms = float(np.sqrt(np.mean(sound**2)))
    return sound / (3 * rms + 1e-12)


def cycle(hz: float, rate: int, gain: Gain) -> Signal:
    """One cycle [CYCLE] of a saw at `hz`, filtered by `gain`.

    A saw is the sum of sin(k x) / k over its harmonics k.
    """
    k = np.arange(1, max(2, min(CYCLE // 2, int(rate / 2 / hz))))
    spectrum = np.zeros(CYCLE // 2 + 1, complex)
    spectrum[k] = -1j * gain((k * hz).astype(np.float64)) / k
    return even(np.fft.irfft(spectrum))


def tone(hz: Signal, rate: int, first: Signal, last: Signal, fade: Signal, phase: float = 0.0) -> Signal:
    """A note of pitch `hz` [frames] that reads cycle `first` where `fade` [frames] is 0 and `last` where it is 1."""
    turns = phase + np.cumsum(hz / rate)
    index = (turns * CYCLE).astype(np.int64) % CYCLE
    sound: Signal = first[index] + (last - first)[index] * fade
    return sound


def noise(rng: np.random.Generator, frames: int, rate: int, low: float, high: float) -> Signal:
    """White noise between `low` and `high`, falling by 12 dB an octave outside."""
    hz = np.fft.rfftfreq(frames, 1 / rate)
    shape = 1 / (1 + (low / np.maximum(hz, 1)) ** 2) / (1 + (hz / high) ** 2)
    return even(np.fft.irfft(np.fft.rfft(rng.standard_normal(frames)) * shape, frames))


def held(frames: int, rate: int, attack_s: float, release_s: float) -> Signal:
    """An envelope [frames] that rises in `attack_s`, holds, and falls to zero in the last `release_s`."""
    time = seconds(frames, rate)
    return np.clip(np.minimum(time / attack_s, (frames / rate - time) / release_s), 0, 1)


def struck(frames: int, rate: int, decay_s: float) -> Signal:
    """An envelope [frames] that starts in 1 ms, falls to 1/e every `decay_s`, and reaches zero in its last 10 ms."""
    return np.exp(-seconds(frames, rate) / decay_s) * held(frames, rate, 0.001, 0.01)


def place(track: Signal, at: int, sound: Signal, pan: float = 0.0) -> None:
    """Add `sound` to `track` [2, frames] from frame `at`, at `pan` (-1 left, 1 right), cut at the track's end.

    Constant power: cos and sin of one angle, so that panning does not change how loud it is.
    """
    room = track.shape[1] - at
    angle = (pan + 1) * np.pi / 4
    track[0, at : at + len(sound)] += np.cos(angle) * sound[:room]
    track[1, at : at + len(sound)] += np.sin(angle) * sound[:room]
