"""Names of results: the folder of a song, and the files in it. Pure.

Every system that mounts the share must be able to hold a name: NFC, no control characters and none that Windows forbids, no
dot or space at either end, no device name of DOS, at most 120 bytes. Names come in without lone surrogates.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from string import Formatter

MANIFEST = "stems.json"
"""The manifest: a folder that holds it is a result."""

PEAKS = "peaks.json"
"""The waveforms of a result's stems."""

PAGE = "index.html"
"""The page that plays a result; in status/, that of the daemon."""

OURS = (MANIFEST, PEAKS, PAGE)
"""Names that no stem, and no folder of stems, has in a result."""

LONGEST = 120
"""Bytes of a name, so that suffixes have room on every filesystem (eCryptfs allows 143)."""

SONG_LONGEST, MODEL_LONGEST, STEM_LONGEST, TEMPLATE_LONGEST = 60, 40, 40, 100
"""Bytes. A template's own text (at most 75 bytes) and its three fields fit into the 255 of a name."""

FIELDS = ("stem", "ext", "song", "model")

PRESETS = {
    "stem": "{stem}.{ext}",
    "song-stem": "{song} - {stem}.{ext}",
    "song-stem-model": "{song} - {stem} ({model}).{ext}",
    "demucs": "{model}/{song}/{stem}.{ext}",
    "ultrastar": "{song} [{stem}].{ext}",
    "yarg": "{stem}.{ext}",
    "ni-stems": "{song}.stem.mp4",
}
"""Templates by a name that `naming` can have in place of them."""

NAMES = {
    "ultrastar": {"vocals": "VOC", "instrumental": "INSTR"},
    "yarg": {"other": "song", "instrumental": "song", "no_vocals": "song", "piano": "keys"},
    "ni-stems": {},
}
"""Presets that set more than a template, and the names that their consumers have for stems.

ultrastar: the files that #VOCALS and #INSTRUMENTAL of an UltraStar song are set to, as its makers name them.
yarg: the files that YARG and Clone Hero look for beside a song's chart; the rest of the band is `song`.
ni-stems: one file for all (https://www.native-instruments.com/stems).
"""

FORMATS_OF = {"yarg": ("source", "ogg", "opus"), "ni-stems": ("source", "m4a", "alac")}
"""Formats that a preset's consumers can read. `source` becomes ogg under yarg, m4a or alac under ni-stems."""

ONE_FILE = "ni-stems"
ONE_FILE_STEMS = ("drums", "bass", "other", "vocals")
"""The stems in the one file, in the order of its streams, which begin with the song itself."""

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069/<>:"\\|?*]')
"""Control characters, those that break a line or change its direction, and those that Windows forbids."""

_LITERAL = r'[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069<>:"\\|?*{}]|\{\{|\}\}'

_ONCE = "".join(rf"(?!.*\{{{field}\}}.*\{{{field}\}})" for field in FIELDS)

NAMING_PATTERN = (
    rf"^(?:{'|'.join(PRESETS)}"
    rf"|(?=(?:{_LITERAL}|\{{(?:song|model|ext)\}})*\{{stem\}})"  # it has {stem}, ...
    f"{_ONCE}"
    r"(?!\.)(?!.*/\.)(?!/)(?!.*//)(?! */)(?!.*[. ]/)"  # ... each part of the path is a name, ...
    rf"(?:{_LITERAL}|\{{(?:stem|song|model|ext)\}})*\.\{{ext\}})(?![\s\S])"  # ... and it ends in .{{ext}}.
)
"""What `check` says, as far as a regular expression of JSON Schema can."""

_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)
"""DOS' device names: https://learn.microsoft.com/windows/win32/fileio/naming-a-file"""


def holdable(text: str, longest: int = LONGEST) -> str:
    """`text` as a name that every filesystem can hold, of at most `longest` bytes; `song` where nothing is left of it."""
    text = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text)).strip(". ")
    text = text.encode()[:longest].decode("utf-8", "ignore").rstrip(". ")
    if _DEVICE.match(text):
        text = f"_{text}".encode()[:longest].decode("utf-8", "ignore").rstrip(". ")
    return text or "song"


def folder_name(leaf: str) -> str:
    """The result folder of a song called `leaf`: without its extension, and never the manifest's name."""
    name = holdable(leaf.rpartition(".")[0] or leaf)
    return _beside_manifest(name)


