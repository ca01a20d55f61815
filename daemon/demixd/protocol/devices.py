"""The names of devices in `[model] device`: one, or one for each worker. Pure."""

import re
from typing import Annotated

from msgspec import Meta

from demixd.protocol.typed import shown

_NAME = re.compile(r"auto|cpu|cuda(:[0-9]{1,4})?|openvino:GPU")
_WORDS = "auto, cpu, cuda, cuda:N or openvino:GPU"

# The form of a name is checked by `check`: msgspec 0.22 frees a pattern twice that is in both types of a union.
Devices = (
    Annotated[str, Meta(title=_WORDS)] | Annotated[tuple[str, ...], Meta(min_length=1, max_length=64, title="a list")]
)


def all_of(device: str | tuple[str, ...]) -> tuple[str, ...]:
    """The devices of all workers, in order."""
    return (device,) if isinstance(device, str) else device


def check(device: str | tuple[str, ...]) -> None:
    """Raise ValueError where a name is none."""
    if wrong := [each for each in all_of(device) if not _NAME.fullmatch(each)]:
        raise ValueError(f"device = {shown(wrong[0])}: it must be {_WORDS}, or a list of these, one for each worker")
