"""Songs through FFmpeg's libraries: one audio stream of a file, block by block.

    file --demuxer--> packets --decoder--> frames --rate, channels of the first, cut--> [T, C] float32

Rules:
- The caller names the demuxer, by the content: FFmpeg's own detection also finds playlists, which open other files.
- A song is opened within bounds (opening.py).
- The delay that an encoder puts before the song (AAC 1,024 frames or more, Opus 312, LAME's) FFmpeg leaves out where the
  file has a note of it. The padding of the last packet is cut here: by iTunes' note of the length (iTunSMPB), else by the
  durations of an MP4's packets, of which the last one is shorter. Other formats trim themselves, or have no such note.
- An error in the middle ends the song: skipping packets would shift what follows. But formats of frames alone (MP3) may
  have tags of joined files between them, which every player skips; bytes behind a song are no error.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags2

from demixd.audio.containers import mpeg
from demixd.audio.downmix import WEIGHTS
from demixd.audio.ffmpeg.frames import alike, array_of, samples_of
from demixd.audio.ffmpeg.opening import decoders, open_container
from demixd.audio.ffmpeg.packets import AudioPacket, Refused
from demixd.audio.pcm import BLOCK, Frames
from demixd.audio.streams import DamagedError, Facts, FramelessError, NotReadableError, SoundlessError, View
from demixd.spool.files import open_own

HELD = 1 << 14
"""Frames held back until the end is known: no encoder's padding is longer (AAC's has at most three packets)."""

VORBIS_BLOCK = 1 << 12
"""Frames of the longest block of Vorbis that adds anything: half of it overlaps with the one before."""

LOSSLESS = ("alac", "flac", "wavpack", "ape", "tta", "tak", "wmalossless", "truehd", "mlp", "shorten", "mp4als")

CODECS = {"pcm_": "pcm", "dsd_": "dsd", "libopus": "opus", "libvorbis": "vorbis"}
"""FFmpeg's decoders, some by their first four characters -> `Track`'s name of the codec, where it is another."""

SLACK = 1 << 13
"""Frames that may be missing of those declared, with a lossy codec: two of the longest packets, and rounding."""

MPEG = ("mp3", "mp2", "mp1")
"""Codecs whose last frame plays though a part of it is missing."""

RAW = ("mp3", "aac", "ac3", "dts")
"""Demuxers that find frames by their headers, whatever is between them."""

TAILED = (*RAW, "flac", "mpegts")
"""Demuxers of formats that need not say how many frames there are, and can have anything behind them."""

TAIL = 1 << 16
"""Bytes behind a song that are no part of it; more are one that is damaged."""

DEPTHS = {"u8": "PCM_U8", "s16": "PCM_16", "s32": "PCM_32", "s64": "PCM_32", "flt": "FLOAT", "dbl": "DOUBLE"}
"""FFmpeg's sample formats -> libsndfile's subtypes."""

DECLARING = ("mov", "wv", "ape", "tta", "dsf", "caf", "tak", "mpc", "mpc8", "iff", "flac")
"""Demuxers of formats whose header has the length; for others, and for PCM, FFmpeg guesses it from the size."""

CAF_PACKET = 4096
"""Frames of an ALAC packet: some programs count the last one of a CAF as a whole one."""


class Sound:
    """One audio stream of an open file. Its rate and channels are those of its first decoded frame, which may be damaged.

    `announced`: the frames of an MP3 by its Info frame.
    """

    def __init__(self, container: Any, stream: AudioStream, demuxer: str, view: View, announced: int | None) -> None:
        self._container, self._stream, self._demuxer, self._view = container, stream, demuxer, view
        self._end: Fraction | None = None
        """Of an MP4: the end of the last packet, in seconds of the stream's own time."""
        self._bytes = self._frames = self._heard = self._packets = self._skipped = 0
        self._begins, self._joined = b"", False
        self._last: AudioPacket | None = None
        self._found: list[str] = []
        name = str(stream.codec_context.name)
        self.codec = CODECS.get(name) or CODECS.get(name[:4], name.removesuffix("float"))
        self.declared: int | None = None
        self._announced = announced
        self._coming = self._decoded()
        first = next(self._coming, None)
        if first is None:
            raise (FramelessError if stream.duration else NotReadableError)("its audio stream is empty")
        self._first = first
        if self.codec in MPEG:
            self.codec = f"mp{self._mpeg.kind[1]}"  # FFmpeg has one decoder for layers I to III
        names = tuple(channel.name for channel in first.layout.channels)
        self.rate, self.channels = int(first.sample_rate), len(names)
        self.layout = names if WEIGHTS.keys() >= set(names) else None
        self.subtype = self._subtype()
        self.declared = self._declared()
        self.slack = 1 if self.codec in ("pcm", *LOSSLESS) else SLACK + self.rate // 500
        self.slack = CAF_PACKET if (demuxer, self.codec) == ("caf", "alac") else self.slack

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._found))

    def _subtype(self) -> str:
        if self.codec == "dsd":
            return "DSD"
        if self.codec != "pcm" and self.codec not in LOSSLESS:
            return "MPEG_LAYER_III" if self.codec == "mp3" else self.codec.upper()
        depth = DEPTHS.get(self._first.format.name.removesuffix("p"), "PCM_16")
        if self._first.format.name in ("s32", "s32p") and self._is_24():
            depth = "PCM_24"
        return depth.replace("PCM", "ALAC") if self.codec == "alac" else depth

    def _is_24(self) -> bool:
        """Whether 32-bit samples have 24 bits, the upper ones: FFmpeg knows (bits_per_raw_sample), and av does not show it."""
        return not (array_of(self._first) & 0xFF).any()

    def _declared(self) -> int | None:
        """Frames by the file's header."""
        if self._announced:
            return self._announced * self._mpeg.samples
        return self._duration() if self._demuxer in DECLARING and self.codec != "pcm" else None

    def _duration(self) -> int | None:
        """Frames by FFmpeg's duration, which may be guessed; None without."""
        told, base = self._stream.duration, self._stream.time_base
        return int(told * base * self.rate) if told and base else None

    @property
    def bitrate(self) -> int | None:
        """Mean kbit/s of what was read; None of a lossless codec."""
        if self.codec in ("pcm", "dsd", *LOSSLESS) or not self._frames:
            return None
        if self.codec in MPEG:
            return round(self._bytes * 8 * self._mpeg.kind[2] / (self._packets * self._mpeg.samples) / 1000)
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
        """The whole song in order, `[<= BLOCK, C]` at a time. Raises `DamagedError`, after all that comes before."""
        held: deque[Frames] = deque()
        waiting = 0
        damage: DamagedError | None = None
        try:
            for frame in alike(chain((self._first,), self._coming), self._changed):
                samples = samples_of(frame)
                held.append(samples)
                self._frames += len(samples)
                waiting += len(samples)
                if waiting >= HELD + BLOCK:
                    block, held = _split(held, BLOCK)
                    waiting -= len(block)
                    yield block
        except DamagedError as error:
            damage = error
        padding = 0 if damage else self._frames - self._length(self._frames)
        if padding < 0:
            held.append(np.zeros((-padding, self.channels), np.float32))
            waiting, padding = waiting - padding, 0
        while waiting > padding:
            block, held = _split(held, min(BLOCK, waiting - padding))
            waiting -= len(block)
            yield block
        if damage:
            raise damage

    def _length(self, decoded: int) -> int:
        """The frames of the song when `decoded` ones have come out: the rest is padding, or was left out at the end."""
        told, fewer = self.noted, 0
        if told is None and self._demuxer == "mov" and self._end is not None:
            told = round(self._end * self.rate)
        if (self.codec, self._demuxer, self._joined) == ("vorbis", "ogg", False):
            # FFmpeg trims no first page, and of a song of one page it leaves out the last block.
            told, fewer = self._duration(), VORBIS_BLOCK
        return told if told is not None and -fewer <= decoded - told <= HELD else decoded

    def _changed(self) -> None:
        self._found.append("The song's rate or channels change in the middle; all of it has those of its start.")

    def _decoded(self) -> Iterator[AudioFrame]:
        """The frames of all packets. Raises `DamagedError`."""
        refused = Refused()
        for packet in refused.until_error(lambda: self._container.demux(self._stream)):
            if self.codec == "vorbis" and packet.has_sidedata("new_extradata"):
                self._joined = True
                self._stream.codec_context.flush_buffers()  # the first block of another song overlaps with none
            if (self.codec, self._demuxer) == ("flac", "ogg") and self._begins and not self._is_frame(packet):
                continue  # the headers of another song
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError) as error:
                refused.add(packet, error)
                continue
            if refused.reason and frames:
                self._skip(refused)
            if packet.size:
                self._note(packet)
            for frame in frames:
                self._heard += frame.samples
                yield frame
        self._judge_end(refused)

    def _is_frame(self, packet: AudioPacket) -> bool:
        return not packet.size or bytes(packet)[:2] == self._begins

    def _skip(self, refused: Refused) -> None:
        """Leave out what is between two frames. Raises `DamagedError` where that is a part of the song."""
        if self._demuxer not in RAW:
            raise DamagedError(refused.reason)
        self._skipped += refused.size
        refused.forget()

    def _judge_end(self, refused: Refused) -> None:
        """Raises `DamagedError` where the song ends too early."""
        if self.codec in MPEG:
            self._skipped += refused.size
            self._judge_mpeg()
        elif refused.reason and not self._is_behind(refused):
            raise DamagedError(refused.reason)
        if self._skipped:
            self._found.append(f"{self._skipped:,} bytes in the song are no audio and were skipped.")

    def _note(self, packet: AudioPacket) -> None:
        self._begins = self._begins or bytes(packet)[:2]
        self._last = packet
        self._packets += 1
        self._bytes += packet.size
        if self._demuxer == "mov" and packet.pts is not None and packet.duration and packet.time_base:
            self._end = Fraction(packet.pts + packet.duration) * packet.time_base

    def _is_behind(self, refused: Refused) -> bool:
        """Whether the last bytes, which were refused, lie behind the song."""
        if self.declared is not None:
            return self._heard + self.slack >= self.declared
        at_end = self._view.furthest >= self._view.size
        return at_end and self._demuxer in TAILED and refused.size <= TAIL and refused.begins != self._begins

    def _judge_mpeg(self) -> None:
        """Compare the frames that were found with the Info frame. Raises `DamagedError` where the song is cut short."""
        partial = self._last is not None and self._mpeg.size > self._last.size
        told = self._announced
        if told and (self._packets < told - 1 or (partial and self._packets < told)):  # some count the Info frame too
            raise DamagedError(f"it holds {self._packets:,} of {told:,} MPEG frames")
        if partial:
            self._found.append("The song ends in the middle of an MPEG frame; its end may be missing.")
        if told and self._packets > told + 1:
            self._found.append("The song is longer than its header says; all of it is used.")

    @property
    def _mpeg(self) -> mpeg.Header:
        """The header of the last frame of MPEG audio."""
        found = mpeg.header(bytes(self._last)[:4]) if self._last is not None else None
        return found or mpeg.Header(kind=(3, 3, self.rate), samples=1152, size=0, info=0)


