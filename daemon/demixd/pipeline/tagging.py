"""What the stems of a song say of themselves: the song's tags and cover, the stem in the title, and how it was made."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from demixd.audio import tags
from demixd.audio.ffmpeg import reader
from demixd.protocol.job import EngineFacts
from demixd.protocol.options import Options
from demixd.protocol.track import Track
from demixd.version import __version__


def begin(song: Path, track: Track, options: Options) -> Future[tags.Tags | None]:
    """The tags of `song`, or None where none are wanted. They are read while something else is done."""
    thread = ThreadPoolExecutor(1, "tags")
    found = thread.submit(_read, song, track, options)
    thread.shutdown(wait=False)  # it ends when it has read
    return found


def _read(song: Path, track: Track, options: Options) -> tags.Tags | None:
    if not options.tags:
        return None
    said = reader.metadata(song, "matroska") if track.format == "matroska" else {}  # mutagen cannot read that
    return tags.read(song, fallback=said)


class Dress:
    """Tags for the stems of one song. Stems without them are better than none: what goes wrong is a warning."""

    def __init__(self, found: tags.Tags | None, options: Options, engine: EngineFacts) -> None:
        self._found, self._suffix = found, options.title_suffix
        self._comment = (
            f"{engine.model} {engine.model_sha256[:12]} by demixd {__version__}, "
            f"shifts {options.shifts}, overlap {options.overlap:g}"
        )
        self._lock = threading.Lock()
        self._warnings = [found.warning] if found is not None and found.warning else []

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong so far, each thing once."""
        with self._lock:
            return tuple(dict.fromkeys(self._warnings))

    def put_on(self, path: Path, stem: str | None, format: str) -> None:
        """Tags into the file at `path`, for `stem` or (None) all of them. Raises OSError."""
        if self._found is None:
            return
        suffix = self._suffix and stem is not None
        mine = tags.for_stem(self._found, stem=stem or "", comment=self._comment, suffix=suffix)
        try:
            tags.write(path, mine, format)
        except tags.TagsError as error:
            with self._lock:
                self._warnings.append(str(error))
