"""A song decoded in this process, with no other one between."""

from collections.abc import Callable
from pathlib import Path

from demixd.audio.pcm import PcmWriter
from demixd.errors import disk_error
from demixd.pipeline import decode as decoding
from demixd.protocol.track import Track
from demixd.spool.files import open_own, open_song


def decode(
    song: Path, pcm: Path, *, max_duration_s: float, check: Callable[[], None], progress: Callable[[float], None]
) -> Track:
    """As `pipeline.decoder.decode`."""
    try:
        with open_song(song) as file, PcmWriter(open_own(pcm, "x+b")) as writer:
            return decoding.decode(file, writer, max_duration_s=max_duration_s, check=check, progress=progress)
    except OSError as error:
        raise disk_error(error, "decoding the song") from error
