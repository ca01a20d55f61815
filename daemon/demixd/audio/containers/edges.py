"""Where a song's own bytes begin and end in its file: behind ID3v2 tags, and before an APEv2, an ID3v1 and zeros.

    [ID3v2]* SONG [APEv2] [ID3v1] [zeros]

Taggers put them around every format. FFmpeg looks for each new tag among all that it has, so that 100,000 of them take it
minutes: what decodes gets the song alone, and tags are read elsewhere (audio/tags).
"""

from typing import BinaryIO

ID3_HEADER = 10
"""Bytes of an ID3v2 tag's header, and of its footer."""

ID3V1, APEV2 = 128, 32
"""Bytes of an ID3v1 tag, and of an APEv2's header and footer."""

FEW_ZEROS, MOST_ZEROS = 16, 1 << 16
"""Zeros with which the last frame of a song may end, and those that are a part of it that has not arrived."""

MOST_TAGS = 100
"""Tags in a row; the smallest has 10 bytes, and a file of 4 GiB would hold 400 million."""


def behind_tags(file: BinaryIO) -> int:
    """The first byte behind any ID3v2 tags."""
    at = 0
    for _ in range(MOST_TAGS):
        length = id3_length(read_at(file, at, ID3_HEADER))
        if not length:
            break
        at += length
    return at


def id3_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins with `head`, header and footer included; 0 where none does.

    The header has 10 bytes: "ID3", two of version, flags (0x10: a footer of 10 bytes), and the rest's length in four
    times seven bits (ID3v2.4, 3.1).
    """
    if len(head) < ID3_HEADER or not head.startswith(b"ID3"):
        return 0
    rest = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:ID3_HEADER], (21, 14, 7, 0), strict=True))
    return ID3_HEADER + rest + (ID3_HEADER if head[5] & 0x10 else 0)


def before_tags(file: BinaryIO, *, zeros: bool) -> int:
    """The first byte behind the song: that of any APEv2 and ID3v1 at the end of the file, and (`zeros`) of zeros there."""
    stop = file.seek(0, 2)
    for _ in range(MOST_TAGS):
        length = _tag_before(file, stop) or (_zeros_before(file, stop) if zeros else 0)
        if not 0 < length < stop:
            break
        stop -= length
    return stop


def _tag_before(file: BinaryIO, stop: int) -> int:
    """Bytes of the ID3v1 or APEv2 tag that ends at `stop`; 0 without.

    An APEv2 ends with a footer of 32 bytes: "APETAGEX", version, the length of fields and footer, the number of fields,
    flags (bit 31: there is a header of 32 bytes too), all little-endian.
    """
    if read_at(file, max(0, stop - ID3V1), 3) == b"TAG":
        return ID3V1
    footer = read_at(file, max(0, stop - APEV2), APEV2)
    if not footer.startswith(b"APETAGEX") or len(footer) < APEV2:
        return 0
    length, flags = (int.from_bytes(footer[at : at + 4], "little") for at in (12, 20))
    return max(length, APEV2) + (APEV2 if flags >> 31 else 0)


def _zeros_before(file: BinaryIO, stop: int) -> int:
    """Bytes of zeros that end at `stop`, where they are more than a song ends with, and less than a hole in a copy."""
    last = read_at(file, max(0, stop - MOST_ZEROS), min(stop, MOST_ZEROS))
    found = len(last) - len(last.rstrip(b"\0"))
    return found if FEW_ZEROS < found < MOST_ZEROS else 0


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """Up to `count` bytes of `file` from `at` on. Its position is lost."""
    file.seek(at)
    return file.read(count)
