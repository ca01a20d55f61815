"""What the stems of a song say of themselves: the song's tags and cover, the stem in the title, and how it was made."""

import threading
from pathlib import Path

from stemd import __version__, tags
from stemd.ffmpeg import reader
from stemd.job import EngineFacts, Options
from stemd.track import Track


class Dress:
    """Tags for the stems of one song. Stems without them are better than none: what goes wrong is a warning."""

    def __init__(self, found: tags.Tags | None, comment: str, *, suffix: bool) -> None:
        self._found, self._comment, self._suffix = found, comment, suffix
        self._lock = threading.Lock()
        self._warnings = [found.warning] if found is not None and found.warning else []

    @classmethod
    def of(cls, song: Path, track: Track, options: Options, engine: EngineFacts) -> "Dress":
        """The tags of `song`; none where the options want none."""
        comment = (
            f"{engine.model} {engine.model_sha256[:12]} by stemd {__version__}, "
            f"shifts {options.shifts}, overlap {options.overlap:g}"
        )
        if not options.tags:
            return cls(None, comment, suffix=False)
        said = reader.metadata(song, "matroska") if track.format == "matroska" else {}  # mutagen cannot read that
        return cls(tags.read(song, fallback=said), comment, suffix=options.title_suffix)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong so far, each thing once."""
        with self._lock:
            return tuple(dict.fromkeys(self._warnings))

    def put_on(self, path: Path, stem: str | None, format: str) -> None:
        """Tags into the file at `path`, for `stem` or (None) all of them. Raises OSError."""
        if self._found is None:
            return
        mine = tags.for_stem(
            self._found, stem=stem or "", comment=self._comment, suffix=self._suffix and stem is not None
        )
        try:
            tags.write(path, mine, format)
        except tags.TagsError as error:
            with self._lock:
                self._warnings.append(str(error))
