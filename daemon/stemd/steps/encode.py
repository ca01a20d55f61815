"""Stems become files: what format they get, writing them, and proving that they can be read.

    blocks x gain --round, clamp--> libsndfile --Sink--> file --fsync--> sha256

Rules:
- Integers are rounded here and given to libsndfile as integers: its own way from float cuts off instead of rounding.
- No dither: the same stems give the same bytes (not for Ogg, whose streams get a random number from libsndfile).
- Lossy codecs may overshoot full scale when they are decoded; they are left to it.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable
from io import SEEK_SET
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile
from numpy.typing import NDArray

from stemd.errors import AudioProcessingError, Code
from stemd.formats import BITS, DEPTHS, FORMATS, Format, bitrate_for, compression_level, nearest
from stemd.track import BLOCK, Frames, Track, disk_error

RF64_FROM = (1 << 32) - (1 << 16)
"""Bytes of audio from which a WAV's 32-bit sizes may not do, header included; it becomes RF64, which readers of WAV know."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a stem's file is to be."""

    format: str
    """A key of FORMATS."""
    subtype: str
    rate: int
    """Of the file, and so of the blocks to be written: where it is not the song's, they have to be resampled."""
    channels: int
    bitrate: int | None = None
    """kbit/s of a lossy format."""

    @property
    def suffix(self) -> str:
        return FORMATS[self.format].suffix


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


def choose_target(
    track: Track,
    *,
    format: str = "source",
    bitrate: int | str = 320,
    bit_depth: int | str = "source",
    rate: int | str = "source",
    clip: str = "joint",
) -> tuple[Target, tuple[str, ...]]:
    """The files that a song's stems become, and warnings where the options cannot be had to the letter."""
    name = _source_format(track) if format == "source" else format
    if name not in FORMATS:
        raise _bad_option("format", format, ("source", *FORMATS))
    chosen = FORMATS[name]
    subtype, warnings = _subtype(track, name, chosen, str(bit_depth))
    if clip == "none" and subtype != "FLOAT":
        message = "clip = none needs samples that can pass full scale; set format = wav and bit_depth = float."
        raise AudioProcessingError(Code.BAD_OPTIONS, message)
    wanted = track.rate if rate == "source" else int(rate)
    carried = nearest(chosen.rates, wanted) if chosen.rates else wanted
    if carried != wanted:
        warnings += (f"{name} cannot carry {wanted} Hz; the stems have {carried} Hz.",)
    kbit_s = (track.bitrate or 320) if bitrate == "source" else int(bitrate)
    target = Target(
        format=name,
        subtype=subtype,
        rate=carried,
        channels=track.channels,
        bitrate=bitrate_for(name, kbit_s, carried, track.channels),
    )
    return target, warnings


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

    `frames` is how many there will be, `clamp` limits float and lossy formats to full scale as well, `check` is called
    between blocks and stops by raising. Raises `AudioProcessingError`: NO_SPACE, IO_ERROR, BAD_OUTPUT or INTERNAL_ERROR.
    """
    try:
        with Sink(path) as sink:
            written, peak = _encode(blocks, sink, target, frames, check, gain, clamp)
            if target.subtype == "FLOAT":
                sink.forget_time()
            sink.sync()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
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

    soundfile loses exceptions raised under libsndfile, and libsndfile goes on after a short write. So the first OSError is
    kept, everything after it is dropped, and `sync` or `complain` raise it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._error: OSError | None = None
        self.seek, self.tell = self._file.seek, self._file.tell

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

    def complain(self) -> None:
        if self._error:
            raise self._error

    def sync(self) -> None:
        self.complain()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # filesystems that have no fsync
                raise

    def forget_time(self) -> None:
        """Zeroes the time of day in the PEAK chunk that libsndfile gives every float WAV, so that bytes can be compared.

        A chunk is name, size, content; PEAK's is version, time, ... It lies before the audio, within the first kilobyte.
        """
        with Path(self._file.name).open("r+b") as file:
            at = file.read(1024).find(b"PEAK")
            if at >= 0:
                file.seek(at + 12)
                file.write(bytes(4))


class _Sound(soundfile.SoundFile):
    def seekable(self) -> bool:
        return False  # soundfile seeks to the end and back around each block where this is true


def container(target: Target, frames: int) -> str:
    """libsndfile's major format for that many frames."""
    width = BITS.get(target.subtype, 32) // 8 * target.channels
    huge = target.format == "wav" and frames * width >= RF64_FROM
    return "RF64" if huge else FORMATS[target.format].container


def _encode(
    blocks: Iterable[Frames],
    sink: Sink,
    target: Target,
    frames: int,
    check: Callable[[], None],
    gain: float,
    clamp: bool,
) -> tuple[int, float]:
    """How many frames were written, and their peak. Seven arguments: it is the inside of `write`'s two `try`s."""
    written, peak = 0, 0.0
    try:
        with _Sound(sink, "w", format=container(target, frames), **_settings(target)) as sound:
            for block in blocks:
                check()
                samples, highest = _samples(block, target.subtype, gain, clamp)
                sound.write(samples)
                sink.complain()
                written, peak = written + len(block), max(peak, highest)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
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


def _samples(block: Frames, subtype: str, gain: float, clamp: bool) -> tuple[NDArray[Any], float]:
    """What libsndfile gets for a block, and its peak: floats, or integers at the top of 32 bits, where it takes them from."""
    scaled = block * np.float64(gain)
    bits = BITS.get(subtype)
    if bits is None:
        samples = np.clip(scaled, -1, 1) if clamp else scaled
        peak = float(np.max(np.abs(samples), initial=0.0))
        values: NDArray[Any] = samples.astype(np.float32)
    else:
        half = 2 ** (bits - 1)
        steps = np.clip(np.rint(scaled * half), -half, half - 1)
        peak = float(np.max(np.abs(steps), initial=0.0)) / half
        values = (np.nan_to_num(steps) * 2 ** (32 - bits)).astype(np.int32)
    if not np.isfinite(peak):
        raise AudioProcessingError(Code.BAD_OUTPUT, "A stem has samples that are not numbers; report this.")
    return values, peak


def _source_format(track: Track) -> str:
    if track.format == "ogg":
        return "opus" if track.subtype == "OPUS" else "ogg"
    return track.format if track.format in FORMATS else "wav"


def _subtype(track: Track, name: str, chosen: Format, bit_depth: str) -> tuple[str, tuple[str, ...]]:
    """libsndfile's subtype, and a warning if the format cannot carry the depth that was asked for."""
    if chosen.lossy:
        return chosen.subtypes[""], ()
    if bit_depth not in ("source", *FORMATS["wav"].subtypes):
        raise _bad_option("bit_depth", bit_depth, ("source", *FORMATS["wav"].subtypes))
    depth = DEPTHS.get(track.subtype, "16") if bit_depth == "source" else bit_depth
    if depth in chosen.subtypes:
        return chosen.subtypes[depth], ()
    best = list(chosen.subtypes)[-1]
    return chosen.subtypes[best], (f"{name} cannot carry {depth} samples; the stems have {best} bits.",)


def _bad_option(key: str, value: object, offered: Iterable[str]) -> AudioProcessingError:
    return AudioProcessingError(Code.BAD_OPTIONS, f"{key} = {value} is not offered; choose from {', '.join(offered)}.")


def _bad_output(path: Path, reason: str) -> AudioProcessingError:
    return AudioProcessingError(Code.BAD_OUTPUT, f"{path.name} was not written right, {reason}; try again.")
