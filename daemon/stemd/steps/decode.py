"""The song becomes a spool of float32 and the facts of a track.

    song --View--> libsndfile --blocks--> two channels --> spool

Rules:
- Content decides what a file is, never its name: libsndfile gets no name, so it cannot guess by the extension.
- What the container declares is checked first (containers.py); a song that is cut short is never half of a track.
- Blocks are read in order and never sought: soundfile seeks to where it already is after each read, which ends FLAC of
  unknown length with an error and makes mpg123 start over without its bit reservoir.
"""

from collections.abc import Callable, Iterator
from io import SEEK_CUR, SEEK_END, SEEK_SET
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile

from stemd import containers, downmix
from stemd.containers import Container
from stemd.errors import AudioProcessingError, Code
from stemd.track import BLOCK, Frames, SpoolWriter, Track, disk_error

ENDLESS = 1 << 62
"""From here on a number of frames means that libsndfile does not know it (SF_COUNT_MAX)."""

RATES = range(1_000, 1_000_001)
"""Hz that can be meant; the rest is a damaged header."""

SLACK = 2 * 1152
"""Frames by which an MP3 may come out short: its first ones can lean on a bit reservoir that is not there."""


def decode(
    song: Path,
    spool: Path,
    *,
    max_duration_s: float,
    check: Callable[[], None],
    progress: Callable[[float], None],
) -> Track:
    """Decodes `song` into `spool`, `[T, 1]` for mono and `[T, 2]` for everything else.

    `check` is called between blocks and stops by raising; `progress` gets fractions of the song. Raises
    `AudioProcessingError`: BAD_AUDIO, TRUNCATED, NOT_FINITE, TOO_LONG, NO_SPACE or IO_ERROR.
    """
    try:
        with song.open("rb") as file:
            container = _accepted(containers.look(file))
            view = View(file, container.head, container.start)
            with _opened(view) as sound, SpoolWriter(spool) as writer:
                _refuse_early(sound, max_duration_s)
                for block in _blocks(sound, view, container, check):
                    writer.write(block)
                    if writer.frames > max_duration_s * sound.samplerate:
                        raise _too_long(None, max_duration_s)
                    progress(_fraction(writer.frames, sound, view))
            return _track(sound, container, writer.frames, view)
    except OSError as error:
        raise disk_error(error, "decoding the song") from error


