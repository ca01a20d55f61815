"""What results are called: the folder of a song, and the files in it. Pure.

A name must be holdable wherever the share is mounted: NFC, no control characters and none that Windows forbids, no dot at
either end and no space, no device name of DOS, at most 120 bytes. Names come in as they are shown, without lone surrogates.
"""

import re
import unicodedata
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
}
"""Templates that have a name; `naming` takes it in their place, and effective options show the template."""

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
    """The path below the result folder of one stem of the song `leaf`, by a template that `check` has passed."""
    path = template.format(
        stem=holdable(stem, STEM_LONGEST),
        ext=ext,
        model=holdable(model, MODEL_LONGEST),
        song=holdable(leaf.rpartition(".")[0] or leaf, SONG_LONGEST),
    )
    return "/".join(holdable(part, 255) for part in path.split("/"))


def template_of(naming: str) -> str:
    """The template that `naming` is, or is the name of."""
    return PRESETS.get(naming, naming)


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
    if "stem" not in fields or len(set(fields)) < len(fields):
        raise _bad(template, f"it must have {{stem}}, and nothing twice, or be one of {', '.join(PRESETS)}")
    if not template.endswith(".{ext}"):
        raise _bad(template, "it must end in .{ext}")
    for part in template.split("/"):
        if not part.strip(". ") or part.startswith(".") or part.rstrip(". ") != part or _FORBIDDEN.search(part):
            raise _bad(template, f"{part!r:.40} names nothing in the song's folder that every filesystem can hold")


def _bad(template: str, reason: str) -> ValueError:
    return ValueError(f"naming = {template!r:.120}: {reason}")
