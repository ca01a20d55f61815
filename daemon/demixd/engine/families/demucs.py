"""Loads a Demucs model: from files whose hashes are checked to a bag of Demucs' modules on the CPU.

Rules. A file of weights says which model to build, and is not trusted: it may name one of Demucs' three classes (nothing
that it names is imported), with arguments that the class has, plain and of modest size, for a model no larger than the
file itself; and its weights must fit that model exactly. A pickle is read only where `allow_pickle` is set.
"""

import inspect
import io
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import msgspec
import safetensors.torch
import torch
from demucs.apply import BagOfModels
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from safetensors import SafetensorError
from torch.nn.modules.module import register_module_parameter_registration_hook

from demixd.engine.models import store
from demixd.engine.models.header import BROKEN, MAX_BYTES
from demixd.engine.models.store import Member, ModelFiles, model_hash, read_member, record, unusable
from demixd.errors import AudioProcessingError, Code

CLASSES = MappingProxyType(
    {
        "demucs.htdemucs.HTDemucs": HTDemucs,
        "demucs.hdemucs.HDemucs": HDemucs,
        "demucs.demucs.Demucs": Demucs,
    }
)

MAX_ITEMS = 64
MAX_NUMBER = 1 << 20
"""Demucs' own arguments stay below 100,000; the largest is the sample rate."""

_PACKED = "its weights are nested or packed by diffq, which is not supported (mdx and mdx_extra are not packed)"
_STEM = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,31}")
"""Stems become names of files."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    model: BagOfModels
    """float32, in eval mode. Where the bag has a segment, its members have it too."""
    sha256: str
    """`store.model_hash`, of the bag and the weights."""


class _Package(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a Demucs file, safetensors or pickle: a class, its arguments and the weights."""

    klass: Any
    args: list[Any]
    kwargs: dict[str, Any]
    state: dict[str, torch.Tensor]


def load(files: ModelFiles, *, allow_pickle: bool) -> LoadedModel:
    """The model in `files`. Raises BAD_MODEL where a file is changed, damaged or not allowed, MODEL_MISSING where one is gone."""
    members: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    for member in files.members:
        if member.sig not in members:
            data, hashes[member.sig] = read_member(files, member)
            members[member.sig] = _member(files, member, data, allow_pickle)
    try:
        bag = _bag(files, [members[member.sig] for member in files.members])
    except ValueError as error:
        raise AudioProcessingError(Code.BAD_MODEL, f"The model {files.name} in {files.folder}: {error}.") from error
    record(files, hashes)
    return LoadedModel(model=bag, sha256=model_hash(files, hashes))


def verify(files: ModelFiles, *, allow_pickle: bool) -> str:
    """The model's hash, when its files are those on record. Where they are not on record, they have to load: then they are.

    Raises `AudioProcessingError`.
    """
    return store.verify(files) if store.is_recorded(files) else load(files, allow_pickle=allow_pickle).sha256


def _member(files: ModelFiles, member: Member, data: bytes, allow_pickle: bool) -> Any:
    pickled = member.path.suffix == ".th"
    try:
        if pickled and not allow_pickle:
            raise ValueError("it is a pickle, and `[model] allow_pickle` is false")
        return _build(_unpickle(data) if pickled else _parse(data))
    except ValueError as error:
        raise unusable(files, member, error) from error


def _bag(files: ModelFiles, members: list[Any]) -> BagOfModels:
    """The members as a bag; `ValueError` where they do not fit together, which Demucs would only assert."""
    first = members[0]
    for other in members:
        if any(getattr(other, key) != getattr(first, key) for key in ("sources", "samplerate", "audio_channels")):
            raise ValueError("its members differ in stems, sample rate or channels")
    weights = files.bag.weights
    if weights is not None and len(weights[0]) != len(first.sources):
        raise ValueError(f"the bag has weights for {len(weights[0])} stems, and its members have {len(first.sources)}")
    bag = BagOfModels(members, None if weights is None else [list(row) for row in weights], files.bag.segment)
    return bag.eval()


# ---- the two kinds of files


