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

from stemd.track import Frames

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}


class Codec(msgspec.Struct, frozen=True, kw_only=True):
    """How to write a song, and what is to be read of it."""

    suffix: str
    write: Callable[[Path, Frames, int], None]
    format: str
    subtype: str
    rate: int = 44100
    lossless: bool = False
    offset: int = 0
    """Frames by which the audio comes later than in the original, and `extra` of them at the end: nobody can tell."""
    extra: int = 0


def through_soundfile(**how: Any) -> Callable[[Path, Frames, int], None]:
    return lambda path, audio, rate: soundfile.write(path, audio, rate, **how)


def through_ffmpeg(
    muxer: str, encoder: str, *, samples: str | None = None, **options: str
) -> Callable[[Path, Frames, int], None]:
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


CODECS = {
    "wav-16": Codec(
        suffix="wav", write=through_soundfile(subtype="PCM_16"), format="wav", subtype="PCM_16", lossless=True
    ),
    "wav-24": Codec(
        suffix="wav", write=through_soundfile(subtype="PCM_24"), format="wav", subtype="PCM_24", lossless=True
    ),
    "wav-float": Codec(
        suffix="wav", write=through_soundfile(subtype="FLOAT"), format="wav", subtype="FLOAT", lossless=True
    ),
    "wav-adpcm": Codec(
        suffix="wav", write=through_ffmpeg("wav", "adpcm_yamaha"), format="wav", subtype="ADPCM_YAMAHA", extra=477
    ),
    "aiff": Codec(
        suffix="aif",
        write=through_soundfile(format="AIFF", subtype="PCM_24"),
        format="aiff",
        subtype="PCM_24",
        lossless=True,
    ),
    "flac": Codec(
        suffix="flac", write=through_soundfile(subtype="PCM_16"), format="flac", subtype="PCM_16", lossless=True
    ),
    "mp3": Codec(
        suffix="mp3", write=through_ffmpeg("mp3", "libmp3lame", b="256k"), format="mp3", subtype="MPEG_LAYER_III"
    ),
    "mp3-vbr": Codec(
        suffix="mp3",
        write=through_soundfile(subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE"),
        format="mp3",
        subtype="MPEG_LAYER_III",
    ),
    "vorbis": Codec(
        suffix="ogg", write=through_soundfile(format="OGG", subtype="VORBIS"), format="ogg", subtype="VORBIS"
    ),
    "opus": Codec(
        suffix="opus",
        write=through_ffmpeg("ogg", "libopus", samples="s16", b="256k"),
        format="ogg",
        subtype="OPUS",
        rate=48000,
    ),
    "aac-m4a": Codec(suffix="m4a", write=through_ffmpeg("ipod", "aac", b="256k"), format="mp4", subtype="AAC"),
    "aac-mp4": Codec(suffix="mp4", write=through_ffmpeg("mp4", "aac", b="256k"), format="mp4", subtype="AAC"),
    "alac-16": Codec(
        suffix="m4a",
        write=through_ffmpeg("ipod", "alac", samples="s16p"),
        format="mp4",
        subtype="ALAC_16",
        lossless=True,
    ),
    "alac-24": Codec(
        suffix="m4a",
        write=through_ffmpeg("ipod", "alac", samples="s32p"),
        format="mp4",
        subtype="ALAC_24",
        lossless=True,
    ),
    "alac-caf": Codec(
        suffix="caf",
        write=through_ffmpeg("caf", "alac", samples="s16p"),
        format="caf",
        subtype="ALAC_16",
        lossless=True,
    ),
    "opus-mp4": Codec(
        suffix="mp4",
        write=through_ffmpeg("mp4", "libopus", samples="s16", b="256k"),
        format="mp4",
        subtype="OPUS",
        rate=48000,
    ),
    "opus-webm": Codec(
        suffix="webm",
        write=through_ffmpeg("webm", "libopus", samples="s16", b="256k"),
        format="matroska",
        subtype="OPUS",
        rate=48000,
    ),
    "flac-mka": Codec(
        suffix="mka",
        write=through_ffmpeg("matroska", "flac", samples="s16"),
        format="matroska",
        subtype="PCM_16",
        lossless=True,
    ),
    "mp3-mkv": Codec(
        suffix="mkv",
        write=through_ffmpeg("matroska", "libmp3lame", b="256k"),
        format="matroska",
        subtype="MPEG_LAYER_III",
    ),
    "wavpack": Codec(
        suffix="wv",
        write=through_ffmpeg("wv", "wavpack", samples="s32p"),
        format="wavpack",
        subtype="PCM_32",
        lossless=True,
    ),
    "tta": Codec(
        suffix="tta", write=through_ffmpeg("tta", "tta", samples="s16"), format="tta", subtype="PCM_16", lossless=True
    ),
    "au": Codec(
        suffix="au",
        write=through_soundfile(format="AU", subtype="PCM_16"),
        format="au",
        subtype="PCM_16",
        lossless=True,
    ),
    "w64": Codec(
        suffix="w64",
        write=through_soundfile(format="W64", subtype="PCM_24"),
        format="w64",
        subtype="PCM_24",
        lossless=True,
    ),
    "aac-mka": Codec(
        suffix="mka", write=through_ffmpeg("matroska", "aac", b="256k"), format="matroska", subtype="AAC", extra=1024
    ),
    "aac-adts": Codec(
        suffix="aac",
        write=through_ffmpeg("adts", "aac", b="256k"),
        format="aac",
        subtype="AAC",
        offset=1024,
        extra=2048,
    ),
    "ac3": Codec(
        suffix="ac3", write=through_ffmpeg("ac3", "ac3", b="448k"), format="ac3", subtype="AC3", offset=256, extra=1536
    ),
    "mp2": Codec(
        suffix="mp2", write=through_ffmpeg("mp2", "mp2", b="384k"), format="mp2", subtype="MP2", offset=481, extra=2304
    ),
    "wma": Codec(
        suffix="wma",
        write=through_ffmpeg("asf", "wmav2", b="192k"),
        format="wma",
        subtype="WMAV2",
        offset=-2048,
        extra=2048,
    ),
}
"""What a song can come as. Of the last ones the file does not tell how much of it the encoder has put before or behind."""
