"""Tagging: each stem gets the song's tags and cover, the stem's name in title and album, and a comment on how it was made."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from demixd.audio import tags
from demixd.protocol.job import EngineFacts
from demixd.protocol.options import Options
from demixd.version import __version__


def begin_reading(song: Path, options: Options) -> Future[tags.Tags | None]:
    """The tags of `song`, or None where the options want none. They are read on a thread, while the song is separated."""
    thread = ThreadPoolExecutor(1, "tags")
    found = thread.submit(lambda: tags.read(song) if options.tags else None)
    thread.shutdown(wait=False)  # it ends when it has read
    return found


class Tagger:
    """Writes tags into the stems of one song, from several threads; a stem that cannot have them gets a warning instead."""

    def __init__(self, found: tags.Tags | None, options: Options, engine: EngineFacts) -> None:
        self._found = found
        wanted = {"title": options.title_suffix, "album": options.album_suffix}
        self._suffixed = tuple(key for key, is_wanted in wanted.items() if is_wanted)
        self._comment = (
            f"{engine.model} {engine.model_sha256[:12]} by demixd {__version__}, "
            f"shifts {options.shifts}, overlap {options.overlap:g}"
        )
        self._lock = threading.Lock()
        self._warnings = [found.warning] if found is not None and found.warning else []

    @property
    def warnings(self) -> tuple[str, ...]:
        """Each different warning so far, once."""
        with self._lock:
            return tuple(dict.fromkeys(self._warnings))

    def tag(self, path: Path, stem: str | None, format: str) -> None:
        """Write tags into the file at `path`, which holds `stem` or (None) all stems. Raises OSError."""
        if self._found is None:
            return
        suffixed = self._suffixed if stem is not None else ()
        own = tags.for_stem(self._found, stem=stem or "", comment=self._comment, suffixed=suffixed)
        try:
            warning = tags.write(path, own, format)
        except tags.TagsError as error:
            warning = str(error)
        if warning:
            with self._lock:
                self._warnings.append(warning)
