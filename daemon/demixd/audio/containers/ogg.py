"""Pages of Ogg (RFC 3533): finding them, checking them, and giving them another stream number.

"OggS" version flags granule(8) serial(4) sequence(4) checksum(4) n sizes(n) content(sum of sizes)
0      4       5     6          14        18          22          26 27       27 + n
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

MAGIC = b"OggS"
HEADER = 27
POSITION = slice(6, 14)
SERIAL = slice(14, 18)
CHECKSUM = slice(22, 26)

BEGINS, ENDS = 2, 4
"""Flags of a stream's first and last page."""

FLAC_COMMENTS = (b"\x04", b"\x84")
COMMENTS = (b"\x03vorbis", b"OpusTags", *FLAC_COMMENTS)
"""What a packet of comments begins with. The length of its maker's name follows, that name, and the number of comments; in
FLAC first the length of it all, in 3 bytes."""

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A whole page, `data`, and the byte at which it begins, `at`."""

    at: int
    data: bytes

    @property
    def flags(self) -> int:
        return self.data[5]

    @property
    def comments(self) -> int:
        """How many comments the page says that it begins with; 0 where it begins with something else."""
        content = self.data[HEADER + self.data[26] :]
        magic = next((each for each in COMMENTS if content.startswith(each)), None)
        if magic is None or any(self.data[POSITION]):
            return 0
        at = len(magic) + (3 if magic in FLAC_COMMENTS else 0)
        at += 4 + int.from_bytes(content[at : at + 4], "little")
        return int.from_bytes(content[at : at + 4], "little")

    @property
    def intact(self) -> bool:
        return checksum(self.data) == self.data[CHECKSUM]


def pages(file: BinaryIO) -> Iterator[Page]:
    """The pages, up to the first bytes that are no page, or a page that the file does not hold whole."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(HEADER)
        if len(head) < HEADER or not head.startswith(MAGIC):
            return
        sizes = file.read(head[26])
        data = head + sizes + file.read(sum(sizes))
        if len(data) < HEADER + head[26] + sum(sizes):
            return
        yield Page(at=at, data=data)
        at += len(data)


def checksum(page: bytes) -> bytes:
    """The CRC-32 of a page, in which its own checksum counts as zeros (RFC 3533, 6).

    Ogg takes the bits of each byte from the top, zlib from the bottom; and zlib begins with ones and inverts the result,
    which Ogg does not. So zlib gets mirrored bytes, a start and an end that cancel its own, and the result is mirrored.
    """
    blank = page[: CHECKSUM.start] + bytes(4) + page[CHECKSUM.stop :]
    mirrored = zlib.crc32(blank.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2).to_bytes(4, "little")


def renumbered(page: bytes, serial: int) -> bytes:
    """The same page of stream `serial`."""
    changed = bytearray(page)
    changed[SERIAL] = serial.to_bytes(4, "little")
    changed[CHECKSUM] = checksum(bytes(changed))
    return bytes(changed)
