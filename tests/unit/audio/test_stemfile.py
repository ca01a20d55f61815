"""Stem files: five streams in order, untouched, and an atom that other programs find and leave alone."""

import base64
import errno
import json
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from audio import bytes_at, small_disk
from demixd.audio.containers.mp4 import MOST
from demixd.audio.ffmpeg.stemfile import LARGEST, NAMES, atom, write
from demixd.audio.pcm import Frames

CONTAINERS = (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"udta")

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG of one pixel."""


def part(number: int, frames: int, rate: int = 44100) -> Frames:
    """Noise in bands that no two parts share, `[T, 2]`."""
    noise = np.random.default_rng(number).standard_normal((frames + 199, 2))
    carrier = np.sin(2 * np.pi * (500 + 1500 * number) / rate * np.arange(frames))[:, None]
    smooth = np.apply_along_axis(np.convolve, 0, noise, np.ones(200) / 200, "valid")
    return np.asarray(2 * carrier * smooth, dtype=np.float32)


def m4a(path: Path, audio: Frames, codec: str, rate: int = 44100) -> Path:
    """An AAC or ALAC file with an edit list that says its exact frames."""
    options = {"fflags": "+bitexact", "movie_timescale": str(rate)}
    with av.open(path, "w", format="ipod", options=options) as output:
        stream = cast(av.AudioStream, output.add_stream(codec, rate=rate, layout="stereo"))
        stream.codec_context.open()
        size = stream.codec_context.frame_size
        for start in range(0, len(audio), size):
            block = np.ascontiguousarray(audio[start : start + size].T)
            if codec == "aac":
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            else:
                frame = av.AudioFrame.from_ndarray(np.rint(block * 32767).astype(np.int16), "s16p", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def parts(folder: Path, codec: str, frames: int = 50_001, rate: int = 44100) -> list[Path]:
    return [m4a(folder / f"{n}.m4a", part(n, frames, rate), codec, rate) for n in range(5)]


def decoded(path: Path, number: int = 0) -> NDArray[np.float64]:
    """An audio stream as FFmpeg decodes it, `[2, T]`."""
    with av.open(path) as container:
        stream = container.streams.audio[number]
        blocks = [np.asarray(frame.to_ndarray(), np.float64) for frame in container.decode(stream)]
    return np.concatenate([np.zeros((2, 0)), *blocks], axis=1)


def walk(data: bytes, path: str = "") -> Iterator[tuple[str, bytes]]:
    """Every box with its path, its content read from its bytes alone; what is left over is an error."""
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        assert 8 <= size <= len(data)
        here = f"{path}/{kind.decode('latin1')}"
        yield here, data[8:size]
        if kind in CONTAINERS:
            yield from walk(data[8:size], here)
        data = data[size:]


def contents(path: Path, box: str) -> list[bytes]:
    return [content for name, content in walk(path.read_bytes()) if name == box]


@pytest.fixture(scope="module", params=["aac", "alac"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A stem file, and the five that it was made of."""
    folder = tmp_path_factory.mktemp(request.param)
    streams = parts(folder, request.param)
    write(folder / "song.stem.mp4", streams)
    return folder / "song.stem.mp4", streams


def test_streams(made: tuple[Path, list[Path]]) -> None:
    """Five audio streams in the order given, the first the default one, each like its own part and like no other."""
    path, _ = made
    with av.open(path) as container:
        assert [stream.type for stream in container.streams] == ["audio"] * 5
        assert [bool(stream.disposition & 1) for stream in container.streams] == [True, False, False, False, False]
    heard = [decoded(path, number)[0] for number in range(5)]
    for number in range(5):
        likeness = [abs(np.corrcoef(each[:50_001], part(number, 50_001)[:, 0])[0, 1]) for each in heard]
        assert np.argmax(likeness) == number
        assert sorted(likeness)[-2] < 0.1 < 0.9 < max(likeness)


