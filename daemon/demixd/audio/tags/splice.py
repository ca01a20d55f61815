"""Another length for a part of a file, in place: a stem can be larger than the memory or what is left of the disk."""

from typing import BinaryIO

BLOCK = 1 << 20


def splice(file: BinaryIO, begin: int, end: int, new: bytes) -> None:
    """`new` instead of the bytes from `begin` to `end`. What follows moves, from its far end on if it moves back."""
    size = file.seek(0, 2)
    shift = begin + len(new) - end
    starts = range(end, size, BLOCK)
    for at in reversed(starts) if shift > 0 else starts:
        file.seek(at)
        block = file.read(BLOCK)
        file.seek(at + shift)
        file.write(block)
    file.seek(begin)
    file.write(new)
    file.truncate(size + shift)
