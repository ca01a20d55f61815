"""Changing a song's rate to the model's and back, block by block, as one call for the whole song would; for files: ffmpeg/rates.

Let the rates be old and new, in lowest terms. Frames fall into groups: each `old` frames in make `new` frames out, with
the same filters for every group, so a cut between groups changes nothing as long as each side sees enough of the
other. torchaudio's windowed sinc ends at its 6th zero crossing, at 0.99 of the lower rate; counted in frames of the song

    reach = ⌈6·old / (0.99·min(old, new))⌉

and a block, of about `BLOCK` frames, is converted with that much around it, rounded up to whole groups:

    ... |context|          block          |context| ...     in:  multiples of old
                |          kept           |                 out: multiples of new

Beyond the song's ends there is silence. T frames become exactly ⌈T·new/old⌉; torchaudio counts frames in float32, and
above 2²⁴ of them is off by one or more.
"""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import torch
from torch import Tensor
from torchaudio.functional import resample as convert

from demixd.audio.pcm import BLOCK

MAX_TERM = 1500
"""The largest term of a ratio: see `model_ratio`. 384000 : 44100 = 1280 : 147 is exact."""


def model_ratio(song_rate: int, model_rate: int) -> Fraction:
    """How many frames the model gets for each frame of the song.

    torchaudio's filters are a dense table of new·(old + 2·reach) numbers: 44101 to 44100 Hz would need 15 GB. For such
    rates the nearest ratio with terms up to MAX_TERM is used: the model gets the song at most 0.1 % sharp or flat, and
    its answer is converted by the inverse of the same ratio, which undoes that exactly.
    """
    ratio = Fraction(model_rate, song_rate)
    if ratio > 1:
        return 1 / (1 / ratio).limit_denominator(MAX_TERM)
    return ratio.limit_denominator(MAX_TERM)


def resample(blocks: Iterable[Tensor], ratio: Fraction) -> Iterator[Tensor]:
    """A song's blocks `[..., T]` at `ratio` times its rate: together `[..., ⌈T·ratio⌉]`, aligned at the first frame."""
    if ratio == 1:
        yield from blocks
        return
    new, old = ratio.as_integer_ratio()
    context = old * math.ceil(math.ceil(6 * old / (0.99 * min(old, new))) / old)
    size = old * max(1, BLOCK // old)
    held, taken, given = None, 0, 0
    for block in blocks:
        taken += block.shape[-1]
        held = _silent(block, context) if held is None else held
        held = torch.cat([held, block], -1)
        while held.shape[-1] >= size + 2 * context:
            yield _middle(held[..., : size + 2 * context], old, new, context)
            held = held[..., size:]
            given += size // old * new
    while held is not None and (left := math.ceil(taken * ratio) - given) > 0:
        held = torch.cat([held, _silent(held, size + 2 * context)], -1)
        yield _middle(held[..., : size + 2 * context], old, new, context)[..., :left]
        held = held[..., size : held.shape[-1] - size - 2 * context]
        given += size // old * new


def _middle(block: Tensor, old: int, new: int, context: int) -> Tensor:
    """One block at the new rate, without the `context` frames on both sides."""
    first = context // old * new
    made = convert(block.contiguous(), old, new)
    return made[..., first : made.shape[-1] - first]


def _silent(like: Tensor, frames: int) -> Tensor:
    return like.new_zeros(*like.shape[:-1], frames)
