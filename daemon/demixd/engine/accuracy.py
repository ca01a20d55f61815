"""How accurate and how fast a network is, on one fixed segment of noise and tones, compared with float32 eager.

    error = |answer - reference| / |reference|      Euclidean norms over all stems, channels and frames

A network in half precision may be off by 1e-2 (40 dB below the stems). One in float32 may be off by 3e-5 (90 dB), since
the engine promises 80 dB against Demucs.
"""

import time
from statistics import median

import msgspec
import torch
from torch import Tensor

from demixd.engine import device as devices
from demixd.engine.networks import Network, never
from demixd.errors import AudioProcessingError, Code

LIMIT = {"float32": 3e-5, "float16": 1e-2, "bfloat16": 1e-2}
"""The largest relative error allowed in each precision."""

SOFTEST = 0.9
"""The level of the last copy in a batch. What a network takes from a neighbour is heard, and what it adds to levels is not."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """`error` relative to the reference, `seconds` for one segment; `fault`: why the network may not be used, or None."""

    error: float
    seconds: float
    fault: str | None


def noise_and_tones(channels: int, length: int) -> Tensor:
    """The test segment `[1, C, length]`: seeded noise and two tones, at about the level of a normalised song."""
    generator = torch.Generator().manual_seed(0)
    tones = torch.sin(torch.arange(length) * torch.tensor([[0.03], [0.19]])).sum(0)
    noise = torch.randn(channels, length, generator=generator)
    return (0.1 * noise + 0.3 * tones)[None]


def reference(network: Network, segment: Tensor, name: str) -> Tensor:
    """The stems `[1, S, C, T]` that float32 eager makes of the segment `[1, C, T]`.

    Raises `AudioProcessingError` (BAD_MODEL) where they are silent or not finite: the model `name` is unusable.
    """
    answer = network(segment, never)
    if not torch.isfinite(answer).all() or not answer.any():
        message = f"The model {name} gives no usable sound on {segment.device}; fetch it again."
        raise AudioProcessingError(Code.BAD_MODEL, message)
    return answer


def measure(network: Network, segment: Tensor, expected: Tensor, *, runs: int = 1, batch: int = 1) -> Measurement:
    """Run the network `runs` times on a segment `[1, C, T]` of which `expected` `[1, S, C, T]` is the reference.

    In a `batch` each copy is a little softer than the one before, and so have its stems to be: Demucs brings every window
    to one level first. The largest error and the median time count. Raises the RuntimeErrors of the device.
    """
    seconds, error = [], 0.0
    levels = torch.linspace(1, SOFTEST, batch, device=segment.device)[:, None, None]
    windows, expected = segment * levels, expected * levels[..., None]
    for _ in range(runs):
        devices.wait_for(segment.device)
        began = time.perf_counter()
        answer = network(windows, never)
        devices.wait_for(segment.device)
        seconds.append((time.perf_counter() - began) / batch)
        found = float((answer - expected).norm() / expected.norm())
        error = max(error, found) if found == found else float("inf")
    fault = None
    if error > LIMIT[network.precision]:
        fault = (
            f"{network.precision} by {network.runtime} is off by {error:.2g} of the sound on the test segment "
            f"({LIMIT[network.precision]:.0e} is allowed)"
        )
    return Measurement(error=error, seconds=median(seconds), fault=fault)