def _beside_manifest(name: str) -> str:
    """`name`, changed where it is that of the manifest, or of another file of the result that is no stem."""
    return f"_{name}" if name.casefold() in OURS else name


def mirrored(folder: bytes) -> str:
    """A folder of the inbox as it is called in the outbox: bytes that are not UTF-8 become U+FFFD, so that JSON can spell it.

    That has three bytes; a name which gets over 255 by it is cut, and ends in `~` and 16 hex digits of its sha256.
    """
    name = folder.decode("utf-8", "replace")
    if len(data := name.encode()) <= 255:
        return name
    return data[:LONGEST].decode("utf-8", "ignore") + "~" + hashlib.sha256(folder).hexdigest()[:16]


def file_name(template: str, *, stem: str, ext: str, model: str, leaf: str) -> str:
    """The path below the result folder of one stem of the song `leaf`, by a template or preset that `check` has passed."""
    path = template_of(template).format(
        stem=holdable(stem_name(template, stem), STEM_LONGEST),
        ext=ext,
        model=holdable(model, MODEL_LONGEST),
        song=holdable(leaf.rpartition(".")[0] or leaf, SONG_LONGEST),
    )
    return "/".join(_beside_manifest(holdable(part, 255)) for part in path.split("/"))


def template_of(naming: str) -> str:
    """The template of a preset called `naming`, or `naming` itself, which is one."""
    return PRESETS.get(naming, naming)


def shortest(naming: str) -> str:
    """`naming` in effective options: the template, or the name of a preset that sets more than a template."""
    return naming if naming in NAMES else template_of(naming)


def stem_name(naming: str, stem: str) -> str:
    """The name of `stem` in file names."""
    return NAMES.get(naming, {}).get(stem, stem)


def clash(naming: str, stems: Iterable[str]) -> tuple[str, str, str] | None:
    """Two stems that would get the same name, and that name; None where there are none."""
    seen: dict[str, str] = {}
    for stem in stems:
        name = stem_name(naming, stem)
        if name in seen:
            return seen[name], stem, name
        seen[name] = stem
    return None


@lru_cache(256)  # ten thousand jobs of a ledger have a few templates between them
def check(naming: str) -> None:
    """Raise ValueError, with the reason, where a template cannot give each stem a file of its own in the song's folder."""
    template = template_of(naming)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise _bad(template, f"its braces do not match ({error})") from error
    fields = [field for _, field, _, _ in parts if field is not None]
    for _, field, spec, conversion in parts:
        if field is not None and (field not in FIELDS or spec or conversion):
            raise _bad(template, f"{', '.join(f'{{{each}}}' for each in FIELDS)} are all that can stand in braces")
    if len(template.encode()) > TEMPLATE_LONGEST:
        raise _bad(template, f"it may have {TEMPLATE_LONGEST} bytes")
    if naming == ONE_FILE:
        return
    if wrong := _wrong_with(fields):
        raise _bad(template, wrong)
    if not template.endswith(".{ext}"):
        raise _bad(template, "it must end in .{ext}")
    for part in template.split("/"):
        if not part.strip(". ") or part.startswith(".") or part.rstrip(". ") != part or _FORBIDDEN.search(part):
            raise _bad(template, f"{part!r:.40} names nothing in the song's folder that every filesystem can hold")


def _wrong_with(fields: list[str]) -> str:
    """What is wrong with the fields of a template; empty where nothing is."""
    if "stem" not in fields:
        return f"it must have {{stem}}, or be one of {', '.join(PRESETS)}"
    twice = [field for field in FIELDS if fields.count(field) > 1]
    return f"it has {{{twice[0]}}} twice: name each field once" if twice else ""


def _bad(template: str, reason: str) -> ValueError:
    return ValueError(f"naming = {template!r:.120}: {reason}")


LONGEST_EXTENSION = 32
"""Bytes. A longer text behind the last dot is no extension: a number is put behind it, not before the dot."""


def numbered(leaf: str, number: int, *, dot: str = ".") -> str:
    """`Song.flac`, `Song (2).flac` and so on; with an empty `dot` the number comes last. At most 255 bytes."""
    if number == 1:
        return leaf
    stem, found, extension = leaf.rpartition(dot) if dot else (leaf, "", "")
    if not found or len(os.fsencode(extension)) > LONGEST_EXTENSION:
        stem, found, extension = leaf, "", ""
    tail = f" ({number}){found}{extension}"
    room = 255 - len(os.fsencode(tail))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem + tail
