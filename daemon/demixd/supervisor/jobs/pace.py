"""How long songs take on this machine, as measured by step and format, and when each song will be done. Pure.

A step's measure is its seconds of work for a second of song. Before a song is decoded its length comes from its size, by
what a second took in the songs of its format so far: nobody opens ten thousand dropped files for it, each of which may
be made to hang or to fill the memory. An estimate is None as long as one of its measures is missing.

While a song is mixed and encoded the next one is separated, and it is decoded while the one before is separated.
"""

import math
import os.path
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from demixd.protocol.job import Job, Reason, State
from demixd.protocol.progress import Progress, Step, Tick
from demixd.supervisor.jobs import dedupe

MOST = 100
"""Measures that are kept; the one that was not renewed for longest goes first."""

STEPS = tuple(Step)
FINISHING = frozenset({Step.MIX, Step.ENCODE, Step.PUBLISH})
"""The steps that need no model."""

FADE = 0.7
"""What a former song's share in a measure comes to with each new one."""

NOTABLE = 0.1
"""The change of a measure from which on it is written down."""

_Amount = Annotated[float, Meta(ge=0, le=1e15)]


class Measure(msgspec.Struct, frozen=True):
    """`amount` (seconds of work, or bytes) for `song_s` seconds of song, the latest songs counting most."""

    amount: _Amount
    song_s: Annotated[float, Meta(gt=0, le=1e9)]

    @property
    def rate(self) -> float:
        return self.amount / self.song_s

    def with_song(self, amount: float, song_s: float) -> "Measure":
        return Measure(FADE * self.amount + amount, FADE * self.song_s + song_s)


class Pace:
    """The measures, from songs that are done. `device` is where songs are separated."""

    def __init__(self, noted: dict[str, Measure] | None = None) -> None:
        """`noted`: what a former daemon had measured."""
        self.measures = noted or {}

    def learn(self, job: Job, device: str | None) -> bool:
        """Take in a song that was separated; whether a measure is another by so much that it is worth noting.

        `device` counts where the song does not say on which it was separated.
        """
        if job.state is not State.DONE or job.track is None or job.duplicate_of is not None:
            return False
        device = job.engine.device if job.engine else device
        found = {_key(step, job, device): job.timing.get(f"{step}_s") for step in Step}
        found[_size_key(job)] = job.identity.size
        song_s = job.track.duration_s
        changes = [self._add(key, amount, song_s) for key, amount in found.items() if amount is not None]
        return any(changes)

    def _add(self, key: str, amount: float, song_s: float) -> bool:
        known = self.measures.pop(key, None)
        fresh = self.measures[key] = known.with_song(amount, song_s) if known else Measure(amount, song_s)
        if len(self.measures) > MOST:
            del self.measures[next(iter(self.measures))]
        return known is None or not math.isclose(fresh.rate, known.rate, rel_tol=NOTABLE)

    def song_s(self, job: Job) -> float | None:
        """The length of a song, in seconds; about, until it is decoded."""
        if job.track is not None:
            return job.track.duration_s
        bytes_per_s = self._rate(_size_key(job))
        return job.identity.size / bytes_per_s if bytes_per_s else None

    def step_s(self, step: Step, job: Job, device: str | None) -> float | None:
        """Seconds that a step of the job takes."""
        song_s, rate = self.song_s(job), self._rate(_key(step, job, device))
        return None if song_s is None or rate is None else song_s * rate

    def _rate(self, key: str) -> float | None:
        measure = self.measures.get(key)
        return measure.rate if measure else None

    def left(self, job: Job, tick: Tick, device: str | None) -> Progress:
        """The progress of a running job with the seconds that are left of the whole of it, not of its step alone.

        What the worker says of its step counts the more, the more of the step is done: its first segments tell little.
        """
        now_s, done = tick.progress.eta_s, tick.progress.step_fraction
        if (whole_s := self.step_s(tick.step, job, device)) is not None:
            measured_s = whole_s * (1 - done)
            now_s = measured_s if now_s is None else done * now_s + (1 - done) * measured_s
        return msgspec.structs.replace(tick.progress, eta_s=_sum([now_s, self._after(tick.step, job, device)]))

    def _after(self, step: Step, job: Job, device: str | None) -> float | None:
        """Seconds that the steps after `step` take."""
        return _sum([self.step_s(each, job, device) for each in STEPS[STEPS.index(step) + 1 :]])

    def queue(self, running: list[Job], queued: Iterable[Job], devices: Sequence[str | None]) -> Iterator[float | None]:
        """For each queued job, in the order of work, the seconds until it is done by workers on `devices`, all as the first.

        `running` are those in flight, the one that is furthest along first. Their twins are done when they are.
        """
        device, lines, places = devices[0], [_Line() for _ in devices], dict[str, int]()
        for job in running:
            who = job.engine.worker if job.engine and job.engine.worker else job.job_id  # not at a worker yet
            line = lines[places.setdefault(who, len(places)) % len(lines)]
            line.occupy(job.step in FINISHING, self._left(job, device), self._after(Step.SEPARATE, job, device))
        for job in queued:
            if job.reason is not Reason.QUEUED:
                yield None  # it waits for something else than its turn
            elif (twin := dedupe.twin_of(job, running)) is not None:
                yield self._left(twin, device)
            else:
                before = _sum([self.step_s(step, job, device) for step in (Step.SNAPSHOT, Step.DECODE)])
                model, after = self.step_s(Step.SEPARATE, job, device), self._after(Step.SEPARATE, job, device)
                yield min(lines, key=lambda line: line.model_free).put(before, model, after)

    def _left(self, job: Job, device: str | None) -> float | None:
        if job.progress.eta_s is not None or job.step is None:
            return job.progress.eta_s
        return _sum([self.step_s(job.step, job, device), self._after(job.step, job, device)])

    def apart_s(self, job: Job, device: str | None) -> float | None:
        """Seconds from the end of the job before it to the end of this one, in a queue of its like."""
        model, after = self.step_s(Step.SEPARATE, job, device), self._after(Step.SEPARATE, job, device)
        return None if model is None or after is None else max(model, after)


