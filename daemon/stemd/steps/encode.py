"""Stems become files: writing them, and proving that they can be read.

    blocks x gain --round, clamp--> libsndfile --Sink--> file --repeatable, fsync--> sha256

Rules:
- Integers are rounded here and given to libsndfile as integers: its own way from float cuts off instead of rounding.
- The same stems give the same bytes: no dither, no time of day in float WAVs, no random numbers for Ogg's streams.
- Lossy codecs may overshoot full scale when they are decoded; they are left to it.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import numpy as np
import soundfile
from numpy.typing import NDArray

from stemd import ogg
from stemd.errors import AudioProcessingError, Code
from stemd.formats import BITS, FORMATS, Target, compression_level
from stemd.track import BLOCK, Frames, disk_error

RF64_FROM = (1 << 32) - (1 << 16)
"""Bytes of audio from which a WAV's 32-bit sizes may not do, header included; the file becomes an RF64."""


SERIAL = 1
"""The number of the one stream in an Ogg; libsndfile draws a random one, which only chained streams need."""


class StemFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was written, as the manifest lists it."""

    name: str
    format: str
    subtype: str
    rate: int
    channels: int
    frames: int
    bytes: int
    sha256: str
    peak: float
    """The largest magnitude written, full scale 1."""
    gain_db: float


def write(
    blocks: Iterable[Frames],
    path: Path,
    target: Target,
    *,
    frames: int,
    check: Callable[[], None],
    gain: float = 1.0,
    clamp: bool = False,
) -> StemFile:
    """Writes `blocks`, `[T, target.channels]` at `target.rate`, times `gain`, to a new file, durably.

    `frames` is how many there will be; `clamp` limits float and lossy formats to full scale as well; `check` is called
    between blocks and stops by raising. Raises `AudioProcessingError`: NO_SPACE, IO_ERROR, BAD_OUTPUT, INTERNAL_ERROR.
    """
    try:
        with Sink(path) as sink:
            written, peak = _encode(_samples(blocks, target.subtype, gain, clamp, check), sink, target, frames)
        size, digest = _settle(path, target)
    except OSError as error:
        raise disk_error(error, path.name) from error
    return StemFile(
        name=path.name,
        format=target.format,
        subtype=target.subtype,
        rate=target.rate,
        channels=target.channels,
        frames=written,
        bytes=size,
        sha256=digest,
        peak=peak,
        gain_db=20 * float(np.log10(gain)),
    )


def verify(path: Path, expected: StemFile, frames: int) -> None:
    """Opens a written file again: format, frames, rate and channels, and its first and last block can be read."""
    try:
        with soundfile.SoundFile(path) as sound:
            found = (sound.subtype, sound.samplerate, sound.channels, sound.frames)
            first = sound.read(BLOCK, dtype="float32", always_2d=True)
            sound.seek(max(0, frames - BLOCK))
            last = sound.read(BLOCK, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise _bad_output(path, f"it cannot be read back: {error}") from error
    wanted = (expected.subtype, expected.rate, expected.channels, frames)
    if found != wanted:
        raise _bad_output(path, f"it has {found} instead of {wanted}")
    if not len(first) == len(last) == min(frames, BLOCK) or path.stat().st_size != expected.bytes:
        raise _bad_output(path, "it is shorter than it says")


class Sink:
    """The file that libsndfile writes to.

    soundfile loses exceptions raised under libsndfile, and libsndfile goes on after a short write. So the first OSError
    is kept, everything after it is dropped, and `complain` raises it.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._file = path.open("xb", buffering=0)  # never what a link points to
        self._error: OSError | None = None

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._kept(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._kept(self._file.tell)

    def _kept(self, work: Callable[[], int]) -> int:
        try:
            return work()
        except OSError as error:
            self._error = self._error or error
            return -1

    def complain(self) -> None:
        if self._error:
            raise self._error


class _Sound(soundfile.SoundFile):
    def seekable(self) -> bool:
        return False  # soundfile seeks to the end and back around each block where this is true


def container(target: Target, frames: int) -> str:
    """libsndfile's major format for that many frames."""
    width = BITS.get(target.subtype, 32) // 8 * target.channels
    huge = target.format == "wav" and frames * width >= RF64_FROM
    return "RF64" if huge else FORMATS[target.format].container


def _encode(
    samples: Iterator[tuple[NDArray[Any], float]], sink: Sink, target: Target, frames: int
) -> tuple[int, float]:
    """How many frames were written, and their peak."""
    written, peak = 0, 0.0
    try:
        with _Sound(cast(BinaryIO, sink), "w", format=container(target, frames), **_settings(target)) as sound:
            for block, highest in samples:
                sound.write(block)
                sink.complain()
                written, peak = written + len(block), max(peak, highest)
    except OSError:
        raise  # io.UnsupportedOperation is a ValueError as well
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        sink.complain()
        message = f"libsndfile cannot write {target.format} with {target.channels} channels at {target.rate} Hz."
        raise AudioProcessingError(Code.INTERNAL_ERROR, message, str(error)) from error
    sink.complain()
    return written, peak


def _settings(target: Target) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "samplerate": target.rate,
        "channels": target.channels,
        "subtype": target.subtype,
    }
    if target.bitrate is not None:
        settings["compression_level"] = compression_level(target.format, target.bitrate, target.rate, target.channels)
    if target.format == "mp3":
        settings["bitrate_mode"] = "CONSTANT"
    return settings


def _samples(
    blocks: Iterable[Frames], subtype: str, gain: float, clamp: bool, check: Callable[[], None]
) -> Iterator[tuple[NDArray[Any], float]]:
    """What libsndfile gets for each block, and its peak."""
    bits = BITS.get(subtype)
    for block in blocks:
        check()
        scaled = block * np.float64(gain)
        samples = np.clip(scaled, -1, 1) if clamp and bits is None else scaled
        if not np.isfinite(samples).all():
            raise AudioProcessingError(Code.BAD_OUTPUT, "A stem has samples that are not numbers; report this.")
        yield _integers(samples, bits) if bits else (samples.astype(np.float32), _peak(samples))


def _integers(samples: NDArray[np.float64], bits: int) -> tuple[NDArray[np.int32], float]:
    """Rounded to `bits`, as the upper bits of 32, which is where libsndfile takes them from."""
    half = 2 ** (bits - 1)
    steps = np.clip(np.rint(samples * half), -half, half - 1)
    return (steps * 2 ** (32 - bits)).astype(np.int32), _peak(steps) / half


def _peak(samples: NDArray[np.float64]) -> float:
    return float(np.max(np.abs(samples), initial=0.0))


def _settle(path: Path, target: Target) -> tuple[int, str]:
    """Makes a written file repeatable and durable. Its size and sha256."""
    with path.open("r+b") as file:
        if FORMATS[target.format].container == "OGG":
            for page in ogg.pages(file):
                file.seek(page.at)
                file.write(ogg.renumbered(page.data, SERIAL))
        elif target.subtype == "FLOAT":
            _forget_time(file)
        file.flush()
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # filesystems that have no fsync
                raise
        file.seek(0)
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _forget_time(file: BinaryIO) -> None:
    """Zeroes the time of day in the PEAK chunk that libsndfile gives every float WAV.

    A chunk is name, size, content; PEAK's is version, time, ... It lies before the audio, within the first 1 KiB.
    """
    at = file.read(1024).find(b"PEAK")
    if at >= 0:
        file.seek(at + 12)
        file.write(bytes(4))


def _bad_output(path: Path, reason: str) -> AudioProcessingError:
    return AudioProcessingError(Code.BAD_OUTPUT, f"{path.name} was not written right, {reason}; try again.")
