"""The warm model: its members live on the device, have run once, and separate one song after the other.

`apply_model` would carry every member to the device and back for each song; here they stay.
"""

import copy
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from stemd.engine import device as devices
from stemd.engine.segments import Grid, Read, delayed, drop, overlap_add, reblock, segments
from stemd.errors import AudioProcessingError, Code
from stemd.job import EngineFacts
from stemd.track import BLOCK

SHIFT_S = 0.5
"""The shift trick moves the song by up to this, as `demucs.apply` does."""


class SegmentProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One segment is done: of member `model` (from 1) of `models`, number `done` of `total`, in `seconds`."""

    model: int
    models: int
    done: int
    total: int
    seconds: float


class Song(msgspec.Struct, frozen=True, kw_only=True):
    """A song as the model hears it: `read` gives its normalised frames `[C, T]`."""

    read: Read
    frames: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with a song. `check` raises to stop, also in the middle of a segment."""

    needed: frozenset[str]
    overlap: float
    shifts: int
    seed: int
    check: Callable[[], None]
    progress: Callable[[SegmentProgress], None]


class Engine:
    """A bag of models on a device. `accelerated` says that the CPU can stand in for the device."""

    def __init__(self, bag: Any, *, device: torch.device, facts: EngineFacts, accelerated: bool) -> None:
        self.members: list[Any] = [member.to(device).eval() for member in bag.models]
        self.weights: list[list[float]] = bag.weights
        self.sources: list[str] = list(bag.sources)
        self.rate = int(bag.samplerate)
        self.channels = int(bag.audio_channels)
        self.device = device
        self.facts = facts
        self.accelerated = accelerated
        self._check: Callable[[], None] = _never
        for member in self.members:
            _hook(member, self)

    @classmethod
    def warm(cls, bag: Any, *, name: str, sha256: str, device: str) -> "Engine":
        """An engine that has proved itself on `device`, or on the CPU with the reason in its facts.

        Raises `AudioProcessingError` (BAD_MODEL) where the model gives nothing useful even there.
        """
        devices.settle()
        chosen, fallback = devices.choose(device)
        if chosen.type != "cpu":
            try:
                return cls._proved(bag, chosen, name, sha256, fallback)
            except (RuntimeError, AudioProcessingError) as error:
                fallback = f"{chosen} failed at warm-up ({str(error).splitlines()[0]}); using the CPU"
        return cls._proved(bag, torch.device("cpu"), name, sha256, fallback)

    @classmethod
    def _proved(cls, bag: Any, device: torch.device, name: str, sha256: str, fallback: str | None) -> "Engine":
        facts = EngineFacts(
            model=name,
            model_sha256=sha256,
            device=str(device),
            device_name=devices.name_of(device),
            precision="float32",
            fallback=fallback,
        )
        engine = cls(bag, device=device, facts=facts, accelerated=device.type != "cpu")
        engine.prove()
        return engine

    @property
    def alone(self) -> frozenset[str]:
        """Sources that at most half of the members take part in: cheap without the others."""
        used = {source: sum(1 for row in self.weights if row[k]) for k, source in enumerate(self.sources)}
        return frozenset(source for source, count in used.items() if 2 * count <= len(self.members))

    def on_cpu(self, fallback: str) -> "Engine":
        """A copy on the CPU, for one song; this one stays where it is."""
        stand_in = copy.copy(self)
        stand_in.members = [copy.deepcopy(member).to("cpu") for member in self.members]
        for member in stand_in.members:
            _hook(member, stand_in)
        stand_in.device, stand_in.accelerated = torch.device("cpu"), False
        stand_in.facts = msgspec.structs.replace(
            self.facts, device="cpu", device_name=devices.name_of(stand_in.device), fallback=fallback
        )
        return stand_in

    def prove(self) -> None:
        """Run every member on one fixed segment of noise and tones, and look at what comes out."""
        generator = torch.Generator().manual_seed(0)
        for member in self.members:
            length = _grid(member, 0.0).segment
            tones = torch.sin(torch.arange(length) * torch.tensor([[0.03], [0.19]])).sum(0)
            window = 0.1 * torch.randn(self.channels, length, generator=generator) + 0.3 * tones
            answer = self._forward(member, window)
            if not torch.isfinite(answer).all() or not answer.any():
                message = f"The model {self.facts.model} gives no usable sound on {self.device}; fetch it again."
                raise AudioProcessingError(Code.BAD_MODEL, message)

    def separate(self, song: Song, plan: Plan) -> Iterator[Tensor]:
        """The sources of a song, in order, in blocks `[S, C, T]` as they become final; still normalised.

        out[s] = sum over members of weight[m][s] * mean over shifts of member m's answer / sum of the weights of s.
        Members that no needed source takes anything from are not run. Raises what `plan.check` raises,
        `torch.OutOfMemoryError` and other RuntimeErrors of the device, and BAD_OUTPUT for NaN or Inf.
        """
        columns = [self.sources.index(source) for source in sorted(plan.needed)]
        running = [m for m, row in enumerate(self.weights) if any(row[k] for k in columns)]
        totals = torch.tensor(self.weights).sum(0)
        totals[totals == 0] = 1.0  # a source that no member serves: silence, where Demucs would divide by zero
        counter = _Counter(plan, len(running))
        streams = []
        for place, m in enumerate(running):
            stream = self._member(self.members[m], song, plan, counter, place + 1)
            streams.append((torch.tensor(self.weights[m]) / totals, stream))
        counter.total = max(counter.total, 1)
        self._check = plan.check
        try:
            while True:
                blocks = [
                    weight[:, None, None] * block
                    for weight, stream in streams
                    if (block := next(stream, None)) is not None
                ]
                if not blocks:
                    return
                mixed = torch.stack(blocks).sum(0) if len(blocks) > 1 else blocks[0]
                if not torch.isfinite(mixed).all():
                    raise AudioProcessingError(Code.BAD_OUTPUT, "The model made samples that are not numbers.")
                yield mixed
        finally:
            self._check = _never

    def _member(self, member: Any, song: Song, plan: Plan, counter: "_Counter", place: int) -> Iterator[Tensor]:
        """One member's answer to the whole song, `[S, C, BLOCK]` at a time; with shifts the mean over them."""
        grid = _grid(member, plan.overlap)

        def forward(window: Tensor) -> Tensor:
            plan.check()
            began = time.monotonic()
            answer = self._forward(member, window)
            counter.count(place, time.monotonic() - began)
            return answer

        if not plan.shifts:
            counter.total += grid.count(song.frames)
            return reblock(overlap_add(segments(forward, song.read, song.frames, grid), grid), BLOCK)
        longest = int(SHIFT_S * self.rate)
        dice = random.Random(f"{plan.seed} {place}")
        shifted = []
        for _ in range(plan.shifts):
            lag = longest - dice.randint(0, longest)
            frames = song.frames + lag
            counter.total += grid.count(frames)
            answers = segments(forward, delayed(song.read, lag), frames, grid)
            shifted.append(reblock(drop(overlap_add(answers, grid), lag), BLOCK))
        return (torch.stack(blocks).mean(0) for blocks in zip(*shifted, strict=True))

    def _forward(self, member: Any, window: Tensor) -> Tensor:
        """One window `[C, T]` through one member, `[S, C, T]`, on the CPU again."""
        with torch.inference_mode():
            answer: Tensor = member(window[None].to(self.device))[0].cpu()
        return answer


class _Counter:
    """Counts the segments of all members and shifts."""

    def __init__(self, plan: Plan, models: int) -> None:
        self._plan = plan
        self._models = models
        self._done = 0
        self.total = 0

    def count(self, model: int, seconds: float) -> None:
        self._done += 1
        self._plan.progress(
            SegmentProgress(model=model, models=self._models, done=self._done, total=self.total, seconds=seconds)
        )


def _grid(member: Any, overlap: float) -> Grid:
    """How `apply_model` cuts a song for this member."""
    segment = int(member.samplerate * member.segment)
    valid = getattr(member, "valid_length", lambda length: length)
    return Grid(segment=segment, stride=int((1 - overlap) * segment), valid=valid)


def _hook(member: nn.Module, engine: Engine) -> None:
    """Let a cancel through between the layers: a segment of a large model takes seconds on a CPU."""
    for module in member.modules():
        module._forward_pre_hooks.clear()  # a copy brings the hooks of the engine that it was copied from
    for module in member.modules():
        if isinstance(module, nn.ModuleList):
            for layer in module:
                layer.register_forward_pre_hook(lambda *_: engine._check())


def _never() -> None:
    """Nobody wants to stop."""