class _Line:
    """When the model, and the two places in flight, are free; in seconds from now, None once that is not known."""

    def __init__(self) -> None:
        self.model_free = self._ended = self._ended_before = 0.0
        self._is_known = True

    def occupy(self, is_finishing: bool, left_s: float | None, after_s: float | None) -> None:
        """A job in flight, which takes `left_s` more, `after_s` of it without the model."""
        if left_s is None or after_s is None:
            self._is_known = False
            return
        if not is_finishing:
            self.model_free = max(0.0, left_s - after_s)
        self._ended, self._ended_before = max(self._ended, left_s), self._ended

    def put(self, before: float | None, model: float | None, after: float | None) -> float | None:
        """The end of the next job, which takes so long before the model, with it, and after it."""
        if not self._is_known or before is None or model is None or after is None:
            self._is_known = False
            return None
        # It is decoded beside the one before; and while two are in flight it waits for the end of the first of them.
        begins = max(self.model_free, self._ended_before) if self._ended else before
        self.model_free = begins + model
        self._ended, self._ended_before = max(self.model_free, self._ended) + after, self._ended
        return round(self._ended, 1)


def _sum(seconds: list[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return round(sum(known), 1) if len(known) == len(seconds) else None


def _format(job: Job) -> str:
    """The song's format, as its name has it: also before it is decoded."""
    return os.path.splitext(job.shown)[1].lower()  # noqa: PTH122 - ten thousand may wait


def _size_key(job: Job) -> str:
    return f"size {_format(job)}"


def _key(step: Step, job: Job, device: str | None) -> str:
    """What the time of a step depends on, beside the song's length."""
    options = job.options
    match step:
        case Step.DECODE:
            return f"decode {_format(job)}"
        case Step.SEPARATE:
            how = f"{options.shifts} {options.overlap:g} {options.instrumental} {' '.join(options.stems)[:200]}"
            return f"separate {options.model} {device} {how}"
        case Step.ENCODE:
            format = _format(job) if options.format == "source" else options.format
            return f"encode {format} {options.quality} {options.rate} {len(options.stems)}"
        case Step.MIX:
            return f"mix {len(options.stems)}"
    return step.value
