"""The separation of one song: windows of it go through an engine's networks in batches, and are added up again.

    read --windows--> networks --sums of stems--> overlap-add, mean over shifts and members --> blocks

All of it is on the device, whose memory is bounded by the batch. Where a batch does not fit, the rest of the song is done
in smaller ones; where one segment does not, the cache is emptied once.
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
from demixd.engine.families.demucs_core import Mix
from demixd.engine.networks import Network
from demixd.engine.segments import Read, answers, cut, delayed, grid_of, overlap_add, reblock
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
    """A song at the model's rate and channels: `read` gives its normalised frames `[C, T]`, on the device."""

    read: Read
    frames: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to separate a song: which sums of the model's sources, overlap and shifts as in Demucs, and the callbacks.

    `check` may raise to stop, also within a segment. `seed` decides the shifts.
    """

    mix: Mix
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

    @property
    def facts(self) -> EngineFacts:
        facts = self._engine.facts
        notes = [facts.fallback] if facts.fallback else []
        return msgspec.structs.replace(facts, fallback="; ".join([*notes, *self._notes]) or None)

    def blocks(self) -> Iterator[Tensor]:
        """The N sums in blocks `[N, C, T]`, normalised as the song is, on the device, as they become final.

            out[s] = sum over m of weight[m][s] * (mean over shifts of member m's stem s) / sum over m of weight[m][s]

        as in `demucs.apply`, and of these the sums. Members without a weight for a source that is in a sum are not run.
        Raises what `plan.check` raises, and the RuntimeErrors of the device (`torch.OutOfMemoryError` too).
        """
        engine, plan = self._engine, self._plan
        # Of a source that no member serves: silence, where Demucs would divide by zero.
        totals = [sum(column) or 1.0 for column in zip(*engine.weights, strict=True)]
        shares = [[weight / total for weight, total in zip(row, totals, strict=True)] for row in engine.weights]
        mixes = [
            [[weight * part for weight, part in zip(row, share, strict=True)] for row in plan.mix] for share in shares
        ]
        running = [m for m, mix in enumerate(mixes) if any(map(any, mix))]
        self._models = len(running)
        streams = [stream for place, m in enumerate(running, 1) for stream in self._member(m, place, mixes[m])]
        self._total = max(self._total, 1)
        if not streams:
            return self._silence()
        if len(streams) == 1:
            return streams[0]
        return (
            torch.stack(parts).sum(0) for parts in zip(*(reblock(stream, BLOCK) for stream in streams), strict=True)
        )

    def _silence(self) -> Iterator[Tensor]:
        """Sums to which no member adds anything: a guide with the vocals at 0 dB is the song, minus nothing."""
        for start in range(0, self._song.frames, BLOCK):
            self._plan.check()
            size = min(BLOCK, self._song.frames - start)
            yield torch.zeros(len(self._plan.mix), self._engine.channels, size, device=self._engine.device)

    def _member(self, number: int, place: int, mix: Mix) -> list[Iterator[Tensor]]:
        """One member's part of the sums, `[N, C, T]` a block: a stream for each shift, of which the sum is their mean."""
        plan, song, batch = self._plan, self._song, self._batch
        grid = grid_of(self._engine.members[number], plan.overlap)
        runs = max(1, plan.shifts)
        mix = [[weight / runs for weight in row] for row in mix]

        def forward(windows: Tensor) -> Tensor:
            plan.check()
            began = time.monotonic()
            sums = self._through(self._engine.networks[number], windows, mix)
            self._count(place, len(windows), time.monotonic() - began)
            return sums

        longest = int(SHIFT_S * self._engine.rate)
        dice = random.Random(f"{plan.seed} {place}")
        streams = []
        for _ in range(runs):
            lag = longest - dice.randint(0, longest) if plan.shifts else 0
            frames = song.frames + lag
            self._total += grid.count(frames)
            stream = overlap_add(answers(forward, delayed(song.read, lag), frames, grid, batch), grid)
            streams.append(cut(stream, lag, frames))
        return streams

    def _through(self, network: Network, windows: Tensor, mix: Mix) -> Tensor:
        """Windows `[B, C, T]` to sums of their stems `[B, N, C, T]`, in batches that fit into memory."""
        emptied = False
        while True:
            try:
                parts = windows.split(self._batch)  # type: ignore[no-untyped-call]
                sums = [network(part.contiguous(), self._plan.check, mix) for part in parts]
                return sums[0] if len(sums) == 1 else torch.cat(sums)
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
