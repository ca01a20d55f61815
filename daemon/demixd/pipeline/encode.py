"""Encode: a stem's blocks become a file, which is then read back.

    blocks x gain --dither, round--> libsndfile or FFmpeg --Sink--> file --tags, serial, fsync--> sha256

Rules:
- Samples are rounded to integers here, and the libraries get integers: from floats, libsndfile truncates. Up to 16 bits
  that is done in float32, whose steps are 256 times finer, else in float64.
- Bits are dropped once, with dither; 32 bits need none, since a float32 has no finer steps.
- The same stems give the same bytes: no time of day in float WAVs, no random numbers that are not seeded.
- A lossy codec may decode to more than full scale; nothing is done about that.
"""

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
from demixd.audio.streams import DamagedError, Facts, NotReadableError, NotWritableError, Sink
from demixd.errors import AudioProcessingError, Code, disk_error
from demixd.protocol.job import StemFile
from demixd.spool.files import open_own, sha256_of, sync
from demixd.spool.room import disk_of

SERIAL = 1
"""The serial number of an Ogg's one stream. libsndfile draws a random one, and the same stem would differ each time."""


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a stem is written. `check` is called between blocks and stops by raising."""

    stem: str
    check: Callable[[], None]
    gain: float = 1.0
    clamp: bool = False
    """Whether float and lossy formats are limited to full scale as well."""
    seed: int = 0
    """Of the dither."""
    measure: Callable[[Frames], None] = lambda _: None
    """Gets each block `[T, C]` before it is rounded, as float32."""
    draw: Callable[[NDArray[Any]], None] = lambda _: None
    """Gets each block `[T, C]` as it is given to the codec."""
    tag: Callable[[Path], None] = lambda _: None
    """Adds tags to the written file."""


def write(blocks: Iterable[Frames], path: Path, target: Target, *, frames: int, how: Manner) -> StemFile:
    """Write `blocks`, `[T, target.channels]` at `target.rate` and `frames` frames together, durably to a new file.

    Raises `AudioProcessingError`: NO_SPACE, IO_ERROR, BAD_OUTPUT, INTERNAL_ERROR; and what `how` raises.
    """
    try:
        with Sink(path) as sink:
            written, peak = _encode(_samples(blocks, target.subtype, how), sink, target, frames)
        if target.format == "mp3":
            with open_own(path, "r+b") as file:
                mpeg.note_length(file, written)
        how.tag(path)
        size, digest = _finished(path, target)
    except OSError as error:
        raise disk_error(error, path.name, disk_of(path.parent)) from error
    return StemFile(
        stem=how.stem,
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
    """Read a written file back: it has `expected`'s format, rate, channels and bytes, and `frames` frames.

    `check` stops by raising. Raises BAD_OUTPUT.
    """
    try:
        is_m4a = FORMATS[expected.format].suffix == "m4a"
        found = reader.probe(path, check=check) if is_m4a else sndfile.probe(path, check)
        with open_own(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    except (OSError, NotReadableError, DamagedError) as error:
        raise _bad_output(path, f"it cannot be read back: {error}") from error
    wanted = Facts(subtype=expected.subtype, rate=expected.rate, channels=expected.channels, frames=frames)
    if found != wanted:
        raise _bad_output(path, f"it has {found} instead of {wanted}")
    if size != expected.bytes:
        raise _bad_output(path, "it is shorter than it says")


def verify_streams(path: Path, expected: Iterable[Facts], check: Callable[[], None]) -> None:
    """Read the streams of a file back: each is what `expected` says of it. `check` stops by raising. Raises BAD_OUTPUT."""
    for number, wanted in enumerate(expected):
        try:
            found = reader.probe(path, number, check)
        except (OSError, NotReadableError, DamagedError) as error:
            raise _bad_output(path, f"its stream {number} cannot be read back: {error}") from error
        if found != wanted:
            raise _bad_output(path, f"its stream {number} has {found} instead of {wanted}")


def finish(path: Path, target: Target, make: Callable[[Path], None], tag: Callable[[Path], None]) -> tuple[int, str]:
    """Have `make` write a whole file and `tag` tag it, and make it durable: its bytes and sha256. Raises NO_SPACE, IO_ERROR."""
    try:
        make(path)
        tag(path)
        return _finished(path, target)
    except OSError as error:
        raise disk_error(error, path.name, disk_of(path.parent)) from error


def _encode(
    samples: Iterator[tuple[NDArray[Any], float]], sink: Sink, target: Target, frames: int
) -> tuple[int, float]:
    """Write all samples: the number of frames, and their peak (linear, full scale 1)."""
    written, peak = 0, 0.0
    try:
        with _created(sink, target, frames) as file:
            for block, highest in samples:
                file.write(block)
                sink.raise_error()
                written, peak = written + len(block), max(peak, highest)
    except NotWritableError as error:
        sink.raise_error()
        message = f"{target.format} cannot be written with {target.channels} channels at {target.rate} Hz."
        raise AudioProcessingError(Code.INTERNAL_ERROR, message, str(error)) from error
    sink.raise_error()
    return written, peak


def _created(
    sink: Sink, target: Target, frames: int
) -> AbstractContextManager[sndfile.Writer] | AbstractContextManager[writer.Writer]:
    if FORMATS[target.format].encoder:
        return writer.created(cast(BinaryIO, sink), target)
    return sndfile.created(sink, target, frames)


def _samples(blocks: Iterable[Frames], subtype: str, how: Manner) -> Iterator[tuple[NDArray[Any], float]]:
    """Each block as the library gets it, with the block's peak: float32, or integers as `_integers` makes them."""
    bits, dither = BITS.get(subtype), Dither(how.seed)
    exact = np.float64 if bits is not None and bits > 16 else np.float32
    for block in blocks:
        how.check()
        samples = block * exact(how.gain)
        if how.clamp and bits is None:
            np.clip(samples, -1, 1, out=samples)
        peak = _peak(samples)
        if not np.isfinite(peak):
            raise AudioProcessingError(Code.BAD_OUTPUT, "A stem has samples that are not numbers; report this.")
        how.measure(samples.astype(np.float32, copy=False))
        written, peak = _integers(samples, bits, dither) if bits else (samples, peak)
        how.draw(written)
        yield written, peak


