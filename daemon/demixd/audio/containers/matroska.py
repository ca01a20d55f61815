"""Elements of a Matroska (EBML, RFC 8794 and 9559): whether the file is whole, and how large its tags are.

    EBML header, Segment [SeekHead, Info, Tracks, Tags, Attachments ...]  Cluster  Cluster ... [Cues, Tags ...]

An element is a name of 1 to 4 bytes, a size of 1 to 8, and content. The zeros that the first byte begins with tell how
long each is; a size of nothing but ones is unknown, as in streams. Before a song plays, FFmpeg reads all that comes before
the first cluster, and all that a SeekHead names: places counted from the segment's first byte.
"""

from typing import BinaryIO

import msgspec

from demixd.audio.containers.edges import read_at

SEGMENT, SEEK_HEAD, TAGS, CLUSTER = (bytes.fromhex(name) for name in ("18538067", "114D9B74", "1254C367", "1F43B675"))
SEEK, POSITION = (bytes.fromhex(name) for name in ("4DBB", "53AC"))

HEAD = 1 << 16
"""Bytes that are searched for the segment."""

MOST_TAGS = 1 << 18
"""Bytes of tags: real ones have some 1,000. FFmpeg compares each with all before it: of a megabyte, for minutes."""

MOST_ELEMENTS = 1_000
"""Elements before the first cluster; there are a dozen."""


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """`at`: the first byte of its content; `size`: bytes of it, None where unknown."""

    name: bytes
    at: int
    size: int | None


def cut(file: BinaryIO, size: int) -> str | None:
    """The sign that the file, of `size` bytes, is cut short, as the end of a sentence; None where there is none."""
    segment = _segment(file)
    if segment is None:
        return "its segment is missing"
    end = segment.at + (segment.size or 0)
    return f"it holds {size:,} of {end:,} bytes" if end > size else None


def refusal(file: BinaryIO, size: int) -> str | None:
    """Why FFmpeg is not to open the file, as the end of a sentence; None where it may."""
    segment = _segment(file)
    left = [segment.at] if segment else []
    seen, tags = set[int](), 0
    while left and segment:
        at = left.pop()
        while at < size and at not in seen and (element := _element(file, at)) and element.name != CLUSTER:
            seen.add(at)
            if len(seen) > MOST_ELEMENTS:
                return "it has more elements before its sound than any song"
            if element.name == TAGS:
                tags += size if element.size is None else element.size
            if element.name == SEEK_HEAD:
                left += [segment.at + each for each in _named(file, element)]
            at = size if element.size is None else element.at + element.size
    return f"its tags have {tags:,} bytes, more than {MOST_TAGS:,}; take them out" if tags > MOST_TAGS else None


def _segment(file: BinaryIO) -> Element | None:
    at = read_at(file, 0, HEAD).find(SEGMENT)
    return _element(file, at) if at >= 0 else None


def _named(file: BinaryIO, head: Element) -> list[int]:
    """The places that a SeekHead names, the first MOST_ELEMENTS."""
    places, at = [], head.at
    end = head.at + min(head.size or 0, HEAD)
    while at < end and (seek := _element(file, at)) and seek.size is not None:
        inner = seek.at
        while seek.name == SEEK and inner < seek.at + seek.size and (part := _element(file, inner)):
            if part.name == POSITION:
                places.append(int.from_bytes(read_at(file, part.at, min(part.size or 0, 8)), "big"))
            inner = part.at + (part.size or 0)
        at = seek.at + seek.size
    return places[:MOST_ELEMENTS]


def _element(file: BinaryIO, at: int) -> Element | None:
    """The element at byte `at`; None where none can be."""
    head = read_at(file, at, 12)
    width = 9 - head[0].bit_length() if head else 9
    if width > 4 or len(head) <= width:
        return None
    bits = 9 - head[width].bit_length()
    raw = head[width : width + bits]
    if bits > 8 or len(raw) < bits:
        return None
    size, ones = int.from_bytes(raw, "big") & (1 << 7 * bits) - 1, (1 << 7 * bits) - 1
    return Element(name=head[:width], at=at + width + bits, size=None if size == ones else size)
