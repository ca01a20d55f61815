"""The separation of one song: windows of it go through an engine's networks in batches, and are added up again.

    read --windows--> pinned --copy--> device: networks, weights, overlap-add, mean over shifts --copy--> blocks

A GPU is only waited for where a block is needed in the machine's memory; GPU memory is bounded by the batch. Where a
batch does not fit, the rest of the song is done in smaller ones; where one segment does not, the cache is emptied once.
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
"""The shift trick (`demucs.apply.apply_model`) delays the song by up to this."""


class SegmentProgress(msgspec.Struct, frozen=True, kw_only=True):
    """`done` of `total` segments of all members; the last batch, of member `model` (from 1) of `models`, took `seconds`."""

    model: int
    models: int
    done: int
    total: int
    seconds: float


class Song(msgspec.Struct, frozen=True, kw_only=True):
    """A song at the model's rate and channels: `read` gives its normalised frames `[C, T]`."""

    read: Read
    frames: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to separate a song: the `needed` sources, overlap and shifts as in Demucs, and the callbacks.

    `check` may raise to stop, also within a segment. `seed` decides the shifts.
    """

    needed: frozenset[str]
    overlap: float
    shifts: int
    seed: int
    check: Callable[[], None]
    progress: Callable[[SegmentProgress], None]


class Separation:
    """`blocks` separates the song; `facts` tell afterwards what separated it, with the fallbacks that were taken."""

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
        """The N `sources` in blocks `[N, C, T]`, normalised as the song is, in the machine's memory, as they become final.

            out[s] = sum over m of weight[m][s] * (mean over shifts of member m's stem s) / sum over m of weight[m][s]

        as in `demucs.apply`. Members without a weight for a needed source are not run. Raises what `plan.check` raises,
        the RuntimeErrors of the device (`torch.OutOfMemoryError` too), and BAD_OUTPUT for NaN or Inf.
        """
        for block in devices.to_host(self._mixed()):
            if not torch.isfinite(block).all():
                raise AudioProcessingError(Code.BAD_OUTPUT, "The model made samples that are not numbers.")
            yield block

    def _mixed(self) -> Iterator[Tensor]:
        """The blocks of `blocks` on the device: the members' streams, weighted and added up."""
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
        """All stems of one member in blocks `[S, C, BLOCK]`; with shifts, the mean over them."""
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
        """Windows `[B, C, T]` to stems `[B, S, C, T]`, in batches that fit into memory."""
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
            # After the handler: the tensors of the failed call are freed only with its exception.
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
