"""How long a song in the worker may get no further before the worker counts as stalled."""

from statistics import median

STALL_FLOOR_S = 60.0
STALL_FACTOR = 20
"""A worker has stalled when a song gets no further for `max(STALL_FLOOR_S, STALL_FACTOR x the median segment)`."""

WRITING_STALL_S = 900.0
"""The same while stems are written: to sync gigabytes to a slow disk takes minutes, and the model is free meanwhile."""

LATEST = 100
"""Segments whose median counts."""


class Patience:
    """Judges by the segments that a warm model has computed."""

    def __init__(self) -> None:
        self._segments: list[float] = []

    def note(self, segment_s: float) -> None:
        self._segments = [*self._segments[1 - LATEST :], segment_s]

    def of(self, *, is_finishing: bool) -> float:
        """In seconds; `is_finishing` once the song needs the model no more."""
        if is_finishing:
            return WRITING_STALL_S
        return max(STALL_FLOOR_S, STALL_FACTOR * median(self._segments)) if self._segments else STALL_FLOOR_S
