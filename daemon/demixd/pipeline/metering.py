"""Metering: a stem's loudness, true peak and silence, measured while it is written.

encode --blocks--> loudness, true peak (audio/ffmpeg/meter.py), silence (audio/levels.py) --> Sound
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from demixd.audio.ffmpeg.meter import Meter
from demixd.audio.levels import Levels
from demixd.audio.pcm import Frames
from demixd.protocol.job import Sound

AHEAD = 8
"""Blocks that may wait to be measured; they are 4 MB."""


class Metering:
    """Measures one stem, on a thread of its own where there is a core for it (`beside`): else two threads would only take
    the core from each other. The end of the `with` block ends the thread."""

    def __init__(self, rate: int, channels: int, *, beside: bool) -> None:
        self._levels, self._meter = Levels(rate, channels), Meter(rate, channels)
        self._thread = ThreadPoolExecutor(1, "metering") if beside else None
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> "Metering":
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def feed(self, block: Frames) -> None:
        """Measure the next block `[T, C]`; waits where `AHEAD` of them are not measured yet."""
        if self._thread is None:
            self._measure(block)
            return
        if len(self._pending) == AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._measure, block))

    def read(self, song: float) -> Sound:
        """The measures of all blocks fed; `song` is the mean square of the stem's song, at the stem's gain. Called once."""
        while self._pending:
            self._pending.popleft().result()
        loudness = self._meter.read()
        return Sound(
            loudness_lufs=loudness.lufs,
            true_peak_dbtp=loudness.true_peak_dbtp,
            silence=self._levels.silence(),
            silent=self._levels.is_silent(song),
        )

    def _measure(self, block: Frames) -> None:
        self._levels.feed(block)
        self._meter.feed(block)
