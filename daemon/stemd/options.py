"""The options of one song: what its `.job.json` asks for, over its profile, over `[defaults]`.

    Song.flac.job.json   {"profile": "karaoke", "format": "mp3", "priority": 5, "tag": "table 4"}

A mistake in it is `bad-options`, in a sentence that names the key. Pure: bytes and a configuration in, values out.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stemd.config import Config, Defaults
from stemd.errors import AudioProcessingError, Code
from stemd.job import Options

T = TypeVar("T")

LONGEST = 64 * 1024
"""Bytes of an option file."""

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="64 hex digits, in lower case")]


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that only a job has; all others are those of `[defaults]`."""

    schema: Annotated[Literal[1], Meta(description="version of this format")] | UnsetType = UNSET
    profile: Annotated[Name, Meta(description="a profile of the configuration")] | UnsetType = UNSET
    model: Annotated[Name, Meta(description="a name that `stemd models list` shows")] | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=-1000, le=1000, description="higher is earlier")] = 0
    force: Annotated[bool, Meta(description="compute it even if the same result is there")] = False
    wait_for_sha256: Annotated[Sha256, Meta(description="the song is complete when it has this hash")] | None = None
    tag: Annotated[str, Meta(max_length=1000, description="comes back in the status")] | None = None


_OWN = tuple(field.name for field in msgspec.structs.fields(Own))
_DEFAULTS = tuple(field.name for field in msgspec.structs.fields(Defaults))


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A song's own options: what only a job has, and which keys of `[defaults]` it changes."""

    own: Own = Own()
    changed: dict[str, Any] = {}


NONE = JobOptions()


def parse(data: bytes) -> JobOptions:
    """The options in the bytes of an option file. Raises BAD_OPTIONS."""
    if len(data) > LONGEST:
        raise bad(f"the file has {len(data)} bytes; {LONGEST} are allowed")
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise bad(f"the file is not JSON ({error})") from error
    except RecursionError as error:
        raise bad("the file is not JSON that options need: it is nested too deeply") from error
    if not isinstance(found, dict):
        raise bad("the file must hold one JSON object")
    if unknown := sorted(found.keys() - {*_OWN, *_DEFAULTS}):
        raise bad(f"{unknown[0]!r:.80}: there is no such key; there are {', '.join((*_OWN, *_DEFAULTS))}")
    own = _converted({key: value for key, value in found.items() if key in _OWN}, Own)
    changed = {key: value for key, value in found.items() if key in _DEFAULTS}
    _converted({**msgspec.structs.asdict(Defaults()), **changed}, Defaults)
    return JobOptions(own=own, changed=changed)


def profile_of(name: str, profiles: Mapping[str, Any]) -> str | None:
    """The deepest folder on the way to the song `name` that is called as a profile is."""
    return next((part for part in reversed(name.split("/")[:-1]) if part in profiles), None)


def effective(config: Config, name: str, job: JobOptions, is_known: Callable[[str], bool]) -> Options:
    """What the song `name` (its path below the inbox) is to become. Raises BAD_OPTIONS."""
    profile = job.own.profile if job.own.profile is not UNSET else profile_of(name, config.profiles)
    if profile is not None and profile not in config.profiles:
        there = ", ".join(sorted(config.profiles)) or "none"
        raise bad(f"profile: there is no profile {profile!r}; the configuration has {there}")
    preset = dict(config.profiles[profile]) if profile is not None else {}
    model = preset.pop("model", config.model.name)
    if job.own.model is not UNSET:
        model = job.own.model
    if not is_known(model):
        raise bad(f"model: there is no model {model!r}; `stemd models list` shows them")
    merged = {**msgspec.structs.asdict(config.defaults), **preset, **job.changed}
    defaults = _converted(merged, Defaults)
    return Options(model=model, profile=profile, **msgspec.structs.asdict(defaults))


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of an option file: all keys may be left out."""
    properties: dict[str, Any] = {}
    for kind in (Own, Defaults):
        (_,), definitions = msgspec.json.schema_components([kind])
        for key, value in definitions[kind.__name__]["properties"].items():
            properties[key] = {word: fact for word, fact in value.items() if word != "default"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stemd: the options of one song, NAME.job.json",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def bad(reason: str) -> AudioProcessingError:
    """The error of an option file that cannot be used."""
    return AudioProcessingError(Code.BAD_OPTIONS, f"The song's options cannot be used: {reason}.")


def _converted(values: dict[str, Any], kind: type[T]) -> T:
    """`values` as `kind`. Raises BAD_OPTIONS with the key first: `$.format` is `format`."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        key = place.strip(".`")
        raise bad(f"{key}: {reason}" if key else reason) from error
