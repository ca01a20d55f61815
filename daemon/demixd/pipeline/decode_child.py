"""`python -m demixd.pipeline.decode_child`: decodes songs, one after the other, that come over the socket that is its standard
input. `decoder` runs it and says why."""

import io
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import BinaryIO, cast

import msgspec

from demixd.audio.pcm import PcmWriter
from demixd.errors import AudioProcessingError, Code
from demixd.pipeline.decode import decode
from demixd.pipeline.decoder import LONGEST, Made, Order, Reached, Refused
from demixd.spool.child_process import end_with_parent, first_to_go

MEMORY = 1 << 30
"""Bytes of address space. Python and the libraries take 220 MiB of it, and no song that was met takes 100 more."""

TELL_S = 0.25
"""The least time between two messages of one song."""


class _Song(io.FileIO):
    """The song's file; `reached` is called where a part is read that was not read before."""

    def __init__(self, handle: int, reached: Callable[[int], None]) -> None:
        super().__init__(handle, "rb")
        self._furthest, self._reached = 0, reached

    def readinto(self, buffer: object) -> int:
        count = super().readinto(buffer)  # type: ignore[arg-type]
        if (at := self.tell()) > self._furthest:
            self._furthest = at
            self._reached(at)
        return count


class _Teller:
    """Tells the other side how far the song is."""

    def __init__(self, line: socket.socket) -> None:
        self._line, self._told_at = line, 0.0
        self._fraction, self._byte = 0.0, 0

    def read(self, byte: int) -> None:
        self._byte = byte
        self._tell()

    def decoded(self, fraction: float) -> None:
        self._fraction = fraction
        self._tell()

    def _tell(self) -> None:
        if time.monotonic() >= self._told_at + TELL_S:
            self._told_at = time.monotonic()
            self._line.send(msgspec.json.encode(Reached(fraction=self._fraction, byte=self._byte)))


def _carried_out(order: Order, song: int, writer: PcmWriter, line: socket.socket) -> Made | Refused:
    teller = _Teller(line)
    try:
        with io.BufferedReader(_Song(song, teller.read)) as file:
            track = decode(
                cast(BinaryIO, file),
                writer,
                max_duration_s=order.max_duration_s,
                check=lambda: None,  # who wants it to stop kills this process
                progress=teller.decoded,
            )
    except AudioProcessingError as error:
        return Refused(code=error.code, message=error.message, detail=error.detail and error.detail[: LONGEST // 8])
    except MemoryError:
        message = f"The song cannot be decoded: it takes more than {MEMORY >> 20} MiB of memory; convert it."
        return Refused(code=Code.BAD_AUDIO, message=message, detail=None)
    except Exception as error:  # noqa: BLE001 - the boundary
        detail = "".join(traceback.format_exception(error))[-LONGEST // 8 :]
        message = f"An internal error in decoding: {type(error).__name__}; report it with the detail."
        return Refused(code=Code.INTERNAL_ERROR, message=message, detail=detail)
    return Made(track=track, written=writer.written)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    first_to_go()
    if not end_with_parent():
        sys.exit(1)
    line = socket.socket(fileno=os.dup(0))
    while True:
        data, handles, _, _ = socket.recv_fds(line, LONGEST, 3)
        if not data:
            return
        order = msgspec.json.decode(data, type=Order)
        song, memory, *file = handles
        try:
            answer = _carried_out(order, song, PcmWriter(memory, order.allowed, file[0] if file else None), line)
        finally:
            for handle in (memory, *file):
                os.close(handle)
        line.send(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
