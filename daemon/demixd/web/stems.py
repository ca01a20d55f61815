"""A file of a result as an answer of HTTP, whole or a range of it; and all files as a ZIP that is made while it is sent.

Ranges (RFC 9110, 14): one of bytes is answered with 206, one beyond the end with 416, several or other units with the whole. The
ETag is made of what stat(2) says, so that a file which others have replaced is never put together with the old one.
"""

import asyncio
import os
import re
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from io import RawIOBase
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK = 256 * 1024
"""Bytes that are read, and held in memory, at a time."""

_RANGE = re.compile(r"bytes=(?:(?P<first>[0-9]{1,18})-(?P<last>[0-9]{0,18})|-(?P<end>[0-9]{1,18}))")


class UnsatisfiableError(Exception):
    """The range begins behind the file's end."""


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """The first byte, and that behind the last one, of a Range header; None where the whole is to be sent.

    Raises UnsatisfiableError.
    """
    if (found := _RANGE.fullmatch(header.replace(" ", ""))) is None:
        return None
    if found["end"] is not None:
        first, stop = max(0, size - int(found["end"])), size
    else:
        first, stop = int(found["first"]), min(size, int(found["last"] or size) + 1)
        if found["last"] and int(found["last"]) < first:
            return None  # no range at all
    if first >= size or first >= stop:
        raise UnsatisfiableError
    return first, stop


def etag_of(status: os.stat_result) -> str:
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'


def respond(file: BinaryIO, name: str, media_type: str, request: Mapping[str, str], *, head: bool) -> Response:
    """The answer with an open file, which it closes. `request` are the request's headers; `head`: without the bytes."""
    status = os.fstat(file.fileno())
    size, etag = status.st_size, etag_of(status)
    headers = {
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "etag": etag,
        "content-disposition": as_attachment(name),
    }
    if etag in [each.strip() for each in request.get("if-none-match", "").split(",")]:
        file.close()
        return Response(status_code=304, headers=headers)
    first, stop, code = 0, size, 200
    if request.get("range") and request.get("if-range", etag) == etag:
        try:
            found = range_of(request["range"], size)
        except UnsatisfiableError:
            file.close()
            return Response(status_code=416, headers=headers | {"content-range": f"bytes */{size}"})
        if found is not None:
            (first, stop), code = found, 206
            headers["content-range"] = f"bytes {first}-{stop - 1}/{size}"
    headers["content-length"] = str(stop - first)
    if head:
        file.close()
        return Response(status_code=code, headers=headers, media_type=media_type)
    return StreamingResponse(_bytes(file, first, stop), code, headers, media_type)


def as_attachment(name: str) -> str:
    """The Content-Disposition by which a browser keeps the file, and never shows it as a page of ours (RFC 6266)."""
    leaf = name.rpartition("/")[2]
    plain = re.sub(r'[^\x20-\x7e]|["\\]', "_", leaf)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(leaf, safe='')}"


async def _bytes(file: BinaryIO, first: int, stop: int) -> AsyncIterator[bytes]:
    with file:
        file.seek(first)
        while first < stop and (data := await asyncio.to_thread(file.read, min(CHUNK, stop - first))):
            first += len(data)
            yield data


class _Sink(RawIOBase):
    """What a ZIP is written to: it keeps the bytes until they are taken."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        before = len(self._data)
        self._data += data
        return len(self._data) - before

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


def zipped(folder: str, names: Sequence[str], opened: Callable[[str], BinaryIO]) -> Iterator[bytes]:
    """A ZIP of files, stored as they are (sound does not get smaller), in a folder of that name. Raises what `opened` does.

    Sizes follow their files (ZIP64 data descriptors), since nothing is held back until the end.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in names:
            with (
                opened(name) as file,
                archive.open(zipfile.ZipInfo(f"{folder}/{name}"), "w", force_zip64=True) as entry,
            ):
                while data := file.read(CHUNK):
                    entry.write(data)
                    yield sink.take()
    yield sink.take()


async def in_turn(pieces: Iterator[bytes], slots: asyncio.Semaphore) -> AsyncIterator[bytes]:
    """The pieces, each made in a thread, while one of `slots` is held."""
    async with slots:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
