"""Boxes (atoms) of an MP4 or MOV, side by side: ISO/IEC 14496-12, 4.2.

A box is size (32 bits), kind, content. Size 1: 64 bits of size follow the kind. Size 0: up to the end.
"""

from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from demixd.audio.containers.edges import read_at

MOST = 100_000
"""Boxes on one level; a film of four hours in fragments of a second has 30,000."""


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """`start` and `content`: the bytes at which its header and its content begin; `stop`: its end, maybe beyond the file's."""

    kind: bytes
    start: int
    content: int
    stop: int


def walk(file: BinaryIO, start: int, stop: int) -> Iterator[Box]:
    """The boxes that begin between `start` and `stop`, up to one whose size is less than its header. Raises OSError."""
    for _ in range(MOST):
        if start + 8 > stop:
            return  # before the seek: a size of 64 bits can lead beyond any file
        head = read_at(file, start, 16)
        if len(head) < 8:
            return
        size, content = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        end = start + size if size else stop
        if end < content:
            return
        yield Box(kind=head[4:8], start=start, content=content, stop=end)
        start = end
