"""Networks: a member of a bag made ready to run on a device, in a precision, by a runtime.

All have the same inputs and outputs, so that one can take another's place. float32 eager is the reference for accuracy,
and the fallback.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from demixd.engine.families.demucs_core import (
    Core,
    Mix,
    bare,
    can_split,
    keep_positions,
    mixed,
    put_together,
    take_apart,
)

Check = Callable[[], None]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Network(Protocol):
    runtime: str
    """`torch`, `torch-compiled` or `openvino`."""
    precision: str
    """`float32`, `float16` or `bfloat16`."""

    def __call__(self, windows: Tensor, check: Check, mix: Mix | None = None) -> Tensor:
        """Windows `[B, C, T]` to stems `[B, S, C, T]`, or to the N sums of them that `mix` says; float32, on the engine's device.

        `check` is called often meanwhile; what it raises ends the call, and the network can be used again.
        """
        ...


class Eager:
    """The member itself in torch, in float32."""

    runtime, precision = "torch", "float32"

    def __init__(self, member: Any, device: torch.device) -> None:
        self.member = member.to(device).eval()
        keep_positions(self.member)
        self._check: Check = never
        _hook(self.member, lambda: self._check())

    def __call__(self, windows: Tensor, check: Check, mix: Mix | None = None) -> Tensor:
        self._check = check
        try:
            with torch.inference_mode():
                stems: Tensor = self.member(windows)
                return stems if mix is None else mixed(stems, mix)
        finally:
            self._check = never


class Reduced:
    """The member's core in torch in half precision; its transforms in float32."""

    runtime = "torch"

    def __init__(self, member: Any, device: torch.device, precision: str) -> None:
        if not can_split(member):
            raise ValueError(f"{type(member).__name__} has no core that could run in {precision}")
        self.precision = precision
        self.member = member
        self.dtype = DTYPES[precision]
        self._check: Check = never
        self.core = Core(bare(member).to(device, self.dtype).eval())
        _hook(self.core, lambda: self._check())
        _cast(self.core, self.dtype)

    def __call__(self, windows: Tensor, check: Check, mix: Mix | None = None) -> Tensor:
        self._check = check
        try:
            with torch.inference_mode():
                spectrogram = take_apart(self.member, windows)
                spectrograms, waves = self.core(spectrogram.to(self.dtype), windows.to(self.dtype))
                return put_together(self.member, spectrograms, waves, mix)
        finally:
            self._check = never


def never() -> None:
    """A check that never stops anything."""


def _hook(network: nn.Module, check: Check) -> None:
    """Call `check` before every layer: a segment of a large model takes seconds on a CPU, and a cancel less than one."""
    for module in network.modules():
        module._forward_pre_hooks.clear()  # a copied module has the hooks of the original
    for module in network.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for layer in module:
                layer.register_forward_pre_hook(lambda *_: check())


def _cast(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast the inputs of every layer with weights: Demucs adds position embeddings in float32, which would spread from there."""

    def cast(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            each.to(dtype) if isinstance(each, Tensor) and each.is_floating_point() else each for each in inputs
        )

    for module in network.modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(cast)
