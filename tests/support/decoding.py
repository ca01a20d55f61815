"""A song decoded in this process, with no other one between."""

from collections.abc import Callable
from pathlib import Path

from demixd.audio.budget import Budget
from demixd.audio.pcm import Frames, Pcm, PcmWriter, Places, Shelf, Written
from demixd.errors import disk_error
from demixd.pipeline import decode as decoding
from demixd.protocol.track import Track
from demixd.spool.files import open_song


def nothing(*_: object) -> None:
    """Nobody stops, nobody listens."""


def heard(
    path: Path,
    *,
    max_duration_s: float = 60,
    check: Callable[[], None] = nothing,
    progress: Callable[[float], None] = nothing,
    folder: Path | None = None,
) -> tuple[Track, Frames]:
    """What a song is, and its samples; by way of a file in `folder`, where that is given."""
    with Shelf(Budget(0 if folder else 1 << 30), (folder or path.parent,)) as shelf:
        track, pcm = decode(path, shelf, max_duration_s=max_duration_s, check=check, progress=progress)
        return track, pcm.read(0, pcm.frames).copy()


def decode(
    song: Path, shelf: Shelf, *, max_duration_s: float, check: Callable[[], None], progress: Callable[[float], None]
) -> tuple[Track, Pcm]:
    """As `pipeline.decoder.decode`."""
    made: list[Track] = []

    def fill(places: Places) -> tuple[Written, int]:
        writer = PcmWriter(places.memory, places.allowed, places.file)
        with open_song(song) as file:
            made[:] = [decoding.decode(file, writer, max_duration_s=max_duration_s, check=check, progress=progress)]
        return writer.written, made[0].channels

    try:
        pcm = shelf.filled(fill)
        return made[0], pcm
    except OSError as error:
        raise disk_error(error, "decoding the song") from error
