"""A hybrid Demucs cut in three: the STFT, everything between, and the inverse. What is between can be run by anything.

    windows --_spec, _magnitude--> spectrogram --+-- Core --+--> spectrograms --_mask, _ispec--+--> stems
          \\______________________________________|          |__> waves _________________________|

The transforms stay in float32: FFTs have no fast bfloat16 and cost a twentieth. The core is Demucs' own `forward` with
its four doors to the transforms exchanged, so that nothing of the network is written down twice.
"""

import copy
from typing import Any

from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from torch import Tensor, nn


def can_split(member: nn.Module) -> bool:
    """Whether a member has the two branches, and complex numbers as channels: all that Demucs publishes since v3."""
    return isinstance(member, HTDemucs | HDemucs) and member.cac and getattr(member, "hybrid", True)


def bare(member: Any) -> Any:
    """A copy of a member with weights of its own, and no hooks."""
    twin = copy.deepcopy(member)
    for module in twin.modules():
        module._forward_pre_hooks.clear()
    return twin


class Core(nn.Module):
    """A member between its transforms. It takes the member over, which answers no waves itself any more."""

    def __init__(self, member: Any) -> None:
        super().__init__()
        self.member = member
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
    """The spectrogram `[B, 2C, F, N]` of float32 windows `[B, C, T]`, as the core wants it."""
    spectrogram: Tensor = member._magnitude(member._spec(windows))
    return spectrogram


def put_together(member: Any, spectrograms: Tensor, waves: Tensor) -> Tensor:
    """What the core made, to stems `[B, S, C, T]` in float32."""
    complex_ones = member._mask(None, spectrograms.float())
    stems: Tensor = waves.float() + member._ispec(complex_ones, waves.shape[-1])
    return stems
