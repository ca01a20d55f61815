"""What a stem is like, found out while it is written: on a thread of its own, so that nobody waits for it.

encode --hear--> loudness, true peak (ffmpeg/meter.py), silence (levels.py) --> Sound
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from demixd.audio.ffmpeg.meter import Meter
from demixd.audio.levels import Levels
from demixd.audio.pcm import Frames
from demixd.protocol.job import Sound

AHEAD = 8
"""Blocks that may wait to be measured; they are 4 MB."""


class Listening:
    """Hears one stem. Leaving its block ends the thread."""

    def __init__(self, rate: int, channels: int) -> None:
        self._levels, self._meter = Levels(rate, channels), Meter(rate, channels)
        self._thread = ThreadPoolExecutor(1, "listen")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> "Listening":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def hear(self, block: Frames) -> None:
        """A block `[T, C]`, as it is written."""
        if len(self._pending) == AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._measure, block))

    def sound(self, song: float) -> Sound:
        """What was heard, once it is all; `song` is the mean square of the song that the stem is of, at the same gain."""
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
