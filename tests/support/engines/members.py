"""A model's files as Demucs publishes them, with random weights."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml
from demucs.htdemucs import HTDemucs
from safetensors.torch import save

SIG = "955717e8"


REPO = "adefossez/HTDemucs"


STEMS = ["drums", "bass", "other", "vocals"]


SMALL: dict[str, Any] = {
    "sources": STEMS,
    "channels": 8,
    "depth": 4,
    "bottom_channels": 16,
    "t_layers": 1,
    "t_heads": 2,
    "segment": Fraction(39, 10),
}


def encoded(value: object) -> object:
    if isinstance(value, Fraction):
        return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
    raise TypeError(value)


def packed(module: torch.nn.Module, arguments: dict[str, Any], /, **metadata: str) -> bytes:
    """A member as Demucs publishes it, or with other metadata."""
    klass = type(module)
    facts = {
        "klass": f"{klass.__module__}.{klass.__qualname__}",
        "args": "[]",
        "kwargs": json.dumps(arguments, default=encoded),
    }
    state = {name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}
    return save(state, facts | metadata)


def random_module(seed: int, **changes: Any) -> HTDemucs:
    torch.manual_seed(seed)
    module: HTDemucs = HTDemucs(**(SMALL | changes))
    return module


def put(folder: Path, name: str, members: dict[str, bytes], **bag: Any) -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"models": list(members)} | bag))
    for sig, data in members.items():
        (folder / f"{sig}.safetensors").write_bytes(data)
