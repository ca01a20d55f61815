"""The folder of models that all contenders read, made by `python -m benchmarks.weights FOLDER [MODEL]`.

    FOLDER/ NAME.yaml  SIG.safetensors    as demixd reads them
                       SIG.th             the same weights, for Demucs: of a local folder it reads no other kind
            unblend.json                  for unblend, which reads SIG.safetensors: of models of one HTDemucs

MODEL is a `store.Where` in JSON. Without it the model is a full-size htdemucs with random weights, which is as fast as the
published one. Weights are in half precision, as Demucs publishes them. A process of its own: its memory goes with it.
"""

import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import torch
import yaml
from benchmarks.contenders import unblend
from benchmarks.models import RANDOM
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from demixd.engine.families import demucs
from demixd.engine.models.demo.checkpoint import ARCHITECTURE
from demixd.engine.models.store import Where
from demixd.errors import AudioProcessingError

FULL_SIZE = ARCHITECTURE | {
    "channels": 48,
    "t_layers": 5,
    "t_heads": 8,
    "bottom_channels": 512,
    "segment": Fraction(39, 5),
}
"""Keyword arguments of the published htdemucs: 42 M parameters."""

SIGNATURE = "00000000"


def make_random(folder: Path) -> None:
    torch.manual_seed(0)
    module = HTDemucs(**FULL_SIZE)
    metadata = {
        "klass": f"{HTDemucs.__module__}.{HTDemucs.__qualname__}",
        "args": "[]",
        "kwargs": json.dumps(FULL_SIZE, default=_fraction),
    }
    save_file(_half(module), folder / f"{SIGNATURE}.safetensors", metadata)
    _pickle(module, folder / f"{SIGNATURE}.th")
    (folder / f"{RANDOM}.yaml").write_text(yaml.safe_dump({"models": [SIGNATURE]}), encoding="utf-8")
    _name_for_unblend(module, RANDOM, folder / f"{SIGNATURE}.safetensors")


def copy(where: Where, folder: Path) -> None:
    """The files of a model that is there, and pickles of its members where there are none."""
    files = where.locate()
    bag = demucs.load(files, allow_pickle=where.allow_pickle).model
    if "vocals" not in bag.sources:
        raise ValueError(f"The model {where.name} has no vocals, and those are what is measured.")
    shutil.copy(files.folder / f"{files.name}.yaml", folder)
    for module, member in dict(zip(bag.models, files.members, strict=True)).items():
        shutil.copy(member.path, folder)
        if member.path.suffix != ".th":
            _pickle(module, folder / f"{member.sig}.th")
            if len(files.members) == 1 and isinstance(module, HTDemucs):
                _name_for_unblend(module, where.name, folder / member.path.name)


def _pickle(module: Any, path: Path) -> None:
    """As `demucs.states.load_model` reads it."""
    args, kwargs = module._init_args_kwargs
    torch.save({"klass": type(module), "args": args, "kwargs": kwargs, "state": _half(module)}, path)


def _name_for_unblend(module: Any, name: str, weights: Path) -> None:
    """As `UNBLEND_EXTRA_MODELS` names a file of such; what its class does not take, it leaves out."""
    _, kwargs = module._init_args_kwargs
    entry = {
        "architecture": "htdemucs",
        "sources": module.sources,
        "config": kwargs | {"sources": module.sources},
        "checkpoint": {"format": "safetensors", "path": weights.name},
    }
    (weights.parent / unblend.MODELS).write_text(json.dumps({"models": {name: entry}}, default=float), encoding="utf-8")


def _half(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in module.state_dict().items()
    }


def _fraction(value: Fraction) -> dict[str, Any]:
    """The form that `demucs.hf._decode_json` turns back into a Fraction."""
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}


def main() -> None:
    folder, *rest = sys.argv[1:]
    try:
        if rest:
            copy(msgspec.json.decode(rest[0], type=Where), Path(folder))
        else:
            make_random(Path(folder))
    except AudioProcessingError as error:
        sys.exit(error.message)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
