"""A hybrid Demucs cut in three: the STFT, the core, and the inverse STFT. Any runtime and precision can run the core.

    windows --_spec, _magnitude--> spectrogram --+-- Core --+--> spectrograms --_mask, _ispec--+--> stems
          \\______________________________________|          |__> waves _________________________|

The transforms stay in torch and float32: there is no fast bfloat16 FFT, and they take a twentieth of the time. The core
is Demucs' own `forward`, with the four methods that call the transforms replaced; nothing of the network is copied here.
"""

import copy
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from torch import Tensor, nn

Mix = list[list[float]]
"""Of each of N sums of stems, the weight of each of S stems."""


def can_split(member: nn.Module) -> bool:
    """Whether a member has two branches and complex numbers as channels, as all that Demucs publishes since v3."""
    return isinstance(member, HTDemucs | HDemucs) and member.cac and getattr(member, "hybrid", True)


def bare(member: Any) -> Any:
    """A deep copy of a member, without hooks."""
    twin = copy.deepcopy(member)
    for module in twin.modules():
        module._forward_pre_hooks.clear()
    return twin


def keep_positions(member: Any) -> None:
    """Have a member make its position embeddings once for a shape.

    Demucs makes those of its spectrograms on the CPU for every batch, and copies them to the GPU, which waits for them.
    """
    transformer = getattr(member, "crosstransformer", None)
    if transformer is None:
        return
    forward = type(transformer).forward
    make = forward.__globals__["create_2d_sin_embedding"]

    @cache
    def made(*shape: Any) -> Tensor:
        with torch.inference_mode(mode=False), torch.no_grad():
            positions: Tensor = make(*shape)
            return positions

    scope = {**forward.__globals__, "create_2d_sin_embedding": made}
    transformer.forward = MethodType(FunctionType(forward.__code__, scope), transformer)


class Core(nn.Module):
    """A member between its transforms. The member is changed, and gives no waves by itself any more."""

    def __init__(self, member: Any) -> None:
        super().__init__()
        self.member = member
        keep_positions(member)
        member._spec = lambda _: None
        member._magnitude = lambda _: self._heard
        member._mask = lambda _, spectrograms: spectrograms
        member._ispec = self._keep
        self._heard: Any = None
        self._kept: Any = None

    def _keep(self, spectrograms: Tensor, _length: int) -> Tensor:
        self._kept = spectrograms
        return spectrograms.new_zeros(())

    def forward(self, spectrogram: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 2C, F, N]` and `[B, C, T]` to spectrograms `[B, S, 2C, F, N]` and waves `[B, S, C, T]`."""
        self._heard = spectrogram
        waves = self.member(windows)
        spectrograms, self._heard, self._kept = self._kept, None, None
        return spectrograms, waves


def take_apart(member: Any, windows: Tensor) -> Tensor:
    """The core's spectrogram `[B, 2C, F, N]` of float32 windows `[B, C, T]`."""
    spectrogram: Tensor = member._magnitude(member._spec(windows))
    return spectrogram


def put_together(member: Any, spectrograms: Tensor, waves: Tensor, mix: Mix | None = None) -> Tensor:
    """The core's spectrograms `[B, S, 2C, F, N]` and waves `[B, S, C, T]` to stems `[B, S, C, T]`, or sums of them, in float32.

    The inverse transform is linear: where fewer sums than stems are wanted, the spectrograms are added up before it.
    """
    spectrograms, waves = spectrograms.float(), waves.float()
    if mix is not None and len(mix) < waves.shape[1]:
        spectrograms, waves, mix = mixed(spectrograms, mix), mixed(waves, mix), None
    complex_ones = member._mask(None, spectrograms)
    stems: Tensor = waves + member._ispec(complex_ones, waves.shape[-1])
    return stems if mix is None else mixed(stems, mix)


def mixed(stems: Tensor, mix: Mix) -> Tensor:
    """Sums `[B, N, ...]` of stems `[B, S, ...]`, added up in the order of the stems."""
    sums = stems.new_empty(len(stems), len(mix), *stems.shape[2:])
    parts = stems.unbind(1)
    for row, total in zip(mix, sums.unbind(1), strict=True):
        first, *others = [(part, weight) for part, weight in zip(parts, row, strict=True) if weight] or [
            (parts[0], 0.0)
        ]
        torch.mul(*first, out=total)
        for part, weight in others:
            total.add_(part, alpha=weight)
    return sums
