"""The options of one song: those of its option file, else of its profile, else of `[defaults]`.

    Song.flac.job.json   {"profile": "karaoke", "format": "mp3", "priority": 5, "tag": "table 4"}

A mistake in an option file is `bad-options`, with a sentence that names the key. Pure: bytes and the values of a
configuration go in, options come out.
"""

import codecs
import json
import sys
import unicodedata
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from demixd.errors import AudioProcessingError, Code
from demixd.protocol.result_names import (
    FORMATS_OF,
    NAMING_PATTERN,
    ONE_FILE,
    ONE_FILE_STEMS,
    TEMPLATE_LONGEST,
    clash,
    shortest,
)
from demixd.protocol.result_names import check as check_naming
from demixd.protocol.typed import Section, ended, no_such_key, shown, shown_key, typed

LONGEST = 64 * 1024
"""Bytes of an option file."""

ModelName = Annotated[str, Meta(min_length=1, max_length=100, title="a text of 1 to 100 characters, one model")]
ProfileName = Annotated[str, Meta(min_length=1, max_length=60)]
Sha256 = Annotated[
    # The lengths too: `$` also matches before a final newline.
    str, Meta(pattern="^[0-9A-Fa-f]{64}$", min_length=64, max_length=64, title="64 hex digits")
]


class Defaults(Section, frozen=True):
    """`[defaults]` of the configuration: the keys that a profile and a song can change, each with its built-in value."""

    stems: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=40)], ...],
        Meta(min_length=1, max_length=64, extra_json_schema={"uniqueItems": True}),
    ] = ("vocals", "instrumental")
    format: Annotated[
        Literal["source", "wav", "flac", "mp3", "ogg", "opus", "m4a", "alac"],
        Meta(extra={"aac": "m4a", "mp4": "m4a", "vorbis": "ogg"}),
    ] = "source"
    bitrate: (
        Annotated[int, Meta(ge=8, le=512)]
        | Literal["source", "V0", "V1", "V2", "V3", "V4", "V5", "V6", "V7", "V8", "V9"]
    ) = 320
    quality: Annotated[int, Meta(ge=0, le=9)] = 3
    bit_depth: Literal["source", "float", 16, 24, 32] = "source"
    rate: Annotated[int, Meta(ge=8000, le=192000)] | Literal["source"] = "source"
    clip: Literal["joint", "clamp", "none"] = "joint"
    instrumental: Literal["auto", "add", "minus"] = "auto"
    guide_db: Annotated[float, Meta(ge=-60, le=0)] = -12.0
    shifts: Annotated[int, Meta(ge=0, le=20)] = 0
    overlap: Annotated[float, Meta(ge=0, le=0.9)] = 0.25
    naming: Annotated[
        str, Meta(min_length=1, max_length=TEMPLATE_LONGEST, extra_json_schema={"pattern": NAMING_PATTERN})
    ] = "{stem}.{ext}"
    tags: bool = True
    title_suffix: bool = True
    album_suffix: bool = True
    peaks: bool = True
    page: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError, with the key first, where values are allowed each by itself and not together."""
        check_naming(self.naming)
        if twice := next((stem for stem in self.stems if self.stems.count(stem) > 1), None):
            raise ValueError(f"stems has {twice!r} twice: name each stem once")
        if found := clash(self.naming, self.stems):
            one, other, name = found
            raise ValueError(
                f'naming = "{self.naming}" calls both {one!r} and {other!r} {name!r}: leave one of them out'
            )
        if self.format not in (allowed := FORMATS_OF.get(self.naming, (self.format,))):
            raise ValueError(f'naming = "{self.naming}" goes with format = {" or ".join(map(shown, allowed))}')
        if self.clip == "none" and self.naming in FORMATS_OF:
            raise ValueError(
                f'clip = "none" needs float samples, and naming = "{self.naming}" has none: set clip = "joint"'
            )
        if self.clip == "none" and (self.format not in ("source", "wav") or self.bit_depth not in ("source", "float")):
            raise ValueError(
                f'clip = "none" needs float samples, and format = "{self.format}" with bit_depth = '
                f'{shown(self.bit_depth)} has none: set format = "wav" and bit_depth = "float", or clip = "joint"'
            )

    def of(self, model: str, profile: str | None) -> "Options":
        """The options of a song with these keys. A preset's name becomes its template, or stays and sets format or stems."""
        values = {**msgspec.structs.asdict(self), "naming": shortest(self.naming)}
        if self.naming == "yarg" and self.format == "source":
            values["format"] = "ogg"
        if self.naming == ONE_FILE:
            values["stems"] = ONE_FILE_STEMS
        return Options(model=model, profile=profile, **values)


