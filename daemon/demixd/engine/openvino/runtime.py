"""The only module that calls OpenVINO: it saves a member's core, compiles it for a processor or Intel's graphics, runs it.

    windows --take_apart (torch)--> Compiled._infer (OpenVINO) --put_together (torch)--> stems

Windows go through one by one: batches are slower per window on CPUs. OpenVINO reads and writes the tensors in place. It
runs asynchronously, so that a stop is noticed within WAIT_MS; an inference can be cancelled between two layers, and the
request is used again.
"""

import contextlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demixd.engine.families.demucs_core import Mix, put_together, take_apart
from demixd.engine.networks import Check, Eager

HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}

WAIT_MS = 10
"""How often `check` is called, in milliseconds."""


@cache
def _library() -> Any:
    # With the package openvino_telemetry, `import openvino` alone reports to its maker over the network.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: importing it fails
    import openvino

    return openvino


@cache
def _core() -> Any:
    return _library().Core()


def has_device(target: str) -> bool:
    """Whether OpenVINO finds a device of the kind `CPU` or `GPU` (which it may call `GPU.0`, `GPU.1` ...)."""
    return any(name.partition(".")[0] == target for name in _core().available_devices)


def save(traced: Any, shapes: list[list[int]], path: Path) -> None:
    """Save the result of `torch.jit.trace` at `path`, in float32 and for inputs of exactly these shapes."""
    model = _library().convert_model(traced, input=shapes)
    _library().save_model(model, path, compress_to_fp16=False)


class Compiled:
    """A member whose core is run by OpenVINO.

    Windows of another length than the converted one go to `eager`: HDemucs takes shorter ones at the ends of songs.
    """

    runtime = "openvino"

    def __init__(self, eager: Eager, compiled: Any, precision: str) -> None:
        self.precision = precision
        self._eager = eager
        self._request = compiled.create_infer_request()
        self._length = compiled.input(1).shape[2]

    @classmethod
    def load(cls, eager: Eager, path: Path, *, target: str, precision: str, threads: int, cache: Path) -> "Compiled":
        """Compile the core saved at `path`. Raises `ValueError` with the reason where OpenVINO cannot."""
        how: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "CACHE_DIR": str(cache),
        }
        if target == "CPU":
            how["INFERENCE_NUM_THREADS"] = threads
        try:
            return cls(eager, _core().compile_model(path, target, how), precision)
        except RuntimeError as error:
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "it does not say why")
            raise ValueError(f"OpenVINO cannot use {path} on {target} ({reason.strip()})") from error

    def __call__(self, windows: Tensor, check: Check, mix: Mix | None = None) -> Tensor:
        if windows.shape[-1] != self._length:
            return self._eager(windows, check, mix)
        with torch.inference_mode():
            stems = [self._one(windows[i : i + 1], check, mix) for i in range(len(windows))]
            return torch.cat(stems) if len(stems) > 1 else stems[0]

    def _one(self, window: Tensor, check: Check, mix: Mix | None) -> Tensor:
        """A window `[1, C, T]` to stems `[1, S, C, T]`, or to sums of them."""
        check()
        spectrogram = take_apart(self._eager.member, window)
        spectrograms, waves = self._infer([spectrogram, window], check)
        return put_together(self._eager.member, spectrograms, waves, mix)

    def _infer(self, tensors: list[Tensor], check: Check) -> list[Tensor]:
        """The core's outputs, which are views of OpenVINO's own memory and change with the next call."""
        request = self._request
        inputs = [tensor.contiguous().numpy() for tensor in tensors]
        for place, array in enumerate(inputs):
            request.set_input_tensor(place, _library().Tensor(array, shared_memory=True))
        request.start_async()
        try:
            while not request.wait_for(WAIT_MS):
                check()
        except BaseException:
            request.cancel()
            with contextlib.suppress(RuntimeError):  # that it was cancelled
                request.wait()
            raise
        return [torch.from_numpy(request.get_output_tensor(place).data) for place in range(2)]
