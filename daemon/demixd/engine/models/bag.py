"""The bag: `NAME.yaml`, the list of a model's members.

    models: ['f7e0c4bc', 'd12395a8']    signatures, never paths
    weights: [[1., 0.], [0., 1.]]       one row a member, one number a stem; absent: all 1
    segment: 44                         seconds, in place of the members' own; absent: their own

Anyone may have filled the folder, so everything in a bag is checked before it is used.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from demixd.errors import AudioProcessingError, Code
from demixd.spool.files import open_model

SUFFIX = ".yaml"
MAX_BYTES = 1 << 16
MAX_MEMBERS = 32

_SIGNATURE = re.compile(r"[0-9a-zA-Z_]{1,64}")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without merge keys (`<<`), by which a few lines unfold to gigabytes."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge nothing: the key is then one that cannot be built."""


class Bag(msgspec.Struct, frozen=True, kw_only=True):
    sigs: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...] | None
    segment: float | None
    sha256: str


def read(path: Path) -> Bag:
    """The bag at `path`, checked. Raises `AudioProcessingError` (BAD_MODEL) and OSError."""
    with open_model(path) as file:
        data = file.read(MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES} bytes")
        value = _Loader(data).get_single_data()
        if not isinstance(value, dict) or not set(value) <= {"models", "weights", "segment"}:
            raise ValueError("it must have the key `models`, may have `weights` and `segment`, and nothing else")
        sigs = _sigs(value.get("models"))
        weights = _weights(value.get("weights"), len(sigs))
        segment = _segment(value.get("segment"))
    # PyYAML raises anything: `!!bool x` is a KeyError, `!!timestamp x` an AttributeError, nesting a RecursionError.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        sentence = f"{path} is not a bag of models: {reason}. Put Demucs' own in its place."
        raise AudioProcessingError(Code.BAD_MODEL, sentence, str(error)) from error
    return Bag(sigs=sigs, weights=weights, segment=segment, sha256=hashlib.sha256(data).hexdigest())


def _sigs(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MEMBERS:
        raise ValueError(f"`models` must be a list of 1 to {MAX_MEMBERS} signatures")
    if not all(isinstance(sig, str) and _SIGNATURE.fullmatch(sig) for sig in value):
        raise ValueError("a signature must be a string of letters, digits and `_` (in quotes, if all are digits)")
    return tuple(value)


def _weights(value: Any, members: int) -> tuple[tuple[float, ...], ...] | None:
    """The weights, checked. A stem is divided by the sum of its column, so no sum may be zero; the stems are counted later."""
    if value is None:
        return None
    rows = value if isinstance(value, list) else []
    if len(rows) != members or not all(isinstance(row, list) and 0 < len(row) == len(rows[0]) for row in rows):
        raise ValueError(f"`weights` must be {members} rows of equal length")
    if not all(_is_number(number) and number >= 0 for row in rows for number in row):
        raise ValueError("`weights` must be numbers, none below zero")
    if not all(sum(column) > 0 for column in zip(*rows, strict=True)):
        raise ValueError("in `weights` some stem gets nothing from any member")
    return tuple(tuple(float(number) for number in row) for row in rows)


def _segment(value: Any) -> float | None:
    if value is not None and not (_is_number(value) and 0 < value <= 600):
        raise ValueError("`segment` must be seconds, more than 0 and at most 600")
    return None if value is None else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e9
