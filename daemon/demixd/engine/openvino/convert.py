"""The program that converts a model for OpenVINO, `python -m demixd.engine.openvino.convert`.

    {"model": {"name": "demo", "models": "/tmp", "repo": null, "allow_pickle": false}, "sha256": "...", "folder": "/tmp/c"}

is its order (`cache.Conversion`), a line on standard input. Exit status 0: the conversion is there. 1: it could not be
made, for the reason in the last line on standard error.

It is a process of its own since it takes gigabytes: it ends with its parent, and is the first that the kernel ends where
memory runs out.
"""

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from demixd.engine import cache
from demixd.engine.cache import Conversion
from demixd.spool.child_process import end_with_parent, first_to_go

if TYPE_CHECKING:
    # torch takes seconds to import: the kernel is told first that we end with our parent.
    from demixd.engine.families.demucs import LoadedModel


def main() -> int:
    if not end_with_parent():
        return 1
    first_to_go()
    try:
        order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Conversion)
        loaded = _load(order)
        with cache.making(Path(order.folder), cache.key(loaded.sha256)) as folder:
            convert(loaded.model.models, folder)
    except Exception as error:  # noqa: BLE001 - the boundary: tracing and converting run whatever the model is made of
        sys.stderr.write(f"{' '.join(str(error).split())[:300] or type(error).__name__}\n")
        return 1
    return 0


def _load(order: Conversion) -> "LoadedModel":
    from demixd.engine.families.demucs import load

    loaded = load(order.model.locate(), allow_pickle=order.model.allow_pickle)
    if loaded.sha256 != order.sha256:
        raise ValueError(f"the model {order.model.name} has changed since it was loaded")
    return loaded


def convert(members: Any, folder: Path) -> None:
    """Save the core of each member in `folder`; the members cannot be used afterwards. `ValueError` where one has no core."""
    from demixd.engine.families.demucs_core import can_split

    for place, member in enumerate(members):
        if not can_split(member):
            raise ValueError(f"its member {place + 1} is a {type(member).__name__} without a core between transforms")
    for place, member in enumerate(members):
        if list(members).index(member) == place:  # a bag may name a member twice
            _convert(member, cache.core(folder, place))


def _convert(member: Any, path: Path) -> None:
    """Save a member's core at `path`.

    Tracing it first takes a quarter of the time and half of the memory of `openvino.convert_model(core)`.
    """
    import torch

    from demixd.engine.families.demucs_core import Core, take_apart
    from demixd.engine.openvino import runtime

    # Torch's fast path for attention is one operation, which OpenVINO does not have.
    torch.backends.mha.set_fastpath_enabled(False)
    length = int(member.samplerate * member.segment)
    valid = getattr(member, "valid_length", lambda length: length)
    window = torch.zeros(1, member.audio_channels, valid(length))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that comparisons of shapes become constants, which they may
        spectrogram = take_apart(member, window)
        core = Core(member).eval()
        for parameter in core.parameters():
            parameter.requires_grad_(False)
        traced = torch.jit.trace(core, (spectrogram, window), check_trace=False)  # type: ignore[no-untyped-call]
    runtime.save(traced, [list(spectrogram.shape), list(window.shape)], path)


if __name__ == "__main__":
    sys.exit(main())
