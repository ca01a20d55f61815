"""Stems in formats that libsndfile cannot write, or not well enough: MP3 by LAME, M4A with AAC or ALAC.

    [T, C] --fifo--> frames of the encoder's size --encoder--> packets --muxer--> file

Rules:
- A file decodes to the stem's number of frames: FFmpeg writes LAME's tag into an MP3, and an edit list into an M4A, whose
  time scale is the rate (in the usual milliseconds it could not name a frame).
- The same stem gives the same bytes: they have no time of day, and no version of a library.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any, BinaryIO, cast

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from demixd.audio.formats import FORMATS, Target
from demixd.audio.streams import NotWritableError

QP2LAMBDA = 118
"""FF_QP2LAMBDA: FFmpeg's number for LAME's quality V2 is 2 x 118."""

LAYOUTS = {1: "mono", 2: "stereo"}

SAMPLES = {"ALAC_16": "s16p", "ALAC_24": "s32p"}
"""Subtype -> the sample format of FFmpeg's encoder; all others take floats."""


class Writer:
    """An open new file."""

    def __init__(self, container: Any, stream: AudioStream, target: Target) -> None:
        self._container, self._stream, self._target = container, stream, target
        self._samples = SAMPLES.get(target.subtype, "fltp")
        self._size = stream.codec_context.frame_size
        self._fifo = av.AudioFifo()
        self._frames = 0

    def write(self, block: NDArray[Any]) -> None:
        """Append `[T, C]`: float32, int16, or integers in the upper bits of 32. Raises `NotWritableError`."""
        if len(block):
            self._fifo.write(self._frame(block))
        while (frame := self._fifo.read(self._size)) is not None:
            self._encode(frame)

    def finish(self) -> None:
        """Write the last, shorter frame, and the packets that the encoder still holds. Raises `NotWritableError`."""
        while (frame := self._fifo.read(self._size, partial=True)) is not None:
            self._encode(frame)
        self._encode(None)

    def _frame(self, block: NDArray[Any]) -> AudioFrame:
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(block.T), format=self._samples, layout=LAYOUTS[self._target.channels]
        )
        frame.sample_rate = self._target.rate
        frame.time_base = Fraction(1, self._target.rate)
        frame.pts = self._frames
        self._frames += len(block)
        return frame

    def _encode(self, frame: AudioFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise NotWritableError(str(error)) from error


@contextmanager
def created(sink: BinaryIO, target: Target) -> Iterator[Writer]:
    """A new file in `sink`, complete at the end of the `with` block, if without an error. Raises `NotWritableError`."""
    options = {"fflags": "+bitexact"}
    if target.format == "mp3":
        options |= {"id3v2_version": "0", "write_xing": "1"}  # tags are written later (audio/tags)
    else:
        options |= {"movie_timescale": str(target.rate)}
    try:
        container = av.open(cast(Any, sink), "w", format=FORMATS[target.format].container, options=options)
    except (av.error.FFmpegError, ValueError) as error:
        raise NotWritableError(str(error)) from error
    try:
        writer = Writer(container, _stream(container, target), target)
        yield writer
        writer.finish()
    except BaseException as error:
        with suppress(av.error.FFmpegError):
            container.close()
        if isinstance(error, (av.error.FFmpegError, ValueError)):
            raise NotWritableError(str(error)) from error
        raise
    try:
        container.close()
    except av.error.FFmpegError as error:
        raise NotWritableError(str(error)) from error


def _stream(container: Any, target: Target) -> AudioStream:
    options = {"flags": "+bitexact"}
    if target.quality is not None:
        options["compression_level"] = str(target.quality)
    if target.vbr is not None:
        options |= {"flags": "+bitexact+qscale", "global_quality": str(target.vbr * QP2LAMBDA)}
    stream = container.add_stream(FORMATS[target.format].encoder, rate=target.rate, options=options)
    stream.codec_context.layout = LAYOUTS[target.channels]
    stream.codec_context.format = SAMPLES.get(target.subtype, "fltp")
    stream.time_base = Fraction(1, target.rate)
    if target.bitrate is not None:
        stream.codec_context.bit_rate = target.bitrate * 1000
    stream.codec_context.open()
    return cast(AudioStream, stream)
