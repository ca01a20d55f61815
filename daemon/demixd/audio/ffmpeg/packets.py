"""Packets of a song as FFmpeg finds them, and those that its decoder refuses."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import av.error
from av.audio.stream import AudioStream
from av.packet import Packet

from demixd.audio.ffmpeg.opening import reason

AudioPacket: TypeAlias = "Packet[AudioStream]"

RETRIES = 1_000
"""How often FFmpeg is asked again that has found nothing yet."""


class Refused:
    """What FFmpeg has refused of a song since the last frame: bytes, what they begin with, and why."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.size, self.begins, self.reason = 0, b"", ""

    def add(self, packet: AudioPacket, error: Exception) -> None:
        self.begins = self.begins or bytes(packet)[:2]
        self.size += packet.size
        self.reason = self.reason or reason(error)

    def until_error(self, demux: Callable[[], Iterator[AudioPacket]]) -> Iterator[AudioPacket]:
        """The packets up to one that cannot be read."""
        for _ in range(RETRIES):
            try:
                yield from demux()
                return
            except av.error.BlockingIOError:
                continue  # no packet of an MPEG-TS in so many bytes; there may be one behind them
            except (av.error.FFmpegError, ValueError) as error:
                self.reason = self.reason or reason(error)
                return
