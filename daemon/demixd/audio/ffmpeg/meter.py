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

import av
import av.filter
import msgspec
import numpy as np

from demixd.audio.pcm import Frames
from demixd.audio.truepeak import TruePeak

LAYOUTS = {1: "mono", 2: "stereo"}

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
        self._rate, self._channels = rate, channels
        self._peak = TruePeak(rate, channels)
        self._lufs = GATE
        self._graph = av.filter.Graph()
        self._graph.threads = 1  # before any filter; otherwise each graph starts a thread per core, for nothing
        self._input = self._graph.add_abuffer(sample_rate=rate, format="flt", layout=LAYOUTS[channels])
        meter = self._graph.add("ebur128", "metadata=1:framelog=quiet")
        self._output = self._graph.add("abuffersink")
        self._graph.link_nodes(self._input, meter, self._output).configure()

    def feed(self, block: Frames) -> None:
        """Measure the next block, `[T, channels]`."""
        if not len(block):
            return
        self._peak.feed(block)
        flat = np.ascontiguousarray(block, dtype=np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(flat, format="flt", layout=LAYOUTS[self._channels])
        frame.sample_rate = self._rate
        self._input.push(frame)
        self._drain()

    def read(self) -> Loudness:
        """The measures of all blocks."""
        self._input.push(None)
        self._drain()
        peak = self._peak.read()
        return Loudness(
            lufs=round(self._lufs, 2) if self._lufs > GATE else None,
            true_peak_dbtp=None if peak is None else round(peak, 2),
        )

    def _drain(self) -> None:
        """Take all frames out of the graph: each of 100 ms has the loudness up to its end, a shorter last one has none."""
        frames = []
        while True:
            try:
                frames.append(self._output.pull())
            except (av.BlockingIOError, av.EOFError):
                break
        for frame in reversed(frames):
            if (found := frame.metadata.get(INTEGRATED)) is not None:
                self._lufs = float(found)
                return
