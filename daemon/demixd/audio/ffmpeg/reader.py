"""Songs that libsndfile cannot read: one audio stream of a file, through FFmpeg's libraries, block by block.

    file --demuxer--> packets --decoder--> frames --cut--> [T, C] float32

Rules:
- The caller names the demuxer, by the content: FFmpeg's own detection also finds playlists, which open other files. No
  file but the one that is handed in can be opened.
- The delay that an encoder puts before the song (AAC 1,024 frames or more, Opus 312) FFmpeg leaves out where the file
  has a note of it. The padding of the last packet is cut here: by iTunes' note of the length (iTunSMPB), else by the
  durations of an MP4's packets, of which the last one is shorter. Other formats trim themselves, or have no such note.
- An error in the middle ends the song: to skip packets would shift all that comes after them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import av.error
import numpy as np
from av.audio.format import AudioFormat
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import Flags2

from demixd.audio.downmix import WEIGHTS
from demixd.audio.pcm import BLOCK, Frames
from demixd.audio.streams import DamagedError, Facts, NotReadableError
from demixd.spool.files import open_own, open_song

HELD = 1 << 14
"""Frames held back until the end is known: no encoder's padding is longer (AAC's has at most three packets)."""

LOSSLESS = ("alac", "flac", "wavpack", "ape", "tta", "tak", "wmalossless", "truehd", "mlp", "shorten", "mp4als")

CODECS = {"pcm_": "pcm", "dsd_": "dsd", "mp3float": "mp3", "libopus": "opus", "libvorbis": "vorbis"}
"""FFmpeg's decoders, some by their first four characters -> `Track`'s name of the codec, where it is another."""

LOSSY = {"mp3": "MPEG_LAYER_III"}
"""Lossy codecs -> libsndfile's name of them, where it is not their own in capitals."""

UNREADABLE = ("s64", "s64p")
"""Sample formats for which av has no numpy type."""

PLANES = 8
"""Planes of a frame that av can read: with more than eight channels it reads past the end of its table."""

SLACK = 1 << 13
"""Frames that may be missing of those declared, with a lossy codec: two of the longest packets, and rounding."""

DEPTHS = {"u8": "PCM_U8", "s16": "PCM_16", "s32": "PCM_32", "s64": "PCM_32", "flt": "FLOAT", "dbl": "DOUBLE"}
"""FFmpeg's sample formats -> libsndfile's subtypes."""

HALF = {"u1": 1 << 7, "i2": 1 << 15, "i4": 1 << 31}
"""numpy's type of integer samples -> their full scale."""

DECLARING = ("mov", "wv", "ape", "tta", "dsf", "caf", "tak", "au", "w64", "mpc", "mpc8", "iff")
"""Demuxers of formats whose header has the length; for others FFmpeg guesses it from the size."""


class Sound:
    """One audio stream of an open file. Its rate and channels are those of its first decoded frame, which may be damaged."""

    def __init__(self, container: Any, stream: AudioStream, demuxer: str) -> None:
        self._container, self._stream, self._demuxer = container, stream, demuxer
        self._end: Fraction | None = None
        """The end of the last packet, in seconds of the stream's own time."""
        self._bytes = self._frames = 0
        self._coming = self._decoded()
        first = next(self._coming, None)
        if first is None:
            raise NotReadableError("its audio stream is empty")
        self._first = first
        names = tuple(channel.name for channel in first.layout.channels)
        self.rate, self.channels = int(first.sample_rate), len(names)
        self.layout = names if WEIGHTS.keys() >= set(names) else None
        name = str(stream.codec_context.name)
        self.codec = CODECS.get(name) or CODECS.get(name[:4], name)
        self.subtype = self._subtype()
        self.declared = self._declared()
        self.slack = 1 if self.codec in ("pcm", *LOSSLESS) else SLACK + self.rate // 500

    def _subtype(self) -> str:
        if self.codec == "dsd":
            return "DSD"
        if self.codec != "pcm" and self.codec not in LOSSLESS:
            return LOSSY.get(self.codec, self.codec.upper())
        depth = DEPTHS.get(self._first.format.name.removesuffix("p"), "PCM_16")
        if self._first.format.name in ("s32", "s32p") and self._is_24():
            depth = "PCM_24"
        return depth.replace("PCM", "ALAC") if self.codec == "alac" else depth

    def _is_24(self) -> bool:
        """Whether 32-bit samples have 24 bits, the upper ones: FFmpeg knows (bits_per_raw_sample), and av does not show it."""
        return not (_array(self._first) & 0xFF).any()

    def _declared(self) -> int | None:
        """Frames by the file's header."""
        if self._demuxer not in DECLARING or self._stream.duration is None or self._stream.time_base is None:
            return None
        return int(self._stream.duration * self._stream.time_base * self.rate)

    @property
    def bitrate(self) -> int | None:
        """Mean kbit/s of what was read; None of a lossless codec."""
        if self.codec in ("pcm", "dsd", *LOSSLESS) or not self._frames:
            return None
        return round(self._bytes * 8 * self.rate / self._frames / 1000)

    @property
    def noted(self) -> int | None:
        """Frames by iTunes' note: `iTunSMPB` is zeros, delay, padding and length, each in hexadecimal digits."""
        found = self.metadata.get("iTunSMPB", "").split()
        try:
            return int(found[3], 16)
        except (IndexError, ValueError):
            return None

    @property
    def metadata(self) -> dict[str, str]:
        """The tags of the file and of its stream, by FFmpeg's names."""
        return {str(key): str(value) for key, value in {**self._container.metadata, **self._stream.metadata}.items()}

    def blocks(self) -> Iterator[Frames]:
        """The whole song in order, `[<= BLOCK, C]` at a time. Raises `DamagedError`."""
        held: deque[Frames] = deque()
        total = waiting = 0
        for frame in chain((self._first,), self._coming):
            if len(frame.layout.channels) != self.channels or frame.sample_rate != self.rate:
                raise DamagedError("its rate or channels change in the middle")
            samples = _samples(frame)
            held.append(samples)
            self._frames += len(samples)
            total, waiting = total + len(samples), waiting + len(samples)
            if waiting >= HELD + BLOCK:
                block, held = _split(held, BLOCK)
                waiting -= len(block)
                yield block
        padding = total - self._length(total)
        while waiting > padding:
            block, held = _split(held, min(BLOCK, waiting - padding))
            waiting -= len(block)
            yield block

    def _length(self, decoded: int) -> int:
        """The frames of the song among `decoded` ones; the rest is padding."""
        told = self.noted
        if told is None and self._demuxer == "mov" and self._end is not None:
            told = round(self._end * self.rate)
        return told if told is not None and 0 <= decoded - told <= HELD else decoded

    def _decoded(self) -> Iterator[AudioFrame]:
        try:
            for packet in self._container.demux(self._stream):
                self._bytes += packet.size
                if packet.pts is not None and packet.duration and packet.time_base:
                    self._end = Fraction(packet.pts + packet.duration) * packet.time_base
                yield from (cast(AudioFrame, frame) for frame in packet.decode())
        except (av.error.FFmpegError, ValueError) as error:
            raise DamagedError(_words(error)) from error


