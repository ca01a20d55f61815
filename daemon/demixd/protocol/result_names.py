"""What results are called: the folder of a song, and the files in it. Pure.

A name must be holdable wherever the share is mounted: NFC, no control characters and none that Windows forbids, no dot at
either end and no space, no device name of DOS, at most 120 bytes. Names come in as they are shown, without lone surrogates.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from string import Formatter

MANIFEST = "stems.json"
"""What a folder holds that is a result."""

LONGEST = 120
"""Bytes of a name that still leave room for suffixes everywhere (eCryptfs allows 143)."""

SONG_LONGEST, MODEL_LONGEST, STEM_LONGEST, TEMPLATE_LONGEST = 60, 40, 40, 100
"""Bytes. A template's own text, at most 75 of them, and its three fields fit into the 255 of a name."""

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
"""Templates that have a name; `naming` takes it in their place."""

NAMES = {
    "ultrastar": {"vocals": "VOC", "instrumental": "INSTR"},
    "yarg": {"other": "song", "instrumental": "song", "no_vocals": "song", "piano": "keys"},
    "ni-stems": {},
}
"""Presets that are more than a template, and what their consumers call the stems.

ultrastar: the files that #VOCALS and #INSTRUMENTAL of an UltraStar song are set to, as its makers name them.
yarg: the stems that YARG and Clone Hero look for beside a song's chart; what no instrument plays is `song`.
ni-stems: one file for all (https://www.native-instruments.com/stems).
"""

FORMATS_OF = {"yarg": ("source", "ogg", "opus"), "ni-stems": ("source", "m4a", "alac")}
"""What can be read by those that a preset is for. `source` is Ogg then, or the M4A that fits the song."""

ONE_FILE = "ni-stems"
ONE_FILE_STEMS = ("drums", "bass", "other", "vocals")
"""In the order of the file's streams, behind the song itself."""

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069/<>:"\\|?*]')
"""Controls, what turns the direction of a line or breaks it, and what Windows forbids."""

_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)
"""https://learn.microsoft.com/windows/win32/fileio/naming-a-file"""


def holdable(text: str, longest: int = LONGEST) -> str:
    """`text` as every filesystem can hold it, in at most `longest` bytes; `song` where nothing is left."""
    text = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text)).strip(". ")
    text = text.encode()[:longest].decode("utf-8", "ignore").rstrip(". ")
    if _DEVICE.match(text):
        text = f"_{text}".encode()[:longest].decode("utf-8", "ignore").rstrip(". ")
    return text or "song"


def folder_name(leaf: str) -> str:
    """The result folder of a song called `leaf`: without its extension, and never the manifest's name."""
    name = holdable(leaf.rpartition(".")[0] or leaf)
    return f"_{name}" if name.casefold() == MANIFEST else name


def file_name(template: str, *, stem: str, ext: str, model: str, leaf: str) -> str:
    """The path below the result folder of one stem of the song `leaf`, by a template or preset that `check` has passed."""
    path = template_of(template).format(
        stem=holdable(stem_name(template, stem), STEM_LONGEST),
        ext=ext,
        model=holdable(model, MODEL_LONGEST),
        song=holdable(leaf.rpartition(".")[0] or leaf, SONG_LONGEST),
    )
    return "/".join(holdable(part, 255) for part in path.split("/"))


def template_of(naming: str) -> str:
    """The template that `naming` is, or is the name of."""
    return PRESETS.get(naming, naming)


def shortest(naming: str) -> str:
    """`naming` as effective options show it: the template, or the name of a preset that is more than one."""
    return naming if naming in NAMES else template_of(naming)


def stem_name(naming: str, stem: str) -> str:
    """What a stem is called in file names."""
    return NAMES.get(naming, {}).get(stem, stem)


def clash(naming: str, stems: Iterable[str]) -> tuple[str, str, str] | None:
    """Two stems that would get one name, and that name."""
    seen: dict[str, str] = {}
    for stem in stems:
        name = stem_name(naming, stem)
        if name in seen:
            return seen[name], stem, name
        seen[name] = stem
    return None


@lru_cache(256)  # ten thousand jobs of a ledger have a few templates between them
def check(naming: str) -> None:
    """Raises ValueError, saying why, where a template cannot give every stem a file of its own in the song's folder."""
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
    if "stem" not in fields or len(set(fields)) < len(fields):
        raise _bad(template, f"it must have {{stem}}, and nothing twice, or be one of {', '.join(PRESETS)}")
    if not template.endswith(".{ext}"):
        raise _bad(template, "it must end in .{ext}")
    for part in template.split("/"):
        if not part.strip(". ") or part.startswith(".") or part.rstrip(". ") != part or _FORBIDDEN.search(part):
            raise _bad(template, f"{part!r:.40} names nothing in the song's folder that every filesystem can hold")


def _bad(template: str, reason: str) -> ValueError:
    return ValueError(f"naming = {template!r:.120}: {reason}")


LONGEST_EXTENSION = 32
"""Bytes. What stands behind the last dot of a name and is longer belongs to the name, and the number goes behind it."""


def numbered(leaf: str, number: int, *, dot: str = ".") -> str:
    """`Song.flac`, `Song (2).flac`, ...; without a `dot` the whole name is what is numbered. At most 255 bytes."""
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
