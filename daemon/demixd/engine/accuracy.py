"""Proof that a network may be used: one fixed segment of noise and tones through it, against float32 eager.

    error = |answer - reference| / |reference|      Euclidean norms over all stems, channels and frames

Half precisions may err by 1e-2 (40 dB below the stems); what calls itself float32 has to be it, to the 80 dB that the
engine promises against Demucs, with some to spare.
"""

import time
from statistics import median

import msgspec
import torch
from torch import Tensor

from demixd.engine.networks import Check, Network, never
from demixd.errors import AudioProcessingError, Code

LIMIT = {"float32": 3e-5, "float16": 1e-2, "bfloat16": 1e-2}
"""The largest relative error of each precision."""

FASTER = 0.95
"""A network takes the place of another only if it needs less than this share of its time: clocks are not exact."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`fault` says in words why the network may not be used; None: it may. `seconds` is what one segment took it."""

    error: float
    seconds: float
    fault: str | None


def noise_and_tones(channels: int, length: int) -> Tensor:
    """`[1, C, length]` of seeded noise and two tones, at about the level of a normalised song."""
    generator = torch.Generator().manual_seed(0)
    tones = torch.sin(torch.arange(length) * torch.tensor([[0.03], [0.19]])).sum(0)
    noise = torch.randn(channels, length, generator=generator)
    return (0.1 * noise + 0.3 * tones)[None]


def reference(network: Network, segment: Tensor, name: str) -> Tensor:
    """What float32 eager answers. Raises `AudioProcessingError` (BAD_MODEL) where that is nothing useful."""
    answer = network(segment, never)
    if not torch.isfinite(answer).all() or not answer.any():
        message = f"The model {name} gives no usable sound on {segment.device}; fetch it again."
        raise AudioProcessingError(Code.BAD_MODEL, message)
    return answer


def prove(network: Network, segment: Tensor, expected: Tensor, *, runs: int = 1, check: Check = never) -> Verdict:
    """Run the network, and judge it. Errors of the device, and what `check` raises, come as they are."""
    seconds, error = [], 0.0
    for _ in range(runs):
        began = time.perf_counter()
        answer = network(segment, check)
        if segment.is_cuda:
            torch.cuda.synchronize(segment.device)
        seconds.append(time.perf_counter() - began)
        found = float((answer - expected).norm() / expected.norm())
        error = max(error, found) if found == found else float("inf")
    fault = None
    if error > LIMIT[network.precision]:
        fault = (
            f"{network.precision} by {network.runtime} is off by {error:.2g} of the sound on the test segment "
            f"({LIMIT[network.precision]:.0e} is allowed)"
        )
    return Verdict(error=error, seconds=median(seconds), fault=fault)
