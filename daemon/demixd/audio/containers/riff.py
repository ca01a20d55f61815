"""The chunks of WAV (RIFF and RF64) and AIFF (FORM), and those of a WAV that hold tags: `LIST` with its `INFO`, and `id3 `.

    "RIFF" size "WAVE"  [name size content pad]...     sizes: 32 bits, little-endian; pad: a byte after an odd size
    "FORM" size "AIFF"  [name size content pad]...     the same, big-endian
    "LIST" size "INFO"  [name size text pad]...        texts end with a zero

An RF64 (EBU Tech 3306) has its audio's true size in the chunk `ds64`, which comes first.
"""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal

import msgspec

from demixd.audio.containers.edges import read_at

Order = Literal["big", "little"]

LARGEST = (1 << 32) - 1
"""The largest size of 32 bits."""

MOST_CHUNKS = 10_000
"""A WAV has a dozen. A file of 4 GiB can hold 500 million, which would read_at minutes to walk."""


class Chunk(msgspec.Struct, frozen=True):
    """`at`: the first byte of its content; `size`: bytes of the content as the file declares them, true or not."""

    name: bytes
    at: int
    size: int


def walk(file: BinaryIO, order: Order = "little") -> Iterator[Chunk]:
    """The chunks of a RIFF, RF64 or FORM file, up to the first whose header the file does not hold. Its position is lost."""
    end, at, audio = file.seek(0, 2), 12, 0
    for _ in range(MOST_CHUNKS):
        head = read_at(file, at, 8)
        if len(head) < 8:
            return
        chunk = Chunk(head[:4], at + 8, int.from_bytes(head[4:], order))
        yield chunk
        if chunk.name == b"ds64":
            audio = ds64_audio(file, chunk)
        size = (audio or end) if chunk.name == b"data" and chunk.size == LARGEST else chunk.size
        at = chunk.at + size + (size & 1)


def ds64_audio(file: BinaryIO, ds64: Chunk) -> int:
    """Bytes of the audio by the chunk `ds64`: RIFF size, data size, sample count, each of 64 bits."""
    return int.from_bytes(read_at(file, ds64.at + 8, 8), "little")


def tag_chunks(file: BinaryIO) -> tuple[bytes, bytes]:
    """The content of the first `LIST` that is an `INFO`, behind that word, and of the first `id3 `; empty without."""
    info = id3 = b""
    size = file.seek(0, 2)
    for chunk in walk(file):
        length = min(chunk.size, size)
        if chunk.name == b"LIST" and not info and read_at(file, chunk.at, 4) == b"INFO":
            info = read_at(file, chunk.at + 4, max(0, length - 4))
        elif chunk.name in (b"id3 ", b"ID3 ") and not id3:
            id3 = read_at(file, chunk.at, length)
    return info, id3


def texts(info: bytes) -> list[tuple[str, str]]:
    """The texts in an `INFO`, with their names of four letters. Programs write UTF-8 or Windows' code page 1252."""
    found = []
    at = 0
    while at + 8 <= len(info):
        name, length = info[at : at + 4], int.from_bytes(info[at + 4 : at + 8], "little")
        raw = info[at + 8 : at + 8 + length].partition(b"\0")[0]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("cp1252", "replace")
        found.append((name.decode("latin-1"), text))
        at += 8 + length + (length & 1)
    return found


def info_chunk(said: Iterable[tuple[str, str]]) -> bytes:
    """A `LIST` chunk of texts, each with its name of four letters."""
    return chunk(b"LIST", b"INFO" + b"".join(chunk(name.encode(), text.encode() + b"\0") for name, text in said))


def chunk(name: bytes, content: bytes) -> bytes:
    """A whole chunk, padded."""
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) & 1)
