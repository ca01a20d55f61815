"""How many segments a GPU does at once: measured, since neither its memory nor its speed can be known from its name.

The batch is doubled while

    1. the memory is there: what the next one needs is foretold from the last two, and a share stays free for others,
    2. it pays: a segment takes at least 3 % less time than in a batch of half the size,
    3. a cancel does not have to wait long for it.
"""

import time
from collections.abc import Callable

import msgspec
import torch

from demixd.engine.networks import Network, never

MOST = 32
SHARE = 0.7
"""Of the free memory, what a batch may take: the accumulators, cuFFT's plans and other programs need some too."""
PAYS = 0.97
LONGEST_S = 0.5
"""A batch cannot be stopped on a GPU, and a cancel has a second."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was run: `bytes` at its peak, above what was there before."""

    seconds: float
    bytes: int


def choose(trial: Callable[[int], Trial], free: int) -> int:
    """The batch to use, where `trial` runs one of a given size, and `free` bytes are there. Never less than 1.

    `trial` raises `torch.OutOfMemoryError` where the memory does not do, also for 1.
    """
    size, last = 1, trial(1)
    growth = last.bytes
    while size < MOST and last.bytes + growth * size <= SHARE * free:
        try:
            bigger = trial(2 * size)
        except torch.OutOfMemoryError:
            break
        if bigger.seconds > LONGEST_S or bigger.seconds / 2 > PAYS * last.seconds:
            break
        growth = (bigger.bytes - last.bytes) // size
        size, last = 2 * size, bigger
    return size


def trial_on(network: Network, segment: torch.Tensor) -> Callable[[int], Trial]:
    """Runs `network` on so many copies of a segment `[1, C, T]` that lies on a GPU."""

    def trial(size: int) -> Trial:
        device = segment.device
        windows = segment.expand(size, -1, -1).contiguous()
        network(windows, never)  # the first of a size looks for kernels and makes FFT plans
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
