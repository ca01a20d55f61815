"""Stems become files: writing them, and proving that they can be read.

    blocks x gain --dither, round--> libsndfile or FFmpeg --Sink--> file --tags, repeatable, fsync--> sha256

Rules:
- Integers are rounded here and given to the libraries as integers: libsndfile's own way from float cuts off instead.
- Bits are dropped once, with dither. 32 bits are as many as a float has, and need none.
- The same stems give the same bytes: no time of day in float WAVs, no random numbers that are not seeded.
- Lossy codecs may overshoot full scale when they are decoded; they are left to it.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from demixd.audio import sndfile
from demixd.audio.containers import mpeg, ogg
from demixd.audio.dither import Dither
from demixd.audio.ffmpeg import reader, writer
from demixd.audio.formats import BITS, DITHERED, FORMATS, Target
from demixd.audio.pcm import Frames
from demixd.audio.sink import NotWritableError, Sink
from demixd.audio.streams import DamagedError, Glance, NotReadableError
from demixd.errors import AudioProcessingError, Code, disk_error

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


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a stem is written. `check` is called between blocks and stops by raising."""

    check: Callable[[], None]
    gain: float = 1.0
    clamp: bool = False
    """Whether float and lossy formats are limited to full scale as well."""
    seed: int = 0
    """Of the dither."""
    hear: Callable[[Frames], None] = lambda _: None
    """Gets each block as it is written, `[T, C]`, before a lossy codec has it."""
    dress: Callable[[Path], None] = lambda _: None
    """Adds tags to the written file."""


def write(blocks: Iterable[Frames], path: Path, target: Target, *, frames: int, how: Manner) -> StemFile:
    """Writes `blocks`, `[T, target.channels]` at `target.rate`, to a new file, durably; `frames` of them will come.

    Raises `AudioProcessingError`: NO_SPACE, IO_ERROR, BAD_OUTPUT, INTERNAL_ERROR; and what `how` raises.
    """
    try:
        with Sink(path) as sink:
            written, peak = _encode(_samples(blocks, target.subtype, how), sink, target, frames)
        if target.format == "mp3":
            with path.open("r+b") as file:
                mpeg.note_length(file, written)
        how.dress(path)
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
        gain_db=20 * float(np.log10(how.gain)),
    )


def verify(path: Path, expected: StemFile, frames: int, check: Callable[[], None] = lambda: None) -> None:
    """Opens a written file again: format, frames, rate and channels, and its audio can be read. `check` stops it."""
    try:
        found = reader.glance(path, check=check) if FORMATS[expected.format].suffix == "m4a" else sndfile.glance(path)
        size = path.stat().st_size
    except (OSError, NotReadableError, DamagedError) as error:
        raise _bad_output(path, f"it cannot be read back: {error}") from error
    wanted = Glance(subtype=expected.subtype, rate=expected.rate, channels=expected.channels, frames=frames)
    if found != wanted:
        raise _bad_output(path, f"it has {found} instead of {wanted}")
    if size != expected.bytes:
        raise _bad_output(path, "it is shorter than it says")


def verify_streams(path: Path, expected: Iterable[Glance], check: Callable[[], None]) -> None:
    """Sees that each stream of a file reads back as the file did that it was made of. Raises BAD_OUTPUT."""
    for number, wanted in enumerate(expected):
        try:
            found = reader.glance(path, number, check)
        except (OSError, NotReadableError, DamagedError) as error:
            raise _bad_output(path, f"its stream {number} cannot be read back: {error}") from error
        if found != wanted:
            raise _bad_output(path, f"its stream {number} has {found} instead of {wanted}")


def finish(path: Path, target: Target, make: Callable[[Path], None], dress: Callable[[Path], None]) -> tuple[int, str]:
    """A file that `make` writes as a whole: tagged and durable. Its size and sha256. Raises NO_SPACE and IO_ERROR."""
    try:
        make(path)
        dress(path)
        return _settle(path, target)
    except OSError as error:
        raise disk_error(error, path.name) from error


def _encode(
    samples: Iterator[tuple[NDArray[Any], float]], sink: Sink, target: Target, frames: int
) -> tuple[int, float]:
    """How many frames were written, and their peak."""
    written, peak = 0, 0.0
    try:
        with _created(sink, target, frames) as file:
            for block, highest in samples:
                file.write(block)
                sink.complain()
                written, peak = written + len(block), max(peak, highest)
    except NotWritableError as error:
        sink.complain()
        message = f"{target.format} cannot be written with {target.channels} channels at {target.rate} Hz."
        raise AudioProcessingError(Code.INTERNAL_ERROR, message, str(error)) from error
    sink.complain()
    return written, peak


def _created(
    sink: Sink, target: Target, frames: int
) -> AbstractContextManager[sndfile.Writer] | AbstractContextManager[writer.Writer]:
    if FORMATS[target.format].encoder:
        return writer.created(cast(BinaryIO, sink), target)
    return sndfile.created(sink, target, frames)


def _samples(blocks: Iterable[Frames], subtype: str, how: Manner) -> Iterator[tuple[NDArray[Any], float]]:
    """What the library gets for each block, and its peak."""
    bits, dither = BITS.get(subtype), Dither(how.seed)
    for block in blocks:
        how.check()
        scaled = block * np.float64(how.gain)
        samples = np.clip(scaled, -1, 1) if how.clamp and bits is None else scaled
        if not np.isfinite(samples).all():
            raise AudioProcessingError(Code.BAD_OUTPUT, "A stem has samples that are not numbers; report this.")
        floats = samples.astype(np.float32)
        how.hear(floats)
        yield _integers(samples, bits, dither) if bits else (floats, _peak(samples))


def _integers(samples: NDArray[np.float64], bits: int, dither: Dither) -> tuple[NDArray[np.int32], float]:
    """Rounded to `bits`, as the upper bits of 32, which is where the libraries take them from."""
    half = 2 ** (bits - 1)
    steps = dither.rounded(samples * half) if bits <= DITHERED else np.rint(samples * half)
    steps = np.clip(steps, -half, half - 1)
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
