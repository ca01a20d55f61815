# mypy: disallow-untyped-calls=False
# mutagen says that it is typed, and most of its functions are not.
"""Tags as an ID3v2.3, for MP3 and WAV.

Windows before 10, car radios and most players of their age know no other, and the newer ones know it too. What it lacks
against 2.4:
- UTF-8: texts are Latin-1 where that will do, else UTF-16.
- Several values: they are separated by a zero, as in 2.4. Who does not know that shows the first; a `/` would make two
  artists of AC/DC.
- One frame for the date: it is TYER, with TDAT where there is a day, and 2.4's TDRC too where that is not all of it.
- Frames for sort names, moods and original dates: those of 2.4 are used, which others pass over.
"""

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mutagen import id3

from demixd.audio.tags import keys
from demixd.audio.tags.values import Tags, Texts

HEADER = 10

LANGUAGE = "eng"
"""Of comments and lyrics: ID3 wants one, and Windows and iTunes look for this."""


def tag(tags: Tags) -> bytes:
    """The whole tag, header included."""
    found = id3.ID3()
    for frame in _texts(tags.texts):
        found.add(frame)
    for cover in tags.covers:
        words = cover.description
        while f"APIC:{words}" in found:
            words += " "  # ID3 tells pictures apart by it
        encoding = _encoding([words])
        found.add(id3.APIC(encoding=encoding, mime=cover.mime, type=cover.kind, desc=words, data=cover.data))
    whole = io.BytesIO()
    found.save(whole, v1=id3.ID3v1SaveOptions.REMOVE, v2_version=3, v23_sep=None, padding=lambda _: 0)
    return whole.getvalue()


def length(head: bytes) -> int:
    """Bytes of the tag that begins with `head`, 0 if none does. They are told in four times seven bits."""
    if len(head) < HEADER or not head.startswith(b"ID3"):
        return 0
    return HEADER + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:HEADER], (21, 14, 7, 0), strict=True))


def _texts(texts: Texts) -> Iterator[Any]:
    for name, key in (("TRCK", "tracknumber"), ("TPOS", "discnumber")):
        if pair := _pair(texts, key):
            yield getattr(id3, name)(encoding=_encoding([pair]), text=[pair])
    for key, values in texts.items():
        encoding = _encoding(values)
        if key in keys.ID3:
            yield getattr(id3, keys.ID3[key])(encoding=encoding, text=list(values))
        elif key == "date":
            yield from _date(values[0])
        elif key == "comment":
            yield from (id3.COMM(encoding=encoding, lang=LANGUAGE, desc=d, text=[text]) for d, text in _told(values))
        elif key == "lyrics":
            yield from (id3.USLT(encoding=encoding, lang=LANGUAGE, desc=d, text=text) for d, text in _told(values))
        elif key not in (*keys.TOTALS, *keys.TOTALS.values()):
            yield id3.TXXX(encoding=encoding, desc=keys.FREE.get(key, key.upper()), text=list(values))


def _told(values: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Texts that ID3 tells apart by a description: the first has none, which is where most programs look."""
    for number, text in enumerate(values, 1):
        yield (str(number) if number > 1 else ""), text


def _pair(texts: Texts, key: str) -> str:
    """A number and its total as one text; empty if there is neither."""
    number, total = (texts.get(each, ("",))[0] for each in (key, keys.TOTALS[key]))
    return f"{number or 0}/{total}" if total else number


def _date(text: str) -> Iterator[Any]:
    told = re.match(r"([0-9]{4})(?:-([0-9]{2})-([0-9]{2}))?", text)
    if not told:
        yield id3.TXXX(encoding=_encoding([text]), desc="DATE", text=[text])
        return
    year, month, day = told.groups()
    yield id3.TYER(encoding=0, text=[year])
    if day:
        yield id3.TDAT(encoding=0, text=[day + month])
    if told.group() != text:
        yield id3.TDRC(encoding=0, text=[text])


def _encoding(texts: Iterable[str]) -> int:
    try:
        "".join(texts).encode("latin-1")
    except UnicodeEncodeError:
        return int(id3.Encoding.UTF16)
    return int(id3.Encoding.LATIN1)