class View:
    """A file whose first `start` bytes are replaced by `head`; what libsndfile reads from.

    soundfile loses exceptions raised under libsndfile, so an OSError is kept in `error` and looks like the file's end.
    """

    def __init__(self, file: BinaryIO, head: bytes, start: int) -> None:
        self._file, self._head = file, head
        self._shift = start - len(head)
        self.size = file.seek(0, SEEK_END) - self._shift
        self.furthest = 0
        self.error: OSError | None = None
        self._at = 0

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = max(0, offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        data = self._head[self._at : self._at + count]
        try:
            if len(data) < count:
                self._file.seek(self._at + len(data) + self._shift)
                data += self._file.read(count - len(data))
        except OSError as error:
            self.error = error
        self._at += len(data)
        self.furthest = max(self.furthest, self._at)
        return data


class _Sound(soundfile.SoundFile):
    def seekable(self) -> bool:
        return False  # see the rules above: soundfile seeks only where this is true


def _accepted(container: Container | None) -> Container:
    if container is None:
        message = "The song is no audio that can be read here (WAV, AIFF, FLAC, MP3, Ogg); check the file."
        raise AudioProcessingError(Code.BAD_AUDIO, message, "no known signature, no run of MP3 frames")
    if container.cut:
        raise AudioProcessingError(Code.TRUNCATED, f"The song is cut short, {container.cut}; copy it again.")
    if container.refusal:
        raise AudioProcessingError(
            Code.BAD_AUDIO, f"The song's {container.format.upper()} cannot be used: {container.refusal}."
        )
    return container


def _opened(view: View) -> _Sound:
    try:
        return _Sound(cast(BinaryIO, view))
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        if view.error:
            raise view.error from error
        detail = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        message = "The song cannot be decoded: its header is damaged or of a kind that is not supported; convert it."
        raise AudioProcessingError(Code.BAD_AUDIO, message, detail) from error


def _refuse_early(sound: _Sound, max_duration_s: float) -> None:
    if sound.samplerate not in RATES:
        message = f"The song claims {sound.samplerate} frames a second; its header is damaged."
        raise AudioProcessingError(Code.BAD_AUDIO, message)
    if sound.frames < ENDLESS and sound.frames > max_duration_s * sound.samplerate:
        raise _too_long(sound.frames / sound.samplerate, max_duration_s)


def _too_long(duration_s: float | None, limit_s: float) -> AudioProcessingError:
    length = "longer" if duration_s is None else f"{duration_s:,.0f} s long, longer"
    message = f"The song is {length} than {limit_s:,.0f} s; split it or raise [limits] max_duration_s."
    return AudioProcessingError(Code.TOO_LONG, message)


def _blocks(sound: _Sound, view: View, container: Container, check: Callable[[], None]) -> Iterator[Frames]:
    """The song's blocks in one or two channels, every sample a number, to the song's very end or an error."""
    channels = sound.channels
    down = downmix.matrix(container.layout(channels), channels) if channels > 2 else None
    done = 0
    size = 2 * BLOCK // max(channels, 2)  # memory does not grow with channels, of which a header can claim 1,024
    while True:
        check()
        try:
            block = np.asarray(sound.read(size, dtype="float32", always_2d=True), np.float32)
        except soundfile.SoundFileError as error:
            raise view.error or _stopped(done, sound, view, str(error)) from error
        if view.error:
            raise view.error
        if not len(block):
            break
        _refuse_not_finite(block, done, sound.samplerate)
        done += len(block)
        yield block if down is None else block @ down
    slack = SLACK if sound.subtype == "MPEG_LAYER_III" else 0
    if done + slack < sound.frames < ENDLESS:
        raise _stopped(done, sound, view, None)
    if not done:
        raise AudioProcessingError(Code.BAD_AUDIO, "The song holds no audio: it is zero frames long.")


def _stopped(done: int, sound: _Sound, view: View, detail: str | None) -> AudioProcessingError:
    """Decoding ended too early: the song is cut short or has a hole, or, if nothing came out, it is no use at all."""
    if not done and view.furthest < view.size:
        return AudioProcessingError(Code.BAD_AUDIO, "The song cannot be decoded: it is damaged at its start.", detail)
    whole = f" of {sound.frames:,}" if sound.frames < ENDLESS else ""
    message = f"The song is cut short or damaged, {done:,}{whole} frames could be decoded; copy it again."
    return AudioProcessingError(Code.TRUNCATED, message, detail)


def _refuse_not_finite(block: Frames, before: int, rate: int) -> None:
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        at_s = (before + int(np.argmin(finite))) / rate
        message = f"The song has a sample that is not a number, or infinite, at {at_s:.3f} s; repair or convert it."
        raise AudioProcessingError(Code.NOT_FINITE, message)


def _fraction(done: int, sound: _Sound, view: View) -> float:
    fraction = done / sound.frames if sound.frames < ENDLESS else view.tell() / view.size
    return min(fraction, 1.0)


def _track(sound: _Sound, container: Container, frames: int, view: View) -> Track:
    warnings = container.warnings
    if sound.channels > 2:
        known = container.layout(sound.channels)
        how = "mixed down to two" if known else "of unknown positions; their mean is on both sides"
        warnings += (f"The song has {sound.channels} channels, {how}.",)
    bitrate = container.bitrate
    if container.format == "ogg":
        bitrate = round(view.size * 8 * sound.samplerate / frames / 1000)
    return Track(
        format=container.format,
        subtype=sound.subtype,
        rate=sound.samplerate,
        channels=min(sound.channels, 2),
        song_channels=sound.channels,
        frames=frames,
        bitrate=bitrate,
        warnings=warnings,
    )
