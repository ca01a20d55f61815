"""Opening a song with FFmpeg: no file but that one, no decoder but those of sound, within bounds of bytes and time.

FFmpeg believes what a header says. An M4A of 1 KB can claim four billion samples, for which it would make a table of 100 GB;
the attachments of a Matroska are read, and copied; each tag is compared with all before it. Who opens a song of somebody
else's has a limit on memory besides, as the processes that decode songs and read their tags do.
"""

from functools import cache
from typing import Any, cast

import av
import av.error
from av.codec import codecs_available

from demixd.audio.streams import NotReadableError, View

DECODERS = (
    "aac aac_latm ac3 alac als amrnb amrwb ape atrac3 cook dca eac3 flac g722 g726 gsm gsm_ms mlp mp1 mp1float mp2 mp2float "
    "mp3 mp3float mpc7 mpc8 opus qdm2 ralf real_144 real_288 sipr speex tak truehd tta vorbis wavpack wmalossless wmapro "
    "wmav1 wmav2 wmavoice"
)
FAMILIES = ("pcm_", "adpcm_", "dsd_")
"""FFmpeg's decoders that a song may have, and the beginnings of others. FFmpeg tries the decoder of each stream, unless it is
told which: those of pictures are many, and hardly one of them is for a song."""

OPENING_BYTES = 1 << 27
"""Bytes that FFmpeg may read before the first sound: a film's index has 10 MB, the fonts in a Matroska 50."""

OPENING_S = 20.0


def open_container(view: View, demuxer: str) -> Any:
    """The container that `view` shows, opened by FFmpeg's `demuxer`. Raises `NotReadableError`."""
    options = {
        "format_whitelist": demuxer,
        "protocol_whitelist": "none",
        "enable_drefs": "0",
        "codec_whitelist": ",".join(decoders()),
    }
    try:
        with view.limited(OPENING_BYTES, OPENING_S):
            return av.open(cast(Any, view), "r", format=demuxer, options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        raise NotReadableError(reason(error)) from error


def reason(error: Exception) -> str:
    """FFmpeg's reason, without its number."""
    return str(error).partition("] ")[2] or str(error)


@cache
def decoders() -> frozenset[str]:
    """The names of the decoders that a song may have."""
    return frozenset(name for name in codecs_available if name in DECODERS.split() or name.startswith(FAMILIES))
