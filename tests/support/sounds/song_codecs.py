"""Songs as other programs would have encoded them: every codec that FFmpeg can write, and DSF by hand."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import soundfile
from av.audio.resampler import AudioResampler

from demixd.audio.pcm import Frames

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}


Writer = Callable[[Path, Frames, int], None]
"""Writes audio `[T, C]` at a rate."""


class Codec(msgspec.Struct, frozen=True, kw_only=True):
    """How to write a song, and what is to be read of it."""

    suffix: str
    write: Writer
    format: str
    subtype: str
    rate: int = 44100
    lossless: bool = False
    offset: int = 0
    """Frames by which the audio comes later than in the original, and `extra` of them at the end: nobody can tell."""
    extra: int = 0


def through_soundfile(**how: Any) -> Writer:
    return lambda path, audio, rate: soundfile.write(path, audio, rate, **how)


def through_ffmpeg(muxer: str, encoder: str, *, samples: str | None = None, **options: str) -> Writer:
    """`options` are the encoder's; `b` is the bitrate."""

    def write(path: Path, audio: Frames, rate: int) -> None:
        layout = LAYOUTS[audio.shape[1]]
        with av.open(str(path), "w", format=muxer) as container:
            stream: Any = container.add_stream(encoder, rate=rate, options=options)
            stream.layout = layout
            if samples:
                stream.format = samples
            stream.time_base = Fraction(1, rate)
            stream.codec_context.open()
            for frame in _frames(audio, rate, stream, layout):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return write


def _frames(audio: Frames, rate: int, stream: Any, layout: str) -> Any:
    whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio).reshape(1, -1), format="flt", layout=layout)
    whole.sample_rate = rate
    whole.pts = 0
    resampler = AudioResampler(format=stream.format.name, layout=layout, rate=rate)
    fifo = av.AudioFifo()
    for frame in (*resampler.resample(whole), *resampler.resample(None)):
        frame.pts = None
        fifo.write(frame)
    at = 0
    size = stream.codec_context.frame_size or 4096
    while (frame := fifo.read(size, partial=True)) is not None:
        frame.pts, frame.time_base = at, Fraction(1, rate)
        at += frame.samples
        yield frame


