"""Another comment for an Ogg stream, whose packets of audio stay in the pages they are in (RFC 3533, RFC 7845).

Vorbis: [identification] [comment, setup] [audio] ...     a bracket begins on a page of its own
Opus:   [identification] [comment] [audio] ...

mutagen copies the rest of a comment for each 4 KiB of it: with a cover of 10 MB that took half a minute a stem.
"""

from collections.abc import Iterator
from typing import BinaryIO

from demixd.audio.containers import ogg
from demixd.audio.tags.splice import splice

SEQUENCE = slice(18, 22)
CONTINUES = 1
MOST_SEGMENTS = 255
"""Of a page. All but the last of a packet's have 255 bytes, and the last has less."""

NOWHERE = b"\xff" * 8
"""The position of a page in which no packet ends."""


def comment(file: BinaryIO, new: bytes, headers: int) -> None:
    """Replaces the second packet by `new`; `headers` is how many there are before the audio. Raises ValueError."""
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
    """The next packets, which must end with a page, and where that page ends."""
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
    """Packets as the pages 1, 2, ..."""
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