@contextmanager
def opened(file: BinaryIO, demuxer: str, number: int = 0) -> Iterator[Sound]:
    """The audio stream `number` of `file`, opened by FFmpeg's `demuxer`. Raises `NotReadableError`."""
    options = {"format_whitelist": demuxer, "protocol_whitelist": "none", "enable_drefs": "0"}
    try:
        container = av.open(cast(Any, file), "r", format=demuxer, options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise NotReadableError(_words(error)) from error
    with container:
        if number >= len(container.streams.audio):
            raise NotReadableError("it has no audio stream")
        stream = container.streams.audio[number]
        if stream.codec_context is None:
            raise NotReadableError("there is no decoder for its audio stream")
        stream.codec_context.thread_count = 1
        if stream.codec_context.name == "alac":
            # An ALAC packet holds its own length; FFmpeg would shorten the last one of a CAF a second time.
            stream.codec_context.flags2 |= Flags2.skip_manual
        try:
            sound = Sound(container, stream, demuxer)
        except DamagedError as error:
            raise NotReadableError(str(error)) from error
        yield sound


def metadata(song: Path, demuxer: str) -> dict[str, str]:
    """The tags of a file, by FFmpeg's names; none where it cannot be read. Raises OSError."""
    try:
        with open_song(song) as file, opened(file, demuxer) as sound:
            return sound.metadata
    except NotReadableError:
        return {}


def probe(path: Path, number: int = 0, check: Callable[[], None] = lambda: None) -> Facts:
    """The facts of a stream of an MP4, decoded to its end; `check` is called between blocks and stops by raising.

    Raises `NotReadableError`, `DamagedError` and OSError.
    """
    with open_own(path, "rb") as file, opened(file, "mov", number) as sound:
        frames = 0
        for block in sound.blocks():
            check()
            frames += len(block)
        return Facts(subtype=sound.subtype, rate=sound.rate, channels=sound.channels, frames=frames)


def _samples(frame: AudioFrame) -> Frames:
    """A frame as `[T, C]` float32, full scale 1."""
    found = _array(frame)
    if found.dtype.kind == "f":
        return np.asarray(found, np.float32)
    half = HALF[found.dtype.str[1:]]
    # Converted before the division, as in libsndfile; the division is exact, by a power of two.
    return (np.asarray(found, np.float32) - (half if found.dtype.kind == "u" else 0)) / np.float32(half)


def _array(frame: AudioFrame) -> Any:
    """A frame's samples `[T, C]` in their own type. Raises `DamagedError`."""
    channels = len(frame.layout.channels)
    if frame.format.name in UNREADABLE:
        frame = _packed(frame, "dbl")
    elif frame.format.is_planar and channels > PLANES:
        frame = _packed(frame, frame.format.packed)
    found = frame.to_ndarray()
    return found.T if frame.format.is_planar else found.reshape(-1, channels)


def _packed(frame: AudioFrame, wanted: AudioFormat | str) -> AudioFrame:
    """The same samples, interleaved, in the format `wanted`."""
    try:
        resampler = AudioResampler(wanted, frame.layout, frame.sample_rate)
        (packed,) = resampler.resample(frame)
    except (av.error.FFmpegError, ValueError) as error:
        raise DamagedError(_words(error)) from error
    return packed


def _split(held: "deque[Frames]", count: int) -> "tuple[Frames, deque[Frames]]":
    """The first `count` frames of `held`, and the rest."""
    whole = np.concatenate(held)
    return np.ascontiguousarray(whole[:count]), deque([whole[count:]])


def _words(error: Exception) -> str:
    return str(error).partition("] ")[2] or str(error)
