"""Frames of audio as FFmpeg decodes them: their samples, and all of them at one rate in one layout."""

from collections.abc import Callable, Iterator
from typing import Any

import av.error
import numpy as np
from av.audio.format import AudioFormat
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from demixd.audio.ffmpeg.opening import reason
from demixd.audio.pcm import Frames
from demixd.audio.streams import DamagedError
from demixd.protocol.track import RATES

UNREADABLE = ("s64", "s64p")
"""Sample formats for which av has no numpy type."""

PLANES = 7
"""Planes of a frame that av can read: with eight channels or more it reads past the end of its table."""

HALF = {"u1": 1 << 7, "i2": 1 << 15, "i4": 1 << 31}
"""numpy's type of integer samples -> their full scale."""


def alike(frames: Iterator[AudioFrame], changed: Callable[[], None]) -> Iterator[AudioFrame]:
    """The frames at the rate and in the layout of the first, as FFmpeg's programs convert them.

    `changed` is called where those change. Raises `DamagedError`.
    """
    first: AudioFrame | None = None
    kind: tuple[int, str, str] | None = None
    resampler: AudioResampler | None = None
    for frame in frames:
        first, kind = first or frame, kind or _kind(frame)
        if _kind(frame) != kind:
            yield from _resampled(resampler, None) if resampler else ()
            resampler, kind = _between(frame, first), _kind(frame)
            changed()
        yield from _resampled(resampler, frame) if resampler else (frame,)
    yield from _resampled(resampler, None) if resampler else ()


def _between(frame: AudioFrame, first: AudioFrame) -> AudioResampler | None:
    """What makes frames such as `frame` such as `first`; None where they are."""
    if frame.sample_rate not in RATES:
        raise DamagedError(f"it goes on with {frame.sample_rate} frames a second")
    return None if _kind(frame) == _kind(first) else AudioResampler(first.format, first.layout, first.sample_rate)


def samples_of(frame: AudioFrame) -> Frames:
    """A frame as `[T, C]` float32, full scale 1."""
    found = array_of(frame)
    if found.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is no sound
            return np.asarray(found, np.float32)
    half = HALF[found.dtype.str[1:]]
    samples: Frames = found.astype(np.float32, order="C")
    if found.dtype.kind == "u":
        samples -= half
    # Converted before the division, as in libsndfile; the division is exact, by a power of two.
    samples *= np.float32(1 / half)
    return samples


def array_of(frame: AudioFrame) -> Any:
    """A frame's samples `[T, C]` in their own type. Raises `DamagedError`."""
    channels = len(frame.layout.channels)
    if frame.format.name in UNREADABLE:
        frame = _packed(frame, "dbl")
    elif frame.format.is_planar and channels > PLANES:
        frame = _packed(frame, frame.format.packed)
    found = frame.to_ndarray()
    return found.T if frame.format.is_planar else found.reshape(-1, channels)


def _packed(frame: AudioFrame, wanted: AudioFormat | str) -> AudioFrame:
    """The same samples, interleaved, in the format `wanted`."""
    (packed,) = _resampled(AudioResampler(wanted, frame.layout, frame.sample_rate), frame)
    return packed


def _resampled(resampler: AudioResampler, frame: AudioFrame | None) -> list[AudioFrame]:
    """What comes out of a resampler for a frame, or (None) at the end. Raises `DamagedError`."""
    if frame is not None:
        frame.pts = None
    try:
        return resampler.resample(frame)
    except (av.error.FFmpegError, ValueError) as error:
        raise DamagedError(reason(error)) from error


def _kind(frame: AudioFrame) -> tuple[int, str, str]:
    return int(frame.sample_rate), frame.layout.name, frame.format.name
