"""Tags, whatever their format: texts and covers, and their bounds. Pure.

Rules:
- A text's key is one that a Vorbis comment can have, in lower case: ASCII without `=`. Values are in the song's order.
- "3/12" is two texts, `tracknumber` and `tracktotal`; so for discs.
- A picture's MIME type is told by its first bytes, not by the tag.
- Tags beyond the bounds are left out, and `Tags.warning` says so: no real song has them, and each stem would carry them.
"""

from collections.abc import Iterable

import msgspec

from demixd.audio.tags import keys

FRONT = 3
"""ID3's number for a front cover, in FLAC and WMA as well."""

LAST_KIND = 20

MOST_KEYS = 200
MOST_VALUES = 100
"""Values of one key."""

LARGEST_TEXT = 64 << 10
"""Bytes in UTF-8 of all the values of one key."""

LARGEST_COVERS = (16 << 20) - (64 << 10)
"""Bytes of all pictures. A block of a FLAC, which holds a picture and its description, has at most 16 MiB."""

LONGEST_DESCRIPTION = 200

PICTURES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}


Texts = dict[str, tuple[str, ...]]


class TagsError(ValueError):
    """A stem cannot have its tags, and its file is unchanged. The message is a sentence that names the stem."""


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """A picture."""

    mime: str
    data: bytes
    kind: int = FRONT
    """ID3's picture type."""
    description: str = ""


class Tags(msgspec.Struct, frozen=True, kw_only=True):
    """The tags of a song or stem: key -> values, and pictures."""

    texts: Texts = {}
    covers: tuple[Cover, ...] = ()
    warning: str | None = None
    """Why some of the song's tags are missing; None where none are."""


NOTHING = Tags()


class Found(msgspec.Struct, kw_only=True):
    """The tags in one place of a song, with the format's own keys."""

    texts: list[tuple[str, str]] = []
    covers: list[Cover] = []
    problem: str | None = None


def merged(places: Iterable[Found]) -> Tags:
    """The tags of all places of a song together. A key, and the pictures, are taken from the first place that has them."""
    texts: Texts = {}
    covers: tuple[Cover, ...] = ()
    problems: list[str] = []
    for place in places:
        own, over = _texts(place.texts)
        texts |= {key: said for key, said in own.items() if key not in texts}
        if not covers:
            pictures = [cover for cover in place.covers if cover.mime]
            covers, many = _covers(pictures)
            over |= many
            problems += ["a picture is a link, or of no known kind"] if len(pictures) < len(place.covers) else []
        problems += [place.problem] if place.problem else []
        problems += ["there is more than a stem takes"] if over else []
    reasons = ", ".join(dict.fromkeys(problems))
    warning = f"Not all of the song's tags are in its stems: {reasons}." if reasons else None
    return Tags(texts=dict(list(texts.items())[:MOST_KEYS]), covers=covers, warning=warning)


def for_stem(tags: Tags, *, stem: str, comment: str, suffixed: Iterable[str]) -> Tags:
    """The tags of one stem: the song's, with the stem behind the texts of the keys `suffixed`, and one more comment."""
    texts = dict(tags.texts)
    for key in suffixed:
        if key in texts:
            texts[key] = tuple(f"{text} ({stem.replace('_', ' ')})" for text in texts[key])
    texts["comment"] = tuple(dict.fromkeys((*texts.get("comment", ()), comment)))
    return Tags(texts=texts, covers=tags.covers)


def picture(data: bytes, mime: str = "", kind: int = FRONT, description: str = "") -> list[Cover]:
    """A list of one cover, which has no MIME type where `data` is no picture: `merged` leaves that out, with a word."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    found = "image/webp" if webp else next((name for magic, name in PICTURES.items() if data.startswith(magic)), mime)
    if not data:
        return []
    if not found.isascii() or not found.startswith("image/"):
        found = ""
    words = _plain(description)[:LONGEST_DESCRIPTION].strip()
    return [Cover(mime=found, data=bytes(data), kind=kind if 0 <= kind <= LAST_KIND else 0, description=words)]


def _texts(pairs: Iterable[tuple[str, str]]) -> tuple[Texts, bool]:
    """The texts by our keys, and whether some exceed the bounds."""
    found: dict[str, dict[str, None]] = {}
    room: dict[str, int] = {}
    over = False
    for name, raw in pairs:
        for key, text in keys.split_total(keys.canonical(name), _plain(raw).strip()):
            size = len(text.encode())
            values = found.get(key, {})
            if text in values:
                continue
            full = len(values) == MOST_VALUES or (not values and len(found) == MOST_KEYS)
            if full or size > room.get(key, LARGEST_TEXT):
                over = True
                continue
            found.setdefault(key, {})[text] = None
            room[key] = room.get(key, LARGEST_TEXT) - size
    return {key: tuple(values) for key, values in found.items()}, over


def _covers(covers: Iterable[Cover]) -> tuple[tuple[Cover, ...], bool]:
    """The pictures within the bounds, front covers first, and whether some exceed them."""
    kept: list[Cover] = []
    over = False
    for cover in sorted(dict.fromkeys(covers), key=lambda each: each.kind != FRONT):
        if sum(len(each.data) for each in kept) + len(cover.data) > LARGEST_COVERS:
            over = True
        else:
            kept.append(cover)
    return tuple(kept), over


def _plain(text: str) -> str:
    """`text` without zeros, which end a text in some formats, and without lone surrogates, which no file can hold."""
    return text.replace("\0", "").encode(errors="ignore").decode()
