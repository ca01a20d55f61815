"""The model's folder on disk, in the layout of Demucs' Hugging Face repositories (`demucs.hf`, `tools/export_hf.py`).

    demo.yaml           the bag: models: ['SIG']
    SIG.safetensors     weights in half precision; metadata: klass, args and kwargs as JSON
    training.pt         only while training: what it takes to go on

SIG is the first 8 hex digits of the sha256 of the tensors' data in the order of their names, so different weights never
share a name, and a bag never points to weights other than those it was written for.
"""

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml
from demucs.apply import BagOfModels
from demucs.hf import load_safetensors_model
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

BAG = "demo.yaml"
TRAINING = "training.pt"

SOURCES = ["drums", "bass", "other", "vocals"]
ARCHITECTURE: dict[str, Any] = {
    "sources": SOURCES,
    "channels": 16,
    "growth": 2,
    "depth": 4,
    "nfft": 4096,
    "cac": True,
    "dconv_mode": 3,
    "t_layers": 1,
    "t_heads": 4,
    "bottom_channels": 64,
    "segment": Fraction(39, 10),
    "use_train_segment": True,
    "samplerate": 44100,
}
"""Keyword arguments of HTDemucs: htdemucs in small, 1.2 M parameters in place of 42 M, half its segment in seconds."""


def publish(weights: dict[str, torch.Tensor], folder: Path) -> Path:
    """Put weights into `folder` as the demo model, which they are once the bag is renamed; remove the ones before."""
    half = {name: tensor.detach().half().contiguous() for name, tensor in sorted(weights.items())}
    digest = hashlib.sha256()
    for tensor in half.values():
        digest.update(tensor.numpy().tobytes())
    target = folder / f"{digest.hexdigest()[:8]}.safetensors"
    metadata = {
        "klass": f"{HTDemucs.__module__}.{HTDemucs.__qualname__}",
        "args": json.dumps([]),
        "kwargs": json.dumps(ARCHITECTURE, default=_encode_fraction),
    }
    part = folder / f".{target.name}.part"
    save_file(half, part, metadata)
    part.chmod(0o644)  # save_file makes it private; the service runs as another user
    part.rename(target)
    part = folder / f".{BAG}.part"
    part.write_text(yaml.safe_dump({"models": [target.stem]}), encoding="utf-8")
    part.rename(folder / BAG)
    for old in set(folder.glob("*.safetensors")) - {target}:
        old.unlink()
    return target


def _encode_fraction(value: object) -> dict[str, Any]:
    """What `demucs.hf._decode_json` turns back into a Fraction."""
    if not isinstance(value, Fraction):
        raise TypeError(f"{value!r} has no place in the metadata")
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}


def load(folder: Path) -> BagOfModels:
    """The model in `folder`, ready for `demucs.apply.apply_model`."""
    bag = yaml.safe_load((folder / BAG).read_text(encoding="utf-8"))
    models = [load_safetensors_model(folder / f"{sig}.safetensors") for sig in bag["models"]]
    return BagOfModels(models, bag.get("weights"), bag.get("segment")).eval()


def save_training(state: dict[str, Any], folder: Path) -> None:
    """Keep what it takes to go on, in one rename."""
    part = folder / f".{TRAINING}.part"
    torch.save(state, part)
    part.rename(folder / TRAINING)
