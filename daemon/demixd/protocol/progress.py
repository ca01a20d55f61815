"""Progress: its steps, one shape of it from the pipeline to the sidecar, and one throttle. Pure: callers tell the time."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

Fraction = Annotated[float, Meta(ge=0, le=1)]
"""0 to 1."""

NotNegative = Annotated[float, Meta(ge=0)]

SegmentSeconds = Annotated[float, Meta(ge=0, le=86_400)]
"""No segment takes a day; a worker is given up after 20 times what its segments have taken."""


class Step(StrEnum):
    """The steps of a running job, in order."""

    SNAPSHOT = "snapshot"
    DECODE = "decode"
    SEPARATE = "separate"
    MIX = "mix"
    ENCODE = "encode"
    PUBLISH = "publish"


class Progress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`fraction` is that of the whole job, `step_fraction` that of the step; `speed_x` is in times of real time."""

    fraction: Fraction = 0.0
    step_fraction: Fraction = 0.0
    eta_s: NotNegative | None = None
    speed_x: NotNegative | None = None
    queue_position: int | None = None


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a song. `message` is a line for people; `segment_s` are the seconds of a segment that was just done."""

    step: Step
    progress: Progress
    message: str
    segment_s: SegmentSeconds | None = None


class Throttle:
    """Lets something pass at most once in `every_s` seconds. What has another `topic` than before passes at once."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last: tuple[object, float] | None = None

    def passes(self, now: float, topic: object = None) -> bool:
        """Whether it may pass at `now` (monotonic, in seconds)."""
        if self._last is not None and topic == self._last[0] and now < self._last[1] + self._every_s:
            return False
        self._last = (topic, now)
        return True