class Options(Defaults, frozen=True, kw_only=True):
    """The effective options of one song, frozen in the ledger when the song is accepted."""

    model: ModelName
    profile: str | None


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of an option file that `[defaults]` does not have."""

    schema: Annotated[Literal[1], Meta(description="version of this format")] | UnsetType = UNSET
    profile: Annotated[ProfileName, Meta(description="a profile of the configuration")] | UnsetType = UNSET
    model: Annotated[ModelName, Meta(description="a name that `demixd models list` shows")] | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=-1000, le=1000, description="higher is earlier")] = 0
    force: Annotated[bool, Meta(description="compute it even if the same result is there")] = False
    wait_for_sha256: Annotated[Sha256, Meta(description="the song is complete when it has this hash")] | None = None
    tag: Annotated[str, Meta(max_length=1000, description="comes back in the status")] | None = None


class _Tagged(msgspec.Struct, frozen=True):
    tag: Annotated[str, Meta(max_length=1000)] | None = None


_OWN = tuple(field.name for field in msgspec.structs.fields(Own))
_DEFAULTS = tuple(field.name for field in msgspec.structs.fields(Defaults))


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """An option file: its own keys, and the keys of `[defaults]` that it changes."""

    own: Own = Own()
    changed: dict[str, Any] = {}


NONE = JobOptions()


def parse(data: bytes) -> JobOptions:
    """The options in the bytes of an option file. Raises BAD_OPTIONS."""
    found = _read(data)
    if (unknown := next((key for key in found if key not in (*_OWN, *_DEFAULTS)), None)) is not None:
        raise bad(f"{shown_key(unknown)}: {no_such_key(unknown, (*_OWN, *_DEFAULTS))}")
    changed = {key: value for key, value in found.items() if key in _DEFAULTS}
    try:
        own = typed({key: value for key, value in found.items() if key in _OWN}, Own)
        typed(changed, Defaults)
    except ValueError as error:
        raise bad(str(error)) from error
    if own.wait_for_sha256 is not None:
        own = msgspec.structs.replace(own, wait_for_sha256=own.wait_for_sha256.lower())
    return JobOptions(own=own, changed=changed)


def tag_of(data: bytes) -> str | None:
    """The tag in an option file that `parse` refuses, for whoever finds songs by it; None where none can be read."""
    try:
        return msgspec.json.decode(data.removeprefix(codecs.BOM_UTF8), type=_Tagged).tag
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _read(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. A byte order mark, which Windows writes, is skipped; 5.0 becomes the whole number 5."""
    if len(data) > LONGEST:
        raise bad(f"the file has {len(data)} bytes; {LONGEST} are allowed")
    if not data.strip():
        raise bad("the file is empty: write {} where nothing is to be changed, or leave the file out")
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text, object_pairs_hook=_object, parse_int=_whole, parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise bad(f"the file must be UTF-8, and is not from byte {error.start} on") from error
    except UnicodeEncodeError as error:
        raise bad("a text in it has half a surrogate pair, which is no character") from error
    except RecursionError as error:
        raise bad("the file is nested too deeply: options are one object, and no value of it holds another") from error
    except json.JSONDecodeError as error:
        where = f"something is wrong at line {error.lineno}, column {error.colno}, or just before"
        raise bad(
            f"the file is not JSON: {where}; often that is a comma too many, or quotes that are missing"
        ) from error
    except ValueError as error:
        raise bad(f"the file is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise bad(f"the file must hold one JSON object, {{...}}, not {shown(found)}")
    return {key: int(value) if _is_whole(value) else value for key, value in found.items()}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise bad(f"{shown(name)[1:-1]} is there twice: leave one out")
        found[name] = value
    return found


def _whole(digits: str) -> float:
    """A whole number. One of hundreds of digits is infinite, as 1e400 is: of thousands Python makes none."""
    return int(digits) if len(digits) < sys.int_info.str_digits_check_threshold else float(digits)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def profile_of(name: str, profiles: Mapping[str, Any]) -> str | None:
    """The profile that has the name of a folder on the path `name`, the deepest one; None where none has.

    Names are compared in NFC, since Macs decompose the names of folders that they make.
    """
    folders = [unicodedata.normalize("NFC", part) for part in name.split("/")[:-1]]
    return next((folder for folder in reversed(folders) if folder in profiles), None)


def effective(
    name: str,
    job: JobOptions,
    *,
    model: str,
    defaults: Defaults,
    profiles: Mapping[str, Mapping[str, Any]],
    is_known: Callable[[str], bool],
) -> Options:
    """The options of the song `name` (its path below the inbox). Raises BAD_OPTIONS.

    `model`, `defaults` and `profiles` are the configuration's. `is_known` is asked only about a model in `job`: one of the
    configuration may be missing for a while.
    """
    own = job.own
    profile = profile_of(name, profiles) if own.profile is UNSET else own.profile
    if profile is not None and profile not in profiles:
        there = ", ".join(profiles) or "none"
        raise bad(
            f"profile = {shown(profile)}: there is no such profile; the configuration as it was last read has {there}"
        )
    preset = dict(profiles[profile]) if profile is not None else {}
    model = preset.pop("model", model)
    if own.model is not UNSET:
        model = own.model
        if not is_known(model):
            one = "a song has one model" if "," in model else "`demixd models list` shows those that there are"
            raise bad(f"model = {shown(model)}: there is no such model; {one}")
    try:
        return typed({**msgspec.structs.asdict(defaults), **preset, **job.changed}, Defaults).of(model, profile)
    except ValueError as error:
        raise bad(str(error)) from error


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of an option file, in which every key is optional."""
    properties: dict[str, Any] = {}
    for kind in (Own, Defaults):
        (_,), definitions = msgspec.json.schema_components([kind])
        for key, value in definitions[kind.__name__]["properties"].items():
            properties[key] = {word: fact for word, fact in value.items() if word != "default"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:demixd:job:1",
        "title": "demixd: the options of one song, NAME.job.json",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def bad(reason: str) -> AudioProcessingError:
    """The error of an option file that cannot be used."""
    return AudioProcessingError(Code.BAD_OPTIONS, ended(f"The song's options cannot be used: {reason}"))
