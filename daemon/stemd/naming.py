"""What results are called: the folder of a song, and the files in it. Pure.

A name must be holdable wherever the share is mounted: NFC, none of the characters that Windows forbids, no trailing dot
or space, no device name of DOS, at most 120 bytes. Names come in as they are shown, without lone surrogates.
"""

import re
import unicodedata
from string import Formatter

LONGEST = 120
SONG_LONGEST, MODEL_LONGEST, TEMPLATE_LONGEST = 60, 40, 100
"""Bytes. Together with a stem's 32 they fit into the 255 of a name."""

FIELDS = ("stem", "ext", "song", "model")

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/<>:"\\|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
"""https://learn.microsoft.com/windows/win32/fileio/naming-a-file"""


def holdable(text: str, longest: int = LONGEST) -> str:
    """`text` as every filesystem can hold it, in at most `longest` bytes; `song` where nothing is left."""
    text = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text))
    text = text.encode()[:longest].decode("utf-8", "ignore").strip().rstrip(". ").lstrip(".")
    if _DEVICE.match(text):
        return f"_{text}"
    return text or "song"


def folder_name(leaf: str) -> str:
    """The result folder of a song called `leaf`: without its extension."""
    return holdable(leaf.rpartition(".")[0] or leaf)


def file_name(template: str, *, stem: str, ext: str, model: str, leaf: str) -> str:
    """The path below the result folder of one stem of the song `leaf`, by a template that `check` has passed."""
    song = holdable(leaf.rpartition(".")[0] or leaf, SONG_LONGEST)
    path = template.format(stem=stem, ext=ext, model=holdable(model, MODEL_LONGEST), song=song)
    return "/".join(holdable(part, 255) for part in path.split("/"))


def check(template: str) -> None:
    """Raises ValueError, saying why, where a template cannot give every stem a file of its own in the song's folder."""
    if len(template.encode("utf-8", "replace")) > TEMPLATE_LONGEST:
        raise ValueError(f"naming has more than {TEMPLATE_LONGEST} bytes")
    fields = []
    for _, field, spec, conversion in Formatter().parse(template):
        if field is None:
            continue
        if field not in FIELDS or spec or conversion:
            offered = ", ".join(f"{{{each}}}" for each in FIELDS)
            raise ValueError(f"naming has {{{field}}}; there are {offered}, and nothing else can stand in braces")
        fields.append(field)
    if "stem" not in fields or len(set(fields)) < len(fields):
        raise ValueError("naming must have {stem}, or all stems would have one name, and no field twice")
    if not template.endswith(".{ext}"):
        raise ValueError("naming must end in .{ext}")
    for part in template.split("/"):
        if not part or part.startswith(".") or part.rstrip(". ") != part or _FORBIDDEN.search(part):
            raise ValueError(f"naming has the part {part!r}, which names no file in the song's folder")
