"""Audio files whose headers lie: good ones of every format, changed where it hurts.

a field of the header (a size, a count, a rate) gets another value; a frame's or page's bits are turned
a part is cut out, doubled, moved, or replaced by one of another file
the checksum of a changed Ogg page is made right again, so that the change is believed
"""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from audio import tones
from demixd.audio.containers import ogg
from song_codecs import CODECS, dsf

FORMATS = {
    "pcm.wav": {"format": "WAV", "subtype": "PCM_16"},
    "float.wav": {"format": "WAV", "subtype": "FLOAT"},
    "six.wav": {"format": "WAVEX", "subtype": "PCM_24"},
    "adpcm.wav": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "rf64.wav": {"format": "RF64", "subtype": "PCM_16"},
    "a.aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "a.flac": {"format": "FLAC", "subtype": "PCM_16"},
    "deep.flac": {"format": "FLAC", "subtype": "PCM_24"},
    "a.mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    "a.ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus.ogg": {"format": "OGG", "subtype": "OPUS"},
}

FFMPEG = (
    "aac-m4a",
    "alac-16",
    "opus-webm",
    "flac-mka",
    "wma",
    "wavpack",
    "tta",
    "alac-caf",
    "w64",
    "au",
    "aac-adts",
    "ac3",
)
"""And those of song_codecs.py that FFmpeg reads, one of each container."""

NUMBERS = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 62)

MARKS = (
    *(ogg.MAGIC, b"fmt ", b"data", b"ds64", b"COMM", b"SSND", b"Info", b"Xing", b"\xff\xf8", b"\xff\xfb"),
    *(b"mvhd", b"mdhd", b"elst", b"stsd", b"stts", b"stsz", b"stco", b"esds"),
    *(bytes.fromhex("1549A966"), bytes.fromhex("1654AE6B"), bytes.fromhex("1F43B675"), b"wvpk", b"pakt", b"kuki"),
)
"""What heads begin with: of chunks, pages and frames, of an MP4's boxes, of a Matroska's elements, and of others' blocks."""

HEAD = 160
"""Bytes in which a header's fields are."""


def originals(folder: Path) -> dict[str, bytes]:
    """A short good file of every format."""
    found = {}
    for name, how in FORMATS.items():
        channels = 6 if name == "six.wav" else 2
        rate = 48000 if name == "opus.ogg" else 44100
        soundfile.write(folder / name, tones(9000, rate=rate, channels=channels), rate, **how)
        found[name] = (folder / name).read_bytes()
    for name in FFMPEG:
        codec = CODECS[name]
        path = folder / f"{name}.{codec.suffix}"
        codec.write(path, tones(9000, rate=codec.rate), codec.rate)
        found[name] = path.read_bytes()
    dsf(folder / "a.dsf", tones(500), 44100)
    found["a.dsf"] = (folder / "a.dsf").read_bytes()
    return found


def mutants(files: dict[str, bytes], rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Without end: what it was, and what it is now."""
    names = sorted(files)
    while True:
        name = rng.choice(names)
        data = bytearray(files[name])
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            change = rng.choice((_field, _field, _field, _bits, _cut, _double, _splice, _noise))
            change(data, files[rng.choice(names)], rng)
        if data[:4] == ogg.MAGIC and rng.random() < 0.8:
            data = bytearray(_resealed(bytes(data)))
        yield name, bytes(data)


def _field(data: bytearray, _: bytes, rng: random.Random) -> None:
    """A number in the header, or in the head of some page or frame, is another one."""
    at = rng.choice(_starts(bytes(data))) + rng.randrange(HEAD)
    width = rng.choice((1, 2, 4, 8))
    if at + width > len(data):
        return
    order = rng.choice(("little", "big"))
    number = int.from_bytes(data[at : at + width], "little" if order == "little" else "big")
    number = rng.choice((rng.choice(NUMBERS), number + 1, number - 1, number * 2, rng.getrandbits(8 * width)))
    data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little" if order == "little" else "big")


def _starts(data: bytes) -> list[int]:
    """Where heads are: the file's, and those of its chunks, blocks, pages and frames."""
    found = [0, 0]
    for mark in MARKS:
        at = data.find(mark)
        while at >= 0 and len(found) < 200:
            found.append(at)
            at = data.find(mark, at + 1)
    return found


def _bits(data: bytearray, _: bytes, rng: random.Random) -> None:
    for _count in range(rng.choice((1, 4, 32))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, _: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 7, 100, len(data)))]


def _double(data: bytearray, _: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = data[at : at + rng.choice((4, 27, 400, 4000))] * rng.choice((1, 1, 20))


def _splice(data: bytearray, other: bytes, rng: random.Random) -> None:
    at, there = rng.randrange(len(data) + 1), rng.randrange(len(other))
    data[at : at + rng.choice((0, 100, len(data)))] = other[there : there + rng.choice((8, 400, len(other)))]


def _noise(data: bytearray, _: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at : at + rng.choice((0, 16))] = rng.randbytes(rng.choice((1, 8, 300)))


def _resealed(data: bytes) -> bytes:
    """Every page that can be told from the rest gets the right checksum."""
    parts, at = [], 0
    while (begin := data.find(ogg.MAGIC, at)) >= 0 and begin + ogg.HEADER < len(data):
        sizes = data[begin + ogg.HEADER : begin + ogg.HEADER + data[begin + 26]]
        end = begin + ogg.HEADER + len(sizes) + sum(sizes)
        page = bytearray(data[begin:end])
        if len(page) > ogg.HEADER:
            page[ogg.CHECKSUM] = ogg.checksum(bytes(page))
        parts += [data[at:begin], bytes(page)]
        at = max(end, begin + 1)
    return b"".join([*parts, data[at:]])


# ---- files that are made to be a burden


def many_channels(channels: int, frames: int) -> bytes:
    """A WAV with as many channels as a header can claim, all of it there."""
    block = channels * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + block * frames, b"WAVE", b"fmt ", 16, 1, channels, 44100, 44100 * block, block, 16),
        *(b"data", block * frames),
    )
    return head + bytes(block * frames)


def burdens() -> dict[str, bytes]:
    """Small files, each of which would take minutes or gigabytes if it were taken at its word."""
    frame = b"\xff\xfb\x90\x00".ljust(417, b"\0")
    empty_page = ogg.renumbered(ogg.MAGIC + bytes(22) + b"\1\0", 1)
    return {
        "chunks.wav": b"RIFF\0\0\0\0WAVE" + b"".join(struct.pack("<II", k | 1 << 31, 0) for k in range(1_000_000)),
        "tags.mp3": b"ID3\3\0\0\0\0\0\0" * 1_000_000,
        "junk.mp3": frame * 5 + (b"\xff\xfb\x90\x00" * 16_000 + frame * 5) * 12,
        "pages.ogg": empty_page * 200_000,
        "channels.wav": many_channels(1024, 66_000),
    }


def silence(path: Path, seconds: int, rate: int = 8000, **how: str) -> Path:
    """A long song of nothing, which is a small file."""
    with soundfile.SoundFile(path, "w", rate, 1, **how) as sound:
        for _ in range(seconds // 60):
            sound.write(np.zeros(60 * rate, np.int16))
    return path


def without_length(path: Path) -> Path:
    """A FLAC that does not say how long it is: the low 36 bits before the MD5 in STREAMINFO, which follows 8 bytes."""
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    return path
