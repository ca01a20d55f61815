"""The batch: how many segments a GPU computes at once. It is measured, since a GPU's name tells neither memory nor speed.

The batch is doubled as long as

    1. the next size fits: its memory is extrapolated from the last two sizes, and a share of the free memory stays free,
    2. it is faster: a segment takes at least 3 % less time than in a batch of half the size,
    3. a batch is so short that a cancel need not wait long for its end.
"""

import time
from collections.abc import Callable

import msgspec
import torch

from demixd.engine.networks import Network, never

LARGEST = 32
SHARE = 0.7
"""The share of the free memory that a batch may take: the accumulators, cuFFT's plans and other programs need the rest."""
FASTER = 0.97
"""A larger batch has to need less than this share of the time a segment."""
LONGEST_S = 0.5
"""A batch cannot be stopped on a GPU, and a cancel must not take a second."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a batch: its seconds, and the peak of its memory in bytes above what was allocated before."""

    seconds: float
    bytes: int


def choose(trial: Callable[[int], Trial], free: int) -> int:
    """The batch to use with `free` bytes of memory, at least 1; `trial` runs a batch of a given size.

    `trial` may raise `torch.OutOfMemoryError`, which ends the search; for size 1 it is passed on.
    """
    size, last = 1, trial(1)
    growth = last.bytes
    while size < LARGEST and last.bytes + growth * size <= SHARE * free:
        try:
            bigger = trial(2 * size)
        except torch.OutOfMemoryError:
            break
        if bigger.seconds > LONGEST_S or bigger.seconds / 2 > FASTER * last.seconds:
            break
        growth = (bigger.bytes - last.bytes) // size
        size, last = 2 * size, bigger
    return size


def trial_on(network: Network, segment: torch.Tensor) -> Callable[[int], Trial]:
    """A `trial` for `choose`: it runs `network` on copies of a segment `[1, C, T]` on a GPU."""

    def trial(size: int) -> Trial:
        device = segment.device
        windows = segment.expand(size, -1, -1).contiguous()
        network(windows, never)  # the first run of a size looks for kernels and makes FFT plans
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        network(windows, never)
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        peak = torch.cuda.max_memory_allocated(device) - before
        return Trial(seconds=seconds, bytes=peak)

    return trial