def dsf(path: Path, audio: Frames, rate: int) -> None:
    """DSD at 64 times `rate`, by a first-order modulator; the file format is Sony's "DSF File Format Specification" 1.01."""
    frames, channels = audio.shape
    bits = np.zeros((frames * 64, channels), dtype=np.uint8)
    held = np.repeat(audio.astype(np.float64), 64, axis=0)
    error = np.zeros(channels)
    for at, sample in enumerate(held):
        error += sample
        one = error >= 0
        error -= np.where(one, 1.0, -1.0)
        bits[at] = one
    packed = np.packbits(bits, axis=0, bitorder="little")
    blocks = -(-len(packed) // 4096)
    padded = np.zeros((blocks * 4096, channels), dtype=np.uint8)
    padded[: len(packed)] = packed
    data = padded.reshape(blocks, 4096, channels).transpose(0, 2, 1).tobytes()
    number = lambda value, size: int(value).to_bytes(size, "little")  # noqa: E731 - a word for a line
    fmt = b"fmt " + number(52, 8) + b"".join(number(each, 4) for each in (1, 0, channels, channels, rate * 64, 1))
    fmt += number(len(bits), 8) + number(4096, 4) + number(0, 4)
    head = b"DSD " + number(28, 8) + number(28 + len(fmt) + 12 + len(data), 8) + number(0, 8)
    path.write_bytes(head + fmt + b"data" + number(12 + len(data), 8) + data)


def _codec(suffix: str, format: str, subtype: str, write: Writer, **facts: Any) -> Codec:
    return Codec(suffix=suffix, format=format, subtype=subtype, write=write, **facts)


CODECS = {
    "wav-16": _codec("wav", "wav", "PCM_16", through_soundfile(subtype="PCM_16"), lossless=True),
    "wav-24": _codec("wav", "wav", "PCM_24", through_soundfile(subtype="PCM_24"), lossless=True),
    "wav-float": _codec("wav", "wav", "FLOAT", through_soundfile(subtype="FLOAT"), lossless=True),
    "wav-adpcm": _codec("wav", "wav", "ADPCM_YAMAHA", through_ffmpeg("wav", "adpcm_yamaha"), extra=477),
    "aiff": _codec("aif", "aiff", "PCM_24", through_soundfile(format="AIFF", subtype="PCM_24"), lossless=True),
    "flac": _codec("flac", "flac", "PCM_16", through_soundfile(subtype="PCM_16"), lossless=True),
    "mp3": _codec("mp3", "mp3", "MPEG_LAYER_III", through_ffmpeg("mp3", "libmp3lame", b="256k")),
    "mp3-vbr": _codec(
        "mp3", "mp3", "MPEG_LAYER_III", through_soundfile(subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE")
    ),
    "vorbis": _codec("ogg", "ogg", "VORBIS", through_soundfile(format="OGG", subtype="VORBIS")),
    "opus": _codec("opus", "ogg", "OPUS", through_ffmpeg("ogg", "libopus", samples="s16", b="256k"), rate=48000),
    "aac-m4a": _codec("m4a", "mp4", "AAC", through_ffmpeg("ipod", "aac", b="256k")),
    "aac-mp4": _codec("mp4", "mp4", "AAC", through_ffmpeg("mp4", "aac", b="256k")),
    "alac-16": _codec("m4a", "mp4", "ALAC_16", through_ffmpeg("ipod", "alac", samples="s16p"), lossless=True),
    "alac-24": _codec("m4a", "mp4", "ALAC_24", through_ffmpeg("ipod", "alac", samples="s32p"), lossless=True),
    "alac-caf": _codec("caf", "caf", "ALAC_16", through_ffmpeg("caf", "alac", samples="s16p"), lossless=True),
    "opus-mp4": _codec("mp4", "mp4", "OPUS", through_ffmpeg("mp4", "libopus", samples="s16", b="256k"), rate=48000),
    "opus-webm": _codec(
        "webm", "matroska", "OPUS", through_ffmpeg("webm", "libopus", samples="s16", b="256k"), rate=48000
    ),
    "flac-mka": _codec("mka", "matroska", "PCM_16", through_ffmpeg("matroska", "flac", samples="s16"), lossless=True),
    "mp3-mkv": _codec("mkv", "matroska", "MPEG_LAYER_III", through_ffmpeg("matroska", "libmp3lame", b="256k")),
    "wavpack": _codec("wv", "wavpack", "PCM_32", through_ffmpeg("wv", "wavpack", samples="s32p"), lossless=True),
    "tta": _codec("tta", "tta", "PCM_16", through_ffmpeg("tta", "tta", samples="s16"), lossless=True),
    "au": _codec("au", "au", "PCM_16", through_soundfile(format="AU", subtype="PCM_16"), lossless=True),
    "w64": _codec("w64", "w64", "PCM_24", through_soundfile(format="W64", subtype="PCM_24"), lossless=True),
    "aac-mka": _codec("mka", "matroska", "AAC", through_ffmpeg("matroska", "aac", b="256k"), extra=1024),
    "aac-adts": _codec("aac", "aac", "AAC", through_ffmpeg("adts", "aac", b="256k"), offset=1024, extra=2048),
    "ac3": _codec("ac3", "ac3", "AC3", through_ffmpeg("ac3", "ac3", b="448k"), offset=256, extra=1536),
    "mp2": _codec("mp2", "mp2", "MP2", through_ffmpeg("mp2", "mp2", b="384k"), offset=481, extra=2304),
    "wma": _codec("wma", "wma", "WMAV2", through_ffmpeg("asf", "wmav2", b="192k"), offset=-2048, extra=2048),
}
"""What a song can come as. Of the last ones the file does not tell how much of it the encoder has put before or behind."""
