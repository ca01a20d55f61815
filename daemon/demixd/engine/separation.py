"""One song's way through an engine: cut into windows, through the networks in batches, added up again.

    read --windows--> pinned --copy--> device: networks, weights, overlap-add, mean over shifts --copy--> blocks

On a GPU nothing waits for anything until a block is needed on this side; memory there is bounded by the batch.
Where the memory does not hold a batch, smaller ones are taken for the rest of the song, then the cache is emptied.
"""

import random
import time
from collections.abc import Callable, Iterator

import msgspec
import torch
from torch import Tensor

from demixd.audio.pcm import BLOCK
from demixd.engine import device as devices
from demixd.engine.engine import Engine
from demixd.engine.networks import Network
from demixd.engine.segments import Read, delayed, drop, grid_of, overlap_add, reblock, segments
from demixd.errors import AudioProcessingError, Code
from demixd.protocol.job import EngineFacts

SHIFT_S = 0.5
"""The shift trick moves the song by up to this, as `demucs.apply` does."""


class SegmentProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Segments are done: of member `model` (from 1) of `models`, `done` of `total`; the last ones took `seconds`."""

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


class Separation:
    """`blocks` does it; `facts` say afterwards what did it, and what was given up on the way."""

    def __init__(self, engine: Engine, song: Song, plan: Plan) -> None:
        self._engine = engine
        self._song = song
        self._plan = plan
        self._batch = engine.batch
        self._notes: list[str] = []
        self._done = self._total = self._models = 0
        self.sources = sorted(plan.needed)

    @property
    def facts(self) -> EngineFacts:
        facts = self._engine.facts
        notes = [facts.fallback] if facts.fallback else []
        return msgspec.structs.replace(facts, fallback="; ".join([*notes, *self._notes]) or None)

    def blocks(self) -> Iterator[Tensor]:
        """`sources` of the song in blocks `[N, C, T]` as they become final; still normalised, in the machine's memory.

        out[s] = sum over members of weight[m][s] * mean over shifts of member m's answer / sum of the weights of s.
        Members that no needed source takes anything from are not run. Raises what `plan.check` raises,
        `torch.OutOfMemoryError` and other RuntimeErrors of the device, and BAD_OUTPUT for NaN or Inf.
        """
        for block in devices.to_host(self._mixed()):
            if not torch.isfinite(block).all():
                raise AudioProcessingError(Code.BAD_OUTPUT, "The model made samples that are not numbers.")
            yield block

    def _mixed(self) -> Iterator[Tensor]:
        """The same on the device: the members' streams, weighted and added up."""
        engine = self._engine
        columns = [engine.sources.index(source) for source in self.sources]
        weights = torch.tensor(engine.weights)[:, columns]
        running = [m for m, row in enumerate(weights) if row.any()]
        totals = weights.sum(0)
        totals[totals == 0] = 1.0  # a source that no member serves: silence, where Demucs would divide by zero
        shares = (weights / totals)[:, :, None, None].to(engine.device)
        self._models = len(running)
        streams = [(shares[m], self._member(m, place + 1)) for place, m in enumerate(running)]
        self._total = max(self._total, 1)
        while True:
            parts = [share * block[columns] for share, stream in streams if (block := next(stream, None)) is not None]
            if not parts:
                return
            yield torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def _member(self, number: int, place: int) -> Iterator[Tensor]:
        """One member's answer to the whole song, `[S, C, BLOCK]` at a time; with shifts the mean over them."""
        plan, song, batch = self._plan, self._song, self._batch
        grid = grid_of(self._engine.members[number], plan.overlap)

        def forward(windows: Tensor) -> Tensor:
            plan.check()
            began = time.monotonic()
            stems = self._through(self._engine.networks[number], windows)
            self._count(place, len(windows), time.monotonic() - began)
            return stems

        if not plan.shifts:
            self._total += grid.count(song.frames)
            return reblock(overlap_add(segments(forward, song.read, song.frames, grid, batch), grid), BLOCK)
        longest = int(SHIFT_S * self._engine.rate)
        dice = random.Random(f"{plan.seed} {place}")
        shifted = []
        for _ in range(plan.shifts):
            lag = longest - dice.randint(0, longest)
            frames = song.frames + lag
            self._total += grid.count(frames)
            answers = segments(forward, delayed(song.read, lag), frames, grid, batch)
            shifted.append(reblock(drop(overlap_add(answers, grid), lag), BLOCK))
        return (torch.stack(blocks).mean(0) for blocks in zip(*shifted, strict=True))

    def _through(self, network: Network, windows: Tensor) -> Tensor:
        """Windows `[B, C, T]` through a network, in batches that the memory holds."""
        device, check = self._engine.device, self._plan.check
        emptied = False
        while True:
            try:
                parts = windows.split(self._batch)  # type: ignore[no-untyped-call]
                stems = [network(devices.to_device(part, device), check) for part in parts]
                return stems[0] if len(stems) == 1 else torch.cat(stems)
            except torch.OutOfMemoryError:
                if emptied:
                    raise
            # Here and not there: what the failed call held is only given up when its exception is.
            size = min(self._batch, len(windows))
            if size > 1:
                self._batch = size // 2
                self._note(f"out of memory with {size} segments at once; {self._batch} from then on")
            else:
                self._note("out of memory with one segment; done once the cache was emptied")
                devices.give_back()
                emptied = True

    def _note(self, note: str) -> None:
        self._notes = [note]

    def _count(self, model: int, segments_done: int, seconds: float) -> None:
        self._done += segments_done
        self._plan.progress(
            SegmentProgress(model=model, models=self._models, done=self._done, total=self._total, seconds=seconds)
        )
