"""The loudness of audio: integrated loudness and true peak, as players and broadcasters measure them.

    blocks -> abuffer -> ebur128 (K-weighting, 400 ms gating blocks) -> abuffersink   the last frame's metadata: LUFS
           -> TruePeak                                                                dBTP

- Loudness is EBU R 128's (ITU-R BS.1770-4, gated at -70 LUFS and at 10 LU below the mean), by FFmpeg's `ebur128`, which
  keeps a histogram in steps of 0.01 LU. One channel counts once, as BS.1770 has it: the same on both sides of stereo
  is 3 LU louder than on one.
- FFmpeg's own true peak oversamples everything, which takes four times as long as loudness, and gives three decimals of
  a linear value, which is 0.5 dB at -40; `truepeak` has neither fault.
- A meter is used by one thread at a time. Several meters share nothing.
"""

from collections.abc import Sequence

import msgspec
from av.audio.frame import AudioFrame

from demixd.audio.ffmpeg.filtering import Filter
from demixd.audio.pcm import Frames
from demixd.audio.truepeak import TruePeak

GATE = -70.0
"""LUFS; the answer of `ebur128` where no gating block was louder than that."""

INTEGRATED = "lavfi.r128.I"


class Loudness(msgspec.Struct, frozen=True, kw_only=True):
    """Both in steps of 0.01, so that the same audio cut into other blocks measures the same."""

    lufs: float | None
    """Integrated loudness; None where the audio is shorter than 0.4 s or never above the absolute gate."""
    true_peak_dbtp: float | None
    """None where every sample is zero."""


class Meter:
    """Measures blocks of finite audio at `rate` (8 to 192 kHz), 1 or 2 channels; `read` is called once, after the last."""

    def __init__(self, rate: int, channels: int) -> None:
        self._peak = TruePeak(rate, channels)
        self._lufs = GATE
        self._loudness = Filter("ebur128", "metadata=1:framelog=quiet", rate, channels)

    def feed(self, block: Frames) -> None:
        """Measure the next block, `[T, channels]`."""
        if not len(block):
            return
        self._peak.feed(block)
        self._note(self._loudness.feed(block))

    def read(self) -> Loudness:
        """The measures of all blocks."""
        self._note(self._loudness.end())
        peak = self._peak.read()
        return Loudness(
            lufs=round(self._lufs, 2) if self._lufs > GATE else None,
            true_peak_dbtp=None if peak is None else round(peak, 2),
        )

    def _note(self, frames: Sequence[AudioFrame]) -> None:
        """Each frame of 100 ms has the loudness up to its end, a shorter last one has none."""
        for frame in reversed(frames):
            if (found := frame.metadata.get(INTEGRATED)) is not None:
                self._lufs = float(found)
                return
