"""A song in overlapping segments, and back: the arithmetic of `demucs.apply.apply_model`, as a stream.

The model gets segments of L frames; segment i starts at i·stride, where stride = ⌊(1 - overlap)·L⌋, so the last ones
are shorter. Each answer is weighted with a triangle (1 in the middle), and overlapping answers are averaged:

    out[t] = Σᵢ w[t - i·stride]·answerᵢ[t - i·stride]  /  Σᵢ w[t - i·stride]

       |--------L--------|
       |--stride--|--------L--------|
       |  final   |--stride--|----- ...       no later segment reaches `final`, so it is given out at once,
                                              and no more than one segment is held (of a batch, what reaches beyond it).

Some models take windows of one length only: a shorter segment then lies in the middle of such a window, with the song's
own frames around it and, beyond the song's ends, zeros of the *normalised* song: (x - mean) / std, both of the whole
song's mono mean, as in `demucs.api.Separator`.

Pure: tensors in, tensors out; the model is an argument. Shapes: `[B, C, T]` into the model, `[B, N, C, T]` out of it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

Read = Callable[[int, int], Tensor]
"""Frames `start` to `stop` of a song, `[C, stop - start]`; frames outside the song are zero."""

Forward = Callable[[Tensor], Tensor]
"""A model: windows of the normalised song `[B, C, T]` to N sounds of each, `[B, N, C, T]`."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """The mean of a song and its standard deviation, which is never zero."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How a song is cut: `segment` and `stride` in frames; `valid(length)` is the window for a segment of that length."""

    segment: int
    stride: int
    valid: Callable[[int], int]

    def count(self, frames: int) -> int:
        """The number of segments of a song."""
        return -(-frames // self.stride)


def measure(blocks: Iterable[Tensor]) -> Level:
    """The level of a song's mono mean, from its blocks `[C, T]`; silence and a single frame have the std 1e-8.

    Blocks are merged by Chan's formula in float64: M₂ = M₂ᵃ + M₂ᵇ + δ²·nᵃnᵇ/n, where M₂ is the sum of squared deviations.
    """
    count, mean, squares = 0, 0.0, 0.0
    for block in blocks:
        mono = torch.add(block[0], block[-1]).mul_(0.5) if len(block) <= 2 else block.mean(0)
        size, middle = len(mono), float(mono.mean())
        mono -= middle
        delta = middle - mean
        squares += float(torch.dot(mono, mono)) + delta**2 * count * size / (count + size)
        count += size
        mean += delta * size / count
    return Level(mean=mean, std=math.sqrt(squares / max(count - 1, 1)) + 1e-8)


def normalised(read: Read, frames: int, level: Level) -> Read:
    """The song normalised by `level`; frames outside it are zero before and after."""

    def inside(start: int, stop: int) -> Tensor:
        heard = read(start, stop)
        # A song's channels lie side by side: with them apart from here on, all that follows is several times faster.
        block = torch.sub(heard, level.mean, out=torch.empty(heard.shape, device=heard.device)).div_(level.std)
        block[..., : max(-start, 0)] = 0
        block[..., max(frames - start, 0) :] = 0
        return block

    return inside


def delayed(read: Read, frames: int) -> Read:
    """The same song after `frames` of silence."""
    return lambda start, stop: read(start - frames, stop - frames)


def triangle(length: int) -> Tensor:
    """The weights of a segment, `[length]`: rising from 1/h to 1 in the middle, and falling again (`demucs.apply`)."""
    half = length // 2
    weight = torch.cat([torch.arange(1, half + 1), torch.arange(length - half, 0, -1)])
    return weight / weight.max()


def window(offset: int, length: int, valid: int) -> tuple[int, int]:
    """Start and stop of the window of `valid` frames with a segment in its middle; an odd frame goes to the right."""
    start = offset - (valid - length) // 2
    return start, start + valid


def trim_centre(block: Tensor, length: int) -> Tensor:
    """The middle `length` frames of `[..., T]`: the segment within its window."""
    start = (block.shape[-1] - length) // 2
    return block[..., start : start + length]


def answers(forward: Forward, read: Read, frames: int, grid: Grid, batch: int = 1) -> Iterator[Tensor]:
    """The model's answers to a song of `frames`, `[<= batch, N, C, segment]`: one for each multiple of the stride.

    Windows of one length go through the model together, the short last segments of a model of one length too. An answer
    that the song's end cuts short is zero behind it.
    """
    segments = ((offset, min(grid.segment, frames - offset)) for offset in range(0, frames, grid.stride))
    for valid, alike in groupby(segments, key=lambda segment: grid.valid(segment[1])):
        while some := list(islice(alike, batch)):
            if some[-1][1] == grid.segment:
                start, _ = window(some[0][0], grid.segment, valid)
                heard = read(start, start + (len(some) - 1) * grid.stride + valid)
                yield trim_centre(forward(heard.unfold(-1, valid, grid.stride).transpose(0, 1)), grid.segment)
                continue
            answer = forward(torch.stack([read(*window(offset, length, valid)) for offset, length in some]))
            parts = [trim_centre(each, length) for each, (_, length) in zip(answer, some, strict=True)]
            yield torch.stack([torch.nn.functional.pad(part, (0, grid.segment - part.shape[-1])) for part in parts])


def overlap_add(answers: Iterable[Tensor], grid: Grid) -> Iterator[Tensor]:
    """The weighted mean of overlapping answers `[B, N, C, segment]`, in blocks `[N, C, B·stride]` as they become final.

    A segment is `reach` rows of a stride; row j of answer i is added to row i + j of the sums, for all answers at once. The
    weights of all segments that reach a frame add up to the same in each row but the first ones, so answers are weighted
    with their share of that, and only those rows are divided. What is given out is overwritten as soon as the next block is
    asked for.
    """
    reach = -(-grid.segment // grid.stride)
    weights = torch.nn.functional.pad(triangle(grid.segment), (0, reach * grid.stride - grid.segment))
    weights = weights.view(reach, grid.stride)
    missing = weights.cumsum(0) / weights.sum(0)
    shares = weights / weights.sum(0)
    sums, number = torch.zeros(0), 0
    for batch in answers:
        size = len(batch)
        if not number:  # no later batch is larger than the first
            shares, missing = shares.to(batch.device), missing.to(batch.device)
            sums = batch.new_zeros(size + reach - 1, *batch.shape[1:3], grid.stride)
        *parts, last = batch.split(grid.stride, -1)  # type: ignore[no-untyped-call]
        new = sums[reach - 1 : reach - 1 + size]
        torch.mul(last, shares[-1, : last.shape[-1]], out=new[..., : last.shape[-1]])
        new[..., last.shape[-1] :] = 0
        for j, part in enumerate(parts):
            sums[j : j + size].addcmul_(part, shares[j])
        for row in range(number, min(number + size, reach - 1)):
            sums[row - number] /= missing[row]
        yield sums[:size].movedim(0, 2).flatten(2)
        for row in range(reach - 1):  # in this order nothing is overwritten before it is moved
            sums[row] = sums[size + row]
        number += size


def cut(blocks: Iterable[Tensor], start: int, stop: int) -> Iterator[Tensor]:
    """Frames `start` to `stop` of a stream `[..., T]`."""
    at = 0
    for block in blocks:
        inside = block[..., max(0, start - at) : max(0, stop - at)]
        at += block.shape[-1]
        if inside.shape[-1]:
            yield inside


def reblock(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same stream `[..., T]` in blocks of exactly `size` frames; the last may be shorter."""
    held: list[Tensor] = []
    for block in blocks:
        held.append(block.clone())  # what comes may be overwritten by what comes next
        if sum(part.shape[-1] for part in held) < size:
            continue
        whole = torch.cat(held, -1)
        full = whole.shape[-1] // size * size
        yield from whole[..., :full].split(size, -1)  # type: ignore[no-untyped-call]
        held = [whole[..., full:]]
    rest = torch.cat(held, -1) if held else torch.zeros(0)
    if rest.shape[-1]:
        yield rest


def grid_of(member: Any, overlap: float) -> Grid:
    """How `demucs.apply.apply_model` cuts a song for this member of a bag."""
    segment = int(member.samplerate * member.segment)
    valid = getattr(member, "valid_length", lambda length: length)
    return Grid(segment=segment, stride=int((1 - overlap) * segment), valid=valid)
