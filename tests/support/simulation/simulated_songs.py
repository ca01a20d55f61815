"""Songs for a worker that hears nothing: a line of text that says how long they are, and bytes of their own."""

import hashlib
import os
import re
from pathlib import Path

from demixd.errors import AudioProcessingError, Code
from demixd.protocol.track import Track

END = b"END\n"
RATE = 44_100


def make_song(path: Path, seconds: float = 1.0, *, channels: int = 2, size: int = 0) -> Path:
    """A song at `path`, which no other name and length has the bytes of; of `size` bytes at least."""
    head = f"SONG of {seconds} s, {channels} channels, {path.suffix[1:]}\n".encode()
    own = hashlib.sha256(os.fsencode(path.name) + head).hexdigest().encode()
    path.write_bytes(head + own + b"." * (size - len(head) - len(own)) + END)
    return path


def track_of(data: bytes) -> Track:
    """What a decoder would say of a song. Raises AudioProcessingError where it is none, or a part of one."""
    found = re.match(rb"SONG of ([0-9.]+) s, ([12]) channels, (\w+)\n", data)
    if found is None:
        raise AudioProcessingError(Code.BAD_AUDIO, "This is no song.")
    if not data.endswith(END):
        raise AudioProcessingError(Code.TRUNCATED, "The song ends before its end.")
    return Track(
        format=found[3].decode(),
        subtype="PCM_16",
        rate=RATE,
        channels=int(found[2]),
        song_channels=int(found[2]),
        frames=round(float(found[1]) * RATE),
        bitrate=None,
    )