def _integers(samples: NDArray[Any], bits: int, dither: Dither) -> tuple[NDArray[Any], float]:
    """A block rounded to `bits`, in int16 or in the upper bits of int32, as libsndfile and FFmpeg expect it; and its peak."""
    half = 2 ** (bits - 1)
    steps = dither.rounded(samples * half) if bits <= DITHERED else np.rint(samples * half)
    np.clip(steps, -half, half - 1, out=steps)
    peak = _peak(steps) / half
    integer = np.int16 if bits <= 16 else np.int32  # libsndfile writes int16 as it is, in a fifth of the time
    if shift := np.iinfo(integer).bits - bits:
        steps *= 2**shift
    return steps.astype(integer), peak


def _peak(samples: NDArray[Any]) -> float:
    """The largest magnitude, not a number where a sample is none. `max` and `min` make no copy, which `abs` does."""
    return max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))


def _finished(path: Path, target: Target) -> tuple[int, str]:
    """Remove what differs from run to run from a written file, and make it durable: its bytes and sha256."""
    with open_own(path, "r+b") as file:
        if FORMATS[target.format].container == "OGG":
            for page in ogg.pages(file):
                file.seek(page.at)
                file.write(ogg.renumbered(page.data, SERIAL))
        elif target.subtype == "FLOAT":
            _forget_time(file)
        file.flush()
        sync(file.fileno())
        file.seek(0)
        return os.fstat(file.fileno()).st_size, sha256_of(file)


def _forget_time(file: BinaryIO) -> None:
    """Zero the time of day in the PEAK chunk that libsndfile gives every float WAV.

    A chunk is name, size, content; PEAK's is version, time, ... It lies before the audio, within the first 1 KiB.
    """
    at = file.read(1024).find(b"PEAK")
    if at >= 0:
        file.seek(at + 12)
        file.write(bytes(4))


def _bad_output(path: Path, reason: str) -> AudioProcessingError:
    return AudioProcessingError(Code.BAD_OUTPUT, f"{path.name} was not written right, {reason}; try again.")
