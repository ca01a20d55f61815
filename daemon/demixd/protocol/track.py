"""A track: the facts of a decoded song, and how much room its samples take."""

import msgspec

RATES = range(1_000, 3_000_000)
"""Hz that a song can have; the rest is a damaged header. The highest is DSD512's, eight of its bits to a frame."""


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a decoded song. `channels` counts the spool's (1 or 2), `song_channels` the file's own."""

    format: str
    """Container in lower case, as the sidecar shows it: `wav`, `flac`, `mp3`, `ogg`, `mp4`, `matroska` ..."""
    codec: str = ""
    """What the audio in it is coded with: `pcm`, `flac`, `mp3`, `vorbis`, `opus`, `aac`, `alac`, else FFmpeg's name."""
    subtype: str
    """libsndfile's name of the sample format: `PCM_16`, `PCM_24`, `FLOAT`, `VORBIS`, `OPUS`, `MPEG_LAYER_III` ..."""
    rate: int
    channels: int
    song_channels: int
    frames: int
    bitrate: int | None
    """Mean kbit/s of a lossy song, else null."""
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate


def pcm_bytes(frames: int, channels: int) -> int:
    """Bytes of so many frames as float32."""
    return frames * channels * 4
