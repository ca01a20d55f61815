"""Metering: a stem's loudness, true peak and silence, measured while it is written.

encode --blocks--> loudness, true peak, silence (audio/loudness.py, truepeak.py, levels.py) --> Sound
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from demixd.audio.levels import Levels
from demixd.audio.loudness import Loudness
from demixd.audio.pcm import Frames
from demixd.audio.truepeak import TruePeak
from demixd.protocol.job import Sound

AHEAD = 8
"""Blocks that may wait to be measured; they are 4 MB."""


class Metering:
    """Measures one stem, on a thread of its own where there is a core for it (`beside`): else two threads would only take
    the core from each other. The end of the `with` block ends the thread."""

    def __init__(self, rate: int, channels: int, *, beside: bool) -> None:
        self._levels, self._loudness = Levels(rate, channels), Loudness(rate, channels)
        self._true_peak = TruePeak(rate, channels)
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
        """The measures of all blocks fed; `song` is the mean square of the stem's song, at the stem's gain. Called once.

        Loudness and true peak are in steps of 0.01, so that the same audio in other blocks measures the same.
        """
        while self._pending:
            self._pending.popleft().result()
        return Sound(
            loudness_lufs=_rounded(self._loudness.read()),
            true_peak_dbtp=_rounded(self._true_peak.read()),
            silence=self._levels.silence(),
            silent=self._levels.is_silent(song),
        )

    def _measure(self, block: Frames) -> None:
        self._levels.feed(block)
        self._loudness.feed(block)
        self._true_peak.feed(block)


def _rounded(level: float | None) -> float | None:
    return None if level is None else round(level, 2)
