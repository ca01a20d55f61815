"""Tables that people write (TOML, JSON) as types of ours, and sentences for their mistakes. Pure.

msgspec checks a table; but its `Invalid enum value 'x' - at `$.clip`` says nothing to a user who does not know the types.
Here it becomes `clip = "x": it must be "joint", "clamp" or "none"`.
"""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T", bound=msgspec.Struct)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of keys, in which an unknown key is an error."""


def typed(values: Any, kind: type[T]) -> T:
    """The table `values` as a `kind`. Raises ValueError: a sentence that begins with the key and says what its value must be."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
    if not isinstance(values, dict):
        raise ValueError(f"must be a table of keys, not {shown(values)}")
    if (unknown := next((key for key in values if key not in kinds), None)) is not None:
        raise ValueError(f"{shown_key(unknown)}: {no_such_key(unknown, kinds)}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ValueError):
            raise ValueError(str(error.__cause__)) from error
        key = re.findall(r"at `\$\.(\w+)", str(error))[0]
        kind_of_value = inspect.type_info(kinds[key])
        meant = did_you_mean(_ours(values[key], kind_of_value), _words(kind_of_value), '"')
        raise ValueError(f"{key} = {shown(values[key])}: it must be {wanted(kind_of_value)}{meant}") from error


def no_such_key(key: str, known: Iterable[str]) -> str:
    """The sentence for an unknown key, with the known key that is most like it, and all of them."""
    known = list(known)
    return f"there is no such key{did_you_mean(key, known) or '.'} There are {', '.join(known)}"


def did_you_mean(word: Any, known: Iterable[str], quote: str = "") -> str:
    """The end of a message about a wrong `word`: that of the `known` ones which is most like it; empty where none is."""
    close = get_close_matches(word.lower(), known, n=1) if isinstance(word, str) else ()
    return f"; did you mean {quote}{close[0]}{quote}?" if close else ""


def ended(sentence: str) -> str:
    """The sentence with a full stop, unless it ends with a mark of its own, as `did_you_mean` does."""
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def shown_key(key: Any) -> str:
    """A key as the files have it, without quotes where it is more than these."""
    return shown(key)[1:-1] or '""'


def shown(value: Any, levels: int = 2) -> str:
    """A value as the files have it, in at most 60 characters on one line; what is in a table is left out, or in deep lists."""
    match value:
        case dict():
            return "{...}" if value else "{}"
        case list() | tuple():
            # So many do not fit: that there are more shows.
            text = f"[{', '.join(shown(each, levels - 1) for each in value[:30]) if levels or not value else '...'}]"
        case str() | int() | float() | None:
            text = json.dumps(value)
        case _:
            text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _ours(word: Any, kind: inspect.Type) -> Any:
    """Our word for another name of the same thing, where the type's `Meta(extra=...)` has that name; else `word` itself."""
    known = kind.extra if isinstance(kind, inspect.Metadata) else None
    return (known or {}).get(word.lower(), word) if isinstance(word, str) else word


def _words(kind: inspect.Type) -> list[str]:
    """The words that a value may be."""
    if isinstance(kind, inspect.Metadata):
        return _words(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [word for each in kind.types for word in _words(each)]
    return [each for each in kind.values if isinstance(each, str)] if isinstance(kind, inspect.LiteralType) else []


def wanted(kind: inspect.Type) -> str:
    """A type in words, as they follow "it must be"."""
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=schema):
            return str((schema or {}).get("title") or wanted(inner))
        case inspect.UnionType(types=types):
            return _either([wanted(each) for each in types])
        case inspect.LiteralType(values=values):
            return _either([shown(each) for each in values])
        case inspect.EnumType(cls=cls):
            return _either([shown(each.value) for each in cls])
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number{_range(least, most)}"
        case inspect.FloatType(ge=least, gt=above, le=most):
            return f"a number{_range(least if above is None else above, most)}{'' if above is None else ', but not 0'}"
        case inspect.StrType(min_length=least, max_length=most):
            return f"a text{_range(least, most, ' characters')}"
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            return f"a list{_range(least, most, ' entries')}, each {wanted(item)}"
    return "null"


def _either(choices: list[str]) -> str:
    return " or ".join([*([", ".join(choices[:-1])] if len(choices) > 1 else []), choices[-1]])


def _range(least: float | None, most: float | None, of: str = "") -> str:
    if most is None:
        return "" if least is None else f" of {least:.15g}{of} or more"
    if least is None:
        return f" of up to {most:.15g}{of}"
    return f" {'of' if of else 'from'} {least:.15g} to {most:.15g}{of}"