def _parse(data: bytes) -> _Package:
    """A safetensors file: 8 bytes of length, a JSON header of that length, tensors. Demucs' JSON is in the header's metadata."""
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(MAX_BYTES, len(data) - 8):
        raise ValueError(BROKEN)
    try:
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        if "structure" in metadata:
            raise ValueError(_PACKED)
        klass, args, kwargs = metadata["klass"], json.loads(metadata["args"]), json.loads(metadata["kwargs"])
        state = safetensors.torch.load(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("its metadata are not those of a Demucs model") from error
    except (SafetensorError, RecursionError, AssertionError, RuntimeError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    if klass not in CLASSES:
        raise ValueError(f"its class is {klass!r:.80}, not one of {', '.join(CLASSES)}")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError("its metadata are not those of a Demucs model")
    values = {key: _plain(value) for key, value in kwargs.items()}
    return _Package(klass=CLASSES[klass], args=[_plain(value) for value in args], kwargs=values, state=state)


def _plain(value: Any) -> Any:
    """An argument of a class, from JSON. The only kind of object allowed is a fraction."""
    match value:
        case None | bool():
            return value
        case str() if len(value) <= 100:
            return value
        case int() | float() if abs(value) <= MAX_NUMBER:
            return value
        case list() if len(value) <= MAX_ITEMS and not any(isinstance(item, list) for item in value):
            return [_plain(item) for item in value]
        case {"_type": "fraction", "numerator": int(above), "denominator": int(below), **rest} if not rest and below:
            return Fraction(_plain(above), _plain(below))
    raise ValueError(f"its arguments hold {str(value)[:80]!r}, which no Demucs model needs")


def _unpickle(data: bytes) -> _Package:
    """A pickle, which can run any code: called only where the configuration says that the file's maker is trusted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sources of modules have changed since these files were made
            package = torch.load(io.BytesIO(data), "cpu", weights_only=False)
        klass, args, kwargs, state = (package[key] for key in ("klass", "args", "kwargs", "state"))
    except Exception as error:  # a pickle can raise anything
        raise ValueError(f"it does not unpickle ({type(error).__name__})") from error
    if klass not in CLASSES.values():
        raise ValueError(f"its class is {klass!r:.80}, not one of {', '.join(CLASSES)}")
    if "__quantized" in state:
        raise ValueError(_PACKED)
    return _Package(klass=klass, args=list(args), kwargs=dict(kwargs), state=state)


# ---- from package to module


def _build(package: _Package) -> Any:
    unknown = sorted(set(package.kwargs) - set(inspect.signature(package.klass).parameters))
    if unknown:
        raise ValueError(f"this version of Demucs does not know its arguments {', '.join(unknown)[:200]}")
    try:
        with _no_larger_than(sum(tensor.numel() for tensor in package.state.values())):
            model = package.klass(*package.args, **package.kwargs)
        _check_facts(model)
        model.load_state_dict(package.state)
    except Exception as error:  # the constructors assert, divide and index as they please
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"its arguments and weights make no model ({reason})") from error
    return model


@contextmanager
def _no_larger_than(elements: int) -> Iterator[None]:
    """Raise `ValueError` once a model under construction has more parameters than `elements`.

    Parameters are registered before their memory is written to, so a huge model costs nothing until then.
    """
    built = 0

    def count(_module: torch.nn.Module, _name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal built
        built += 0 if parameter is None else parameter.numel()
        if built > elements:
            raise ValueError("the model would be larger than its weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _check_facts(model: Any) -> None:
    """Check what the rest of the program relies on; `ValueError` where it is not so."""
    stems = model.sources
    if not isinstance(stems, list | tuple) or not 1 <= len(set(stems)) == len(stems) <= MAX_ITEMS:
        raise ValueError("its stems must be a list of different names")
    if not all(isinstance(stem, str) and _STEM.fullmatch(stem) for stem in stems):
        raise ValueError("a stem's name must be letters, digits, `_` and `-`")
    if not (isinstance(model.samplerate, int) and 8000 <= model.samplerate <= 384_000):
        raise ValueError("its sample rate must be 8000 to 384000")
    if model.audio_channels not in (1, 2) or not 0 < model.segment <= 600:
        raise ValueError("it must take 1 or 2 channels, and segments of up to 600 s")
