"""Opening a song with FFmpeg: no file but that one, no decoder but those of sound, within bounds of bytes, time and memory.

FFmpeg believes what a header says. An M4A of 1 KB can claim four billion samples, for which it would make a table of 100 GB;
the attachments of a Matroska are read, and copied; each tag is compared with all before it. The kernel counts what a process
may write to (RLIMIT_DATA): above the bound FFmpeg gets no memory, and says so. The other threads of the process have the same
bound for these milliseconds.
"""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import av
import av.error
from av.codec import codecs_available

from demixd.audio.streams import NotReadableError, View
from demixd.spool.files import open_file

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

MEMORY = 1 << 30
"""Bytes of memory above what the process has. An index of ten hours of film takes 100 MB."""

_lock = threading.Lock()


def open_container(view: View, demuxer: str) -> Any:
    """The container that `view` shows, opened by FFmpeg's `demuxer`. Raises `NotReadableError`."""
    options = {
        "format_whitelist": demuxer,
        "protocol_whitelist": "none",
        "enable_drefs": "0",
        "codec_whitelist": ",".join(decoders()),
    }
    try:
        with view.limited(OPENING_BYTES, OPENING_S), _bounded():
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


@contextmanager
def _bounded() -> Iterator[None]:
    """Within, the process gets at most MEMORY bytes more; nothing is bounded where the kernel does not tell (Linux does)."""
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        try:
            wanted = _data_bytes() + MEMORY
        except OSError:
            wanted = hard
        most = min((each for each in (wanted, soft, hard) if each != resource.RLIM_INFINITY), default=soft)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """The memory that this process may write to (proc(5), statm: the sixth number, in pages). Raises OSError."""
    handle = open_file("/proc/self/statm")
    try:
        return int(os.read(handle, 200).split()[5]) * resource.getpagesize()
    finally:
        os.close(handle)
