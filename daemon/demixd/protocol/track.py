"""A track: the facts of a decoded song, the bounds of what a sound file can be, and how much room samples take. Pure.

A number outside its bounds is refused where it is decoded: what a worker says, and what lies on the share, is divided by
and multiplied with.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

RATES = range(1_000, 3_000_000)
"""Hz that a song can have; others are a damaged header's. The highest is DSD512's, eight of its bits to a frame."""

Rate = Annotated[int, Meta(ge=RATES.start, le=RATES.stop - 1)]
"""Frames a second, Hz."""

Amount = Annotated[int, Meta(ge=1, le=1 << 53)]
"""Frames or bytes of a file. JSON readers that have nothing but doubles know whole numbers up to 2^53."""

Channels = Annotated[int, Meta(ge=1, le=2)]
"""Of a decoded song and of its stems."""

SongChannels = Annotated[int, Meta(ge=1, le=1024)]
"""Of a song's file; libsndfile knows as many (SF_MAX_CHANNELS)."""


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a decoded song. `channels` are the decoded ones (1 or 2), `song_channels` the file's own."""

    format: str
    """The container: `wav`, `flac`, `mp3`, `ogg`, `mp4`, `matroska` ..."""
    codec: str = ""
    """The codec in it: `pcm`, `flac`, `mp3`, `vorbis`, `opus`, `aac`, `alac`, else FFmpeg's name."""
    subtype: str
    """libsndfile's name of the sample format: `PCM_16`, `PCM_24`, `FLOAT`, `VORBIS`, `OPUS`, `MPEG_LAYER_III` ..."""
    rate: Rate
    channels: Channels
    song_channels: SongChannels
    frames: Amount
    bitrate: Annotated[int, Meta(ge=0, le=1 << 53)] | None
    """Mean kbit/s of a lossy song, else null."""
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate


def pcm_bytes(frames: int, channels: int) -> int:
    """Bytes of so many frames as float32."""
    return frames * channels * 4
