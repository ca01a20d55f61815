"""Converts a model for OpenVINO: `python -m demixd.engine.openvino.convert`, a process of its own, since it takes gigabytes.

    {"model": {"name": "demo", "models": "/tmp", "repo": null, "allow_pickle": false}, "sha256": "...", "folder": "/tmp/c"}

That line on standard input says what (`conversions.Conversion`). Exit status 0: it is there. 3: this model cannot be
converted, ever, and why is kept. Anything else: not now. The last line on standard error is the reason.

It ends with its parent, lets everyone else go first, and is the one to be killed where memory runs out.
"""

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from demixd.child_process import end_with_parent
from demixd.engine.openvino import cache
from demixd.engine.openvino.cache import Conversion
from demixd.errors import AudioProcessingError

if TYPE_CHECKING:
    # torch takes seconds to import: the kernel is told first that we end with our parent.
    from demixd.engine.families.demucs import LoadedModel

REFUSED_STATUS = 3


def main() -> int:
    if not end_with_parent():
        return 1
    os.nice(19)
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Conversion)
        loaded = _load(order)
    except (msgspec.DecodeError, AudioProcessingError, ValueError) as error:
        return _say(str(error), 1)
    root, key = Path(order.folder), cache.key(loaded.sha256)
    try:
        with cache.making(root, key) as folder:
            convert(loaded.model.models, folder)
    except (MemoryError, OSError, ImportError) as error:
        return _say(f"{order.model.name} cannot be converted here ({type(error).__name__}: {error})", 1)
    except Exception as error:  # noqa: BLE001 - tracing and converting run whatever the model is made of
        reason = f"{order.model.name} cannot be converted: {' '.join(str(error).split())[:300] or type(error).__name__}"
        if "memory" not in reason:  # torch has no exception of its own for it
            cache.refuse(root, key, reason)
            return _say(reason, REFUSED_STATUS)
        return _say(reason, 1)
    return 0


def _load(order: Conversion) -> "LoadedModel":
    from demixd.engine.families.demucs import load

    loaded = load(order.model.locate(), allow_pickle=order.model.allow_pickle)
    if loaded.sha256 != order.sha256:
        raise ValueError(f"the model {order.model.name} has changed since it was loaded")
    return loaded


def convert(members: Any, folder: Path) -> None:
    """Save the core of each member in `folder`. Takes the members over."""
    from demixd.engine.families.demucs_core import can_split

    for place, member in enumerate(members):
        if not can_split(member):
            raise ValueError(f"its member {place + 1} is a {type(member).__name__} without a core between transforms")
    for place, member in enumerate(members):
        if list(members).index(member) == place:  # a bag may name a member twice
            _convert(member, cache.core(folder, place))


def _convert(member: Any, path: Path) -> None:
    """Tracing first and converting that takes a quarter of the time and half of the memory of `convert_model(core)`."""
    import torch

    from demixd.engine.families.demucs_core import Core, take_apart
    from demixd.engine.openvino import runtime

    # Attention's fast path is one operation, for which OpenVINO has no counterpart.
    torch.backends.mha.set_fastpath_enabled(False)
    length = int(member.samplerate * member.segment)
    valid = getattr(member, "valid_length", lambda length: length)
    window = torch.zeros(1, member.audio_channels, valid(length))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every comparison of shapes becomes a constant, as it should
        spectrogram = take_apart(member, window)
        core = Core(member).eval()
        for parameter in core.parameters():
            parameter.requires_grad_(False)
        traced = torch.jit.trace(core, (spectrogram, window), check_trace=False)  # type: ignore[no-untyped-call]
    runtime.save(traced, [list(spectrogram.shape), list(window.shape)], path)


def _say(reason: str, status: int) -> int:
    sys.stderr.write(f"{reason}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
