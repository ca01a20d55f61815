"""libsndfile: it reads the samples of WAV and AIFF, writes WAV, FLAC and Ogg, and checks what was written.

Rules:
- libsndfile gets an open file without a name, so it cannot guess a format by the extension.
- Blocks are read in order, without a seek: soundfile would seek after each one to where it is already, and in Vorbis a
  seek loses frames where it goes forward by little.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from demixd.audio.containers.detect import Container
from demixd.audio.formats import BITS, FORMATS, Target, compression_level
from demixd.audio.pcm import BLOCK, Frames
from demixd.audio.streams import DamagedError, Facts, NotReadableError, NotWritableError, Sink, View
from demixd.spool.files import open_own, open_song

RF64_FROM = (1 << 32) - (1 << 16)
"""Bytes of audio from which a WAV with its header may not fit into sizes of 32 bits; it is written as an RF64."""


class _File(soundfile.SoundFile):
    def seekable(self) -> bool:
        return False  # soundfile seeks only where this is true: see the rules above


class Sound:
    """An open song."""

    codec, slack, bitrate = "pcm", 0, None
    warnings: tuple[str, ...] = ()

    def __init__(self, file: soundfile.SoundFile, container: Container) -> None:
        self._file = file
        self.rate, self.channels, self.subtype = int(file.samplerate), int(file.channels), str(file.subtype)
        self.layout = container.layout(self.channels)
        self.declared: int | None = int(file.frames)

    def blocks(self) -> Iterator[Frames]:
        """See `Reader`."""
        size = (
            2 * BLOCK // max(self.channels, 2)
        )  # memory does not grow with channels, of which a header can claim 1,024
        while True:
            try:
                block = np.asarray(self._file.read(size, dtype="float32", always_2d=True), np.float32)
            except soundfile.SoundFileError as error:
                raise DamagedError(str(error)) from error
            if not len(block):
                return
            yield block


@contextmanager
def opened(view: View, container: Container) -> Iterator[Sound]:
    """The song that `view` shows. Raises `NotReadableError`."""
    try:
        file = _File(cast(BinaryIO, view))
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        detail = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        raise NotReadableError(detail) from error
    with file:
        yield Sound(file, container)


def duration_s(path: Path) -> float:
    """The duration of a song by its file's header. Raises `NotReadableError` and OSError."""
    try:
        with open_song(path.resolve()) as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            return float(sound.frames / sound.samplerate)
    except soundfile.SoundFileError as error:
        raise NotReadableError(str(error)) from error


def probe(path: Path, check: Callable[[], None] = lambda: None) -> Facts:
    """The facts of a finished file: its first and last block are read, of an Ogg all, with `check` between blocks.

    Raises `NotReadableError`, `DamagedError`, OSError, and what `check` raises.
    """
    try:
        with open_own(path, "rb") as file, _File(file.fileno(), closefd=False) as sound:
            frames, read = int(sound.frames), 0
            found = Facts(
                subtype=str(sound.subtype), rate=int(sound.samplerate), channels=int(sound.channels), frames=frames
            )
            while count := len(sound.read(BLOCK, dtype="float32", always_2d=True)):
                check()
                read += count
                if sound.format != "OGG" and read < frames - BLOCK:
                    read = sound.seek(frames - BLOCK)
    except soundfile.SoundFileError as error:
        raise NotReadableError(str(error)) from error
    if read != frames:
        raise DamagedError("it is shorter than it says")
    return found


class _New(soundfile.SoundFile):
    def seekable(self) -> bool:
        return False  # soundfile seeks to the end and back around each block where this is true


class Writer:
    """An open new file."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        self._file = file

    def write(self, block: NDArray[Any]) -> None:
        """Append `[T, C]`: float32, int16, or integers in the upper bits of 32. Raises `NotWritableError`."""
        try:
            self._file.write(block)
        except soundfile.SoundFileError as error:
            raise NotWritableError(str(error)) from error


@contextmanager
def created(sink: Sink, target: Target, frames: int) -> Iterator[Writer]:
    """A new file of `frames` frames, complete at the end of the `with` block. Raises `NotWritableError`."""
    settings: dict[str, Any] = {"samplerate": target.rate, "channels": target.channels, "subtype": target.subtype}
    if target.bitrate is not None:
        settings["compression_level"] = compression_level(target.format, target.bitrate, target.channels)
    try:
        file = _New(cast(BinaryIO, sink), "w", format=container(target, frames), **settings)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise NotWritableError(str(error)) from error
    with file:
        yield Writer(file)


def container(target: Target, frames: int) -> str:
    """libsndfile's major format for a file of `frames` frames."""
    width = BITS.get(target.subtype, 32) // 8 * target.channels
    huge = target.format == "wav" and frames * width >= RF64_FROM
    return "RF64" if huge else FORMATS[target.format].container