def test_nothing_is_encoded_anew(made: tuple[Path, list[Path]]) -> None:
    """Each stream decodes to exactly what its own file does."""
    path, streams = made
    for number, stream in enumerate(streams):
        assert np.array_equal(decoded(path, number), decoded(stream))


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize("codec", ["aac", "alac"])
@pytest.mark.parametrize("frames", [1, 1023, 1024, 1025, 4097, 30_000])
def test_lengths(tmp_path: Path, frames: int, codec: str, rate: int) -> None:
    """At any length, decoding gives what the parts give, and every edit list says the exact frames and priming."""
    streams = parts(tmp_path, codec, frames, rate)
    write(tmp_path / "song.stem.mp4", streams)
    for number, stream in enumerate(streams):
        assert np.array_equal(decoded(tmp_path / "song.stem.mp4", number), decoded(stream))
    priming = 1024 if codec == "aac" else 0
    expected = [struct.pack(">IIIiI", 0, 1, frames, priming, 1 << 16)] * 5
    assert contents(tmp_path / "song.stem.mp4", "/moov/trak/edts/elst") == expected


def test_tracks(made: tuple[Path, list[Path]]) -> None:
    """Only the master is enabled, no track tells a time of day, and all exclude each other."""
    headers = [struct.unpack(">III", content[:12]) for content in contents(made[0], "/moov/trak/tkhd")]
    assert headers == [(3, 0, 0), (2, 0, 0), (2, 0, 0), (2, 0, 0), (2, 0, 0)]
    assert {content[34:36] for content in contents(made[0], "/moov/trak/tkhd")} == {b"\0\1"}


def test_atom(made: tuple[Path, list[Path]]) -> None:
    """The atom is JSON right in moov/udta, as NI's own files have it, and `atom` reads the same."""
    (content,) = contents(made[0], "/moov/udta/stem")
    found = json.loads(content)
    assert atom(made[0]) == found
    assert list(found) == ["mastering_dsp", "stems", "version"]
    assert found["version"] == 1
    assert [stem["name"] for stem in found["stems"]] == list(NAMES)
    assert all(
        int(stem["color"].removeprefix("#"), 16) < 1 << 24 and len(stem["color"]) == 7 for stem in found["stems"]
    )
    assert set(found["mastering_dsp"]) == {"compressor", "limiter"}
    assert not any(each["enabled"] for each in found["mastering_dsp"].values())
    assert set(found["mastering_dsp"]["limiter"]) == {"enabled", "threshold", "ceiling", "release"}


def test_names(tmp_path: Path) -> None:
    """Stems have the names that are asked for, in any script."""
    write(tmp_path / "song.stem.mp4", parts(tmp_path, "alac", 5000), names=("Trommeln", "Baß", "残り", 'Voix "1"'))
    found = atom(tmp_path / "song.stem.mp4")
    assert found is not None
    assert [stem["name"] for stem in found["stems"]] == ["Trommeln", "Baß", "残り", 'Voix "1"']


