"""OpenVINO's only door: the core of a member, saved, compiled for this processor or Intel's graphics, and run.

    windows --take_apart (torch)--> Compiled._infer (OpenVINO) --put_together (torch)--> stems

One window at a time: batches are slower per window on CPUs. Nothing is copied on the way in or out; OpenVINO reads and
writes tensors where they lie. It waits in short turns, so that a stop is heard, and an inference can be given up
between two layers: it is good for the next one then.
"""

import contextlib
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demixd.engine.families.demucs_core import put_together, take_apart
from demixd.engine.networks import Check, Eager

HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}

WAIT_MS = 10
"""How often `check` is called."""


@cache
def _library() -> Any:
    # With this package beside it, OpenVINO reports its use to its maker over the network, from `import openvino` on.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: importing it fails
    import openvino

    return openvino


@cache
def _core() -> Any:
    return _library().Core()


def version() -> str | None:
    """Nothing is imported for this."""
    try:
        return version_of("openvino")
    except PackageNotFoundError:
        return None


def is_installed() -> bool:
    return version() is not None


def has_device(target: str) -> bool:
    """Whether there is a `CPU` or `GPU` that OpenVINO can use; several are `GPU.0`, `GPU.1` ..."""
    return any(name.partition(".")[0] == target for name in _core().available_devices)


def save(traced: Any, shapes: list[list[int]], path: Path) -> None:
    """Convert what `torch.jit.trace` made, for inputs of exactly these shapes, and save it in float32."""
    model = _library().convert_model(traced, input=shapes)
    _library().save_model(model, path, compress_to_fp16=False)


class Compiled:
    """A member whose core OpenVINO runs. Other lengths than it was converted for are left to `eager`.

    Those are the ends of songs, where the member takes them as they are: HTDemucs does not, HDemucs does.
    """

    runtime = "openvino"

    def __init__(self, eager: Eager, compiled: Any, precision: str) -> None:
        self.precision = precision
        self._eager = eager
        self._request = compiled.create_infer_request()
        self._length = compiled.input(1).shape[2]

    @classmethod
    def load(cls, eager: Eager, path: Path, *, target: str, precision: str, threads: int, cache: Path) -> "Compiled":
        """Compile the core saved at `path`. `ValueError` says why that is not possible."""
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

    def __call__(self, windows: Tensor, check: Check) -> Tensor:
        if windows.shape[-1] != self._length:
            return self._eager(windows, check)
        with torch.inference_mode():
            stems = [self._one(windows[i : i + 1], check) for i in range(len(windows))]
            return torch.cat(stems) if len(stems) > 1 else stems[0]

    def _one(self, window: Tensor, check: Check) -> Tensor:
        """A window `[1, C, T]` to stems `[1, S, C, T]`."""
        check()
        spectrogram = take_apart(self._eager.member, window)
        spectrograms, waves = self._infer([spectrogram, window], check)
        return put_together(self._eager.member, spectrograms, waves)

    def _infer(self, tensors: list[Tensor], check: Check) -> list[Tensor]:
        """What the core makes of its inputs: views of OpenVINO's own memory, good until the next call."""
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