@contextmanager
def opened(view: View, demuxer: str, number: int = 0, announced: int | None = None) -> Iterator[Sound]:
    """The audio stream `number` of `view`, opened by FFmpeg's `demuxer`. Raises `NotReadableError`."""
    container = open_container(view, demuxer)
    with container:
        if number >= len(container.streams.audio):
            raise SoundlessError("it has no audio stream")
        stream = container.streams.audio[number]
        if stream.codec_context is None or stream.codec_context.name not in decoders():
            raise NotReadableError("there is no decoder for its audio stream")
        stream.codec_context.thread_count = 1
        if stream.codec_context.name == "alac":
            # A packet holds its own length; FFmpeg would shorten the last one of a CAF a second time.
            stream.codec_context.flags2 |= Flags2.skip_manual
        try:
            sound = Sound(container, stream, demuxer, view, announced)
        except DamagedError as error:
            raise FramelessError(str(error)) from error
        yield sound


def probe(path: Path, number: int = 0, check: Callable[[], None] = lambda: None) -> Facts:
    """The facts of a stream of an MP4, decoded to its end; `check` is called between blocks and stops by raising.

    Raises `NotReadableError`, `DamagedError` and OSError.
    """
    with open_own(path, "rb") as file, opened(View(file), "mov", number) as sound:
        frames = 0
        for block in sound.blocks():
            check()
            frames += len(block)
        return Facts(subtype=sound.subtype, rate=sound.rate, channels=sound.channels, frames=frames)


def _split(held: "deque[Frames]", count: int) -> "tuple[Frames, deque[Frames]]":
    """The first `count` frames of `held`, and the rest."""
    whole = np.concatenate(held)
    return np.ascontiguousarray(whole[:count]), deque([whole[count:]])
