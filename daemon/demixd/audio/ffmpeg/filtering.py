"""One of FFmpeg's audio filters, with blocks in and frames out: abuffer -> filter -> abuffersink."""

import av
import av.filter
import numpy as np
from av.audio.frame import AudioFrame

from demixd.audio.pcm import Frames

LAYOUTS = {1: "mono", 2: "stereo"}


class Filter:
    """The filter `name` with FFmpeg's `options`, for audio at `rate` with 1 or 2 channels; used by one thread at a time."""

    def __init__(self, name: str, options: str, rate: int, channels: int) -> None:
        self._rate, self._layout = rate, LAYOUTS[channels]
        self._graph = av.filter.Graph()
        self._graph.threads = 1  # before any filter; otherwise each graph starts a thread per core, for nothing
        self._input = self._graph.add_abuffer(sample_rate=rate, format="flt", layout=self._layout)
        self._output = self._graph.add("abuffersink")
        self._graph.link_nodes(self._input, self._graph.add(name, options), self._output).configure()

    def feed(self, block: Frames) -> list[AudioFrame]:
        """What comes out for the next block, `[T, C]`."""
        if not len(block):
            return []
        flat = np.ascontiguousarray(block, dtype=np.float32).reshape(1, -1)
        frame = AudioFrame.from_ndarray(flat, format="flt", layout=self._layout)
        frame.sample_rate = self._rate
        self._input.push(frame)
        frames: list[AudioFrame] = []
        while True:
            try:
                frames.append(self._output.pull())  # type: ignore[arg-type]
            except av.BlockingIOError:
                return frames
