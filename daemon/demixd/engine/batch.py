"""Precision and batch, by speed: how many segments a GPU computes at once. A GPU's name tells neither memory nor speed.

For each precision that is accurate enough the batch is doubled as long as

    1. the next size fits: its memory is extrapolated from the last two sizes, and a share of the free memory stays free,
    2. it is so short that a cancel need not wait long for its end; its seconds are extrapolated in the same way,
    3. one of the last two sizes was faster than all before them: the time of a segment can stand still from 8 to 16, and
       fall again at 32 (float16 on an H200),
    4. the trials have not taken too long.
"""

import time
from collections.abc import Callable, Mapping

import msgspec
import torch

from demixd.engine import device as devices
from demixd.engine.networks import Network, never

LARGEST = 64
SHARE = 0.7
"""The share of the free memory that a batch may take: the accumulators, cuFFT's plans and other programs need the rest."""
FASTER = 0.97
"""A larger batch, or a later precision, has to need less than this share of the time a segment."""
LONGEST_S = 0.5
"""A batch cannot be stopped on a GPU, and a cancel must not take a second."""
TRIALS_S = 3.0
"""No trial of a precision begins after its trials have taken so long: a warm-up is waited for."""
PATIENCE = 2
"""After so many sizes in a row that were not faster no larger one is tried."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a batch: its seconds, and the peak of its memory in bytes above what was allocated before."""

    seconds: float
    bytes: int


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    precision: str
    batch: int
    seconds: float
    """For one segment of the batch."""


def choose(trials: Mapping[str, Callable[[int], Trial]], free: int) -> Choice:
    """The precision and the batch to use with `free` bytes of memory: of those that are fast enough, the smallest batch.

    `trials` are the precisions that may be used, preferred ones first; each runs a batch of a given size. A trial may raise
    `torch.OutOfMemoryError`, which ends the search in its precision; for size 1 it is passed on.
    """
    tried = [
        Choice(precision=precision, batch=size, seconds=trial.seconds / size)
        for precision, run in trials.items()
        for size, trial in sweep(run, free).items()
    ]
    limit = min(choice.seconds for choice in tried) / FASTER
    # `min` takes the first of equals, which is of the preferred precision.
    return min((choice for choice in tried if choice.seconds <= limit), key=lambda choice: choice.batch)


def sweep(run: Callable[[int], Trial], free: int) -> dict[int, Trial]:
    """The trials of 1, 2, 4 ... segments that may be used, within the limits of this module."""
    found = {1: run(1)}
    size, before, last = 1, Trial(seconds=0.0, bytes=0), found[1]
    fastest, plateau, spent = last.seconds, 0, 2 * last.seconds  # `trial_on` runs each size twice
    while size < LARGEST and plateau < PATIENCE and spent < TRIALS_S:
        growth = 1 if size == 1 else 2  # per doubling: from nothing to 1, then from half of it
        seconds = last.seconds + growth * (last.seconds - before.seconds)
        if seconds > LONGEST_S or last.bytes + growth * (last.bytes - before.bytes) > SHARE * free:
            break
        size, before = 2 * size, last
        try:
            last = run(size)
        except torch.OutOfMemoryError:
            break
        spent += 2 * last.seconds
        if last.seconds > LONGEST_S:
            break
        found[size] = last
        plateau = 0 if last.seconds / size < FASTER * fastest else plateau + 1
        fastest = min(fastest, last.seconds / size)
    return found


def trial_on(network: Network, segment: torch.Tensor) -> Callable[[int], Trial]:
    """A `trial` for `choose`: it runs `network` on copies of a segment `[1, C, T]`."""

    def trial(size: int) -> Trial:
        windows = segment.expand(size, -1, -1).contiguous()
        network(windows, never)  # the first run of a size looks for kernels and makes FFT plans
        devices.wait_for(segment.device)
        before = devices.reset_peak(segment.device)
        began = time.perf_counter()
        network(windows, never)
        devices.wait_for(segment.device)
        return Trial(seconds=time.perf_counter() - began, bytes=devices.peak_bytes(segment.device) - before)

    return trial
