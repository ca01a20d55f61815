"""Replacing a part of a file by one of another length, in place: a stem may be larger than memory or the free disk."""

from typing import BinaryIO

from demixd.spool.files import CHUNK


def splice(file: BinaryIO, begin: int, end: int, new: bytes) -> None:
    """Replace the bytes from `begin` to `end` by `new`. What follows is moved by chunks, the last first if `new` is longer."""
    size = file.seek(0, 2)
    shift = begin + len(new) - end
    starts = range(end, size, CHUNK)
    for at in reversed(starts) if shift > 0 else starts:
        file.seek(at)
        block = file.read(CHUNK)
        file.seek(at + shift)
        file.write(block)
    file.seek(begin)
    file.write(new)
    file.truncate(size + shift)
