"""The chunks of a WAV that hold tags: `LIST` with its `INFO`, and `id3 `.

    "RIFF" size "WAVE"  [name size content pad]...     sizes: 32 bits, little-endian; pad: a byte after an odd size
    "LIST" size "INFO"  [name size text pad]...        texts end with a zero

An RF64 has its audio's true size in a chunk `ds64`, which comes first.
"""

from collections.abc import Iterable
from typing import BinaryIO

LARGEST = (1 << 32) - 1
"""What a size can say."""

MOST_CHUNKS = 10_000


def tag_chunks(file: BinaryIO) -> tuple[bytes, bytes]:
    """The content of the first `LIST` that is an `INFO`, behind that word, and of the first `id3 `; empty without."""
    info = id3 = b""
    size, at, audio = file.seek(0, 2), 12, 0
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if name == b"ds64":
            audio = int.from_bytes(file.read(16)[8:], "little")
        elif name == b"data" and length == LARGEST:
            length = audio or size
        elif name == b"LIST" and not info and file.read(4) == b"INFO":
            info = file.read(min(length, size) - 4)
        elif name in (b"id3 ", b"ID3 ") and not id3:
            id3 = file.read(min(length, size))
        at += 8 + length + (length & 1)
    return info, id3


def texts(info: bytes) -> list[tuple[str, str]]:
    """The texts in an `INFO`, by their four letters. Programs write UTF-8 or what Windows has for Western Europe."""
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
    """A `LIST` chunk of texts by their four letters."""
    return chunk(b"LIST", b"INFO" + b"".join(chunk(name.encode(), text.encode() + b"\0") for name, text in said))


def chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) & 1)
