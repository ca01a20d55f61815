"""A new comment for an Ogg stream, whose packets of audio stay in their pages (RFC 3533, RFC 7845).

Vorbis: [identification] [comment, setup] [audio] ...     a bracket begins on a page of its own
Opus:   [identification] [comment] [audio] ...

mutagen does not write it: for each 4 KiB of a comment it copies the rest, which took half a minute for a cover of 10 MB.
"""

from collections.abc import Iterator
from typing import BinaryIO

from demixd.audio.containers import ogg
from demixd.audio.tags.splice import splice

SEQUENCE = slice(18, 22)
CONTINUES = 1
MOST_SEGMENTS = 255
"""Segments of a page. Each segment of a packet has 255 bytes but the last, which has fewer."""

NOWHERE = b"\xff" * 8
"""The position of a page in which no packet ends."""


def comment(file: BinaryIO, new: bytes, headers: int) -> None:
    """Replace the second packet by `new`; `headers` packets come before the audio. Raises ValueError and OSError."""
    pages = ogg.pages(file)
    first = next(pages, None)
    if first is None:
        raise ValueError("it is no Ogg")
    end, old = _packets(pages, headers - 1)
    serial = int.from_bytes(first.data[ogg.SERIAL], "little")
    splice(file, len(first.data), end, b"".join(_paged([new, *old[1:]], serial)))
    for number, page in enumerate(ogg.pages(file)):
        if int.from_bytes(page.data[SEQUENCE], "little") != number:
            file.seek(page.at)
            file.write(ogg.renumbered(_numbered(page.data, number), serial))


def _packets(pages: Iterator[ogg.Page], count: int) -> tuple[int, list[bytes]]:
    """The next `count` packets, whose last must end with its page, and the byte at which that page ends."""
    packets: list[list[bytes]] = [[]]
    for page in pages:
        at = ogg.HEADER + page.data[ogg.HEADER - 1]
        for size in page.data[ogg.HEADER : at]:
            packets[-1].append(page.data[at : at + size])
            at += size
            if size < MOST_SEGMENTS:
                packets.append([])
        if len(packets) > count:
            break
    if len(packets) != count + 1 or packets[-1]:
        raise ValueError("its headers are not in pages of their own")
    return page.at + len(page.data), [b"".join(parts) for parts in packets[:-1]]


def _paged(packets: list[bytes], serial: int) -> Iterator[bytes]:
    """The pages 1, 2, ... that hold `packets`."""
    segments = [size for packet in packets for size in (*[255] * (len(packet) // 255), len(packet) % 255)]
    content = memoryview(b"".join(packets))
    at = 0
    for number, start in enumerate(range(0, len(segments), MOST_SEGMENTS), 1):
        sizes = bytes(segments[start : start + MOST_SEGMENTS])
        flags = CONTINUES if start and segments[start - 1] == 255 else 0
        position = NOWHERE if min(sizes) == 255 else bytes(8)
        head = ogg.MAGIC + bytes([0, flags]) + position + bytes(12) + bytes([len(sizes)])
        page = head + sizes + content[at : at + sum(sizes)]
        yield ogg.renumbered(_numbered(page, number), serial)
        at += sum(sizes)


def _numbered(page: bytes, number: int) -> bytes:
    return page[: SEQUENCE.start] + number.to_bytes(4, "little") + page[SEQUENCE.stop :]
