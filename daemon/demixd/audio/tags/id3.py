# mypy: disallow-untyped-calls=False
# mutagen says that it is typed, and most of its functions are not.
"""Tags as an ID3v2.3, for MP3 and WAV.

Windows before 10, car radios and most players of their age read no other version, and all newer programs read it too. It
lacks, against 2.4:
- UTF-8: texts are Latin-1 where they can be, else UTF-16.
- Several values of a text: they are separated by a zero, as in 2.4. A program that does not know this shows the first; a
  `/` would make two artists of AC/DC.
- One frame for the date: it is TYER, with TDAT where there is a day, and 2.4's TDRC too where the date has more parts.
- Frames for sort names, moods and original dates: those of 2.4 are used, which other programs skip.
"""

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mutagen import id3

from demixd.audio.tags import keys, lrc
from demixd.audio.tags.values import Tags, Texts

LANGUAGE = "eng"
"""The language of comments and lyrics: ID3 requires one, and Windows and iTunes look for this one."""


def tag(tags: Tags) -> bytes:
    """The bytes of the whole tag, header included, without padding."""
    found = id3.ID3()
    for frame in _texts(tags.texts):
        found.add(frame)
    for cover in tags.covers:
        words = cover.description
        while f"APIC:{words}" in found:
            words += " "  # in an ID3 tag each picture's description must be different
        encoding = _encoding([words])
        found.add(id3.APIC(encoding=encoding, mime=cover.mime, type=cover.kind, desc=words, data=cover.data))
    whole = io.BytesIO()
    found.save(whole, v1=id3.ID3v1SaveOptions.REMOVE, v2_version=3, v23_sep=None, padding=lambda _: 0)
    return whole.getvalue()


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
            yield from (
                id3.COMM(encoding=encoding, lang=LANGUAGE, desc=d, text=[text]) for d, text in _described(values)
            )
        elif key == "lyrics":
            yield from (id3.USLT(encoding=encoding, lang=LANGUAGE, desc=d, text=text) for d, text in _described(values))
        elif key == "syncedlyrics" and (timed := lrc.timed(values[0])):
            yield id3.SYLT(encoding=encoding, lang=LANGUAGE, format=2, type=1, desc="", text=timed)
        elif key not in (*keys.TOTALS, *keys.TOTALS.values()):
            yield id3.TXXX(encoding=encoding, desc=keys.FREE.get(key, key.upper()), text=list(values))


def _described(values: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Description and text of each comment: ID3 requires different ones; most programs show the comment that has none."""
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