def test_same_bytes(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """The same parts give the same bytes, over what was there before and not through a link."""
    path, streams = made
    (tmp_path / "other").write_bytes(b"keep")
    (tmp_path / "again").symlink_to(tmp_path / "other")
    write(tmp_path / "again", streams)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert (tmp_path / "other").read_bytes() == b"keep"


def test_tags(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """mutagen can add tags and a cover, and take them away: the atom stays, and every stream decodes as before."""
    mp4 = pytest.importorskip("mutagen.mp4")
    path = tmp_path / "tagged.stem.mp4"
    path.write_bytes(made[0].read_bytes())
    before = atom(path)
    for cover in (PIXEL, PIXEL + bytes(100_000)):
        tagged = mp4.MP4(path)
        tagged["\xa9nam"], tagged["\xa9ART"] = ["A song"], ["Somebody" * 50]
        tagged["covr"] = [mp4.MP4Cover(cover, imageformat=mp4.MP4Cover.FORMAT_PNG)]
        tagged.save()
        assert mp4.MP4(path)["\xa9nam"] == ["A song"]
        assert atom(path) == before
        assert json.loads(contents(path, "/moov/udta/stem")[0]) == before
        for number, stream in enumerate(made[1]):
            assert np.array_equal(decoded(path, number), decoded(stream))
    mp4.MP4(path).delete()
    assert atom(path) == before


# Wrong input


def test_wrong_counts(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """Other than five streams or four names are refused before anything is written."""
    for streams, names in ((made[1][:4], NAMES), (made[1] * 2, NAMES), (made[1], NAMES[:3])):
        with pytest.raises(ValueError, match="5 streams and 4 names"):
            write(tmp_path / "song.stem.mp4", streams, names=names)
    assert not (tmp_path / "song.stem.mp4").exists()


def test_wrong_streams(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """What is no audio, not one stream, or not like the others is refused."""
    (tmp_path / "text").write_text("nothing that FFmpeg knows")
    other = m4a(tmp_path / "other.m4a", part(0, 5000), "alac", 48000)
    for wrong in (tmp_path / "text", made[0], other):
        with pytest.raises(ValueError):
            write(tmp_path / "song.stem.mp4", [*made[1][:4], wrong])


def test_covers_are_left_behind(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """Parts that have tags and a cover already give the same stem file."""
    mp4 = pytest.importorskip("mutagen.mp4")
    streams = [tmp_path / each.name for each in made[1]]
    for stream, original in zip(streams, made[1], strict=True):
        stream.write_bytes(original.read_bytes())
        tagged = mp4.MP4(stream)
        tagged["\xa9nam"], tagged["covr"] = ["A part"], [mp4.MP4Cover(PIXEL, imageformat=mp4.MP4Cover.FORMAT_PNG)]
        tagged.save()
    write(tmp_path / "song.stem.mp4", streams)
    assert (tmp_path / "song.stem.mp4").read_bytes() == made[0].read_bytes()


def test_missing(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """A part that is not there, or no folder to write to, is the operating system's error."""
    for path, streams in ((tmp_path / "a", [*made[1][:4], tmp_path / "gone"]), (tmp_path / "gone" / "a", made[1])):
        with pytest.raises(FileNotFoundError):
            write(path, streams)
    with pytest.raises(FileNotFoundError):
        atom(tmp_path / "gone")


@pytest.mark.parametrize("less", [1, 500, 4096, 30_000])
def test_disk_full(tmp_path: Path, less: int) -> None:
    """A full disk is ENOSPC, wherever it fills up."""
    streams = parts(tmp_path, "alac", 20_000)
    write(tmp_path / "whole", streams)
    size = ((tmp_path / "whole").stat().st_size - less) // 4096 * 4096
    with small_disk(tmp_path / "disk", size) as disk, pytest.raises(OSError) as error:
        write(disk / "song.stem.mp4", streams)
    assert error.value.errno == errno.ENOSPC


# Hostile files


def box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I4s", 8 + len(content) if size is None else size, kind) + content


def nested(content: bytes, size: int | None = None) -> bytes:
    return box(b"moov", box(b"udta", box(b"stem", content, size)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"RIFF" * 100,
        bytes(1000),
        nested(b""),
        nested(b"[1]"),
        nested(b"{"),
        nested(b'{"a": "\xff"}'),
        nested(b'{"a":' * 20_000),
        nested(b"[" * 60_000),
        nested(b'{"a": "' + bytes(b"x" * LARGEST) + b'"}'),
        nested(b"{}", 7),
        nested(b"{}", 9 << 20),
        nested(b"{}", 2),
        box(b"moov", b"", 1),
        struct.pack(">I4sQ", 1, b"moov", 1 << 63) + bytes(50),
        struct.pack(">I4sQ", 1, b"free", 8) * 50,
        box(b"free", b"") * (MOST + 10) + nested(b"{}"),
        box(b"udta", box(b"stem", b"{}")),
    ],
)
def test_no_atom(tmp_path: Path, data: bytes) -> None:
    """Files without an atom, with a broken one or made to trap a reader give None, at once."""
    (tmp_path / "file").write_bytes(data)
    assert atom(tmp_path / "file") is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: box(b"free", b"") * 100 + inner,
        lambda inner: struct.pack(">I4sQ", 1, b"mdat", 16 + 99) + bytes(99) + inner,
        lambda inner: bytes(4) + inner[4:],
    ],
)
def test_other_layouts(tmp_path: Path, wrap: Callable[[bytes], bytes]) -> None:
    """An atom is found behind other boxes, behind one with a 64-bit size, and in one that ends with the file."""
    (tmp_path / "file").write_bytes(wrap(nested(b'{"version": 2}')))
    assert atom(tmp_path / "file") == {"version": 2}


def test_cut_anywhere(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """A file that was cut off or scribbled over gives its atom, or None; never an exception."""
    data = made[0].read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 100):
        (tmp_path / "file").write_bytes(data[:at])
        assert atom(tmp_path / "file") is None
        (tmp_path / "file").write_bytes(data)
        atom(bytes_at(tmp_path / "file", {int(len(data) - 1 - at % 3000): b"\xff"}))
