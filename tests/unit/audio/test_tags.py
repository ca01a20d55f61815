# mypy: disallow-untyped-calls=False
"""Tags: from every format to every format, of damaged songs, and without harm to the audio."""

import base64
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from mutagen import aiff, apev2, asf, dsf, flac, id3, mp4, oggopus, oggvorbis

from audio import song, tones
from demixd.audio import tags
from demixd.audio.containers import mpeg, ogg
from demixd.audio.containers.riff import chunk
from demixd.audio.tags import NOTHING, Cover, Tags, TagsError, for_stem, lrc, sandbox, values
from demixd.audio.tags.reading import tags_of

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


PNG = (
    PNG_HEAD
    + png_chunk(b"IHDR", bytes.fromhex("00000001000000010802000000"))
    + png_chunk(b"IDAT", zlib.compress(b"\0\xff\x80\x00"))
    + png_chunk(b"IEND", b"")
)
JPEG = (
    bytes.fromhex("ffd8ffdb004300" + 64 * "01" + "ffc0000b080001000101011100")
    + bytes.fromhex("ffc4001400" + "01" + 15 * "00" + "00" + "ffc4001410" + "01" + 15 * "00" + "00")
    + bytes.fromhex("ffda00080101" + "00003f00" + "3f" + "ffd9")
)
FRONT = Cover(mime="image/png", data=PNG)
BACK = Cover(mime="image/jpeg", data=JPEG, kind=4, description="back")
BARE = Cover(mime="image/jpeg", data=JPEG, kind=4)

TEXTS: dict[str, tuple[str, ...]] = {
    "title": ("Nachtmusik - 夜に駆ける",),
    "artist": ("Björk", "Мумий Тролль", "AC/DC"),
    "album": ("Größe",),
    "albumartist": ("Verschiedene",),
    "date": ("2019-05-17",),
    "tracknumber": ("3",),
    "tracktotal": ("12",),
    "discnumber": ("1",),
    "disctotal": ("2",),
    "genre": ("Art Pop",),
    "composer": ("Ó Riada",),
    "comment": ("Live in Köln",),
    "lyrics": ("One\nTwo",),
    "bpm": ("128",),
    "musicbrainz_artistid": ("f5093c06-23e3-404f-aeaa-40f72885ee3a",),
    "moods": ("calm", "暗い"),
}
UNWANTED = {
    "REPLAYGAIN_TRACK_GAIN": "-7.1 dB",
    "replaygain_album_peak": "0.98",
    "R128_TRACK_GAIN": "-512",
    "ENCODER": "Some 1.2",
    "encoded-by": "somebody",
    "iTunNORM": " 00000",
    "ACOUSTID_FINGERPRINT": "AQAD",
    "CUESHEET": "FILE",
    "SERATO_MARKERS_V2": "AAAA",
    "ISRC": "DEA123456789",
    "MusicBrainz Track Id": "f5093c06-23e3-404f-aeaa-40f72885ee3a",
    "MUSICBRAINZ_ALBUMID": "f5093c06-23e3-404f-aeaa-40f72885ee3a",
    "musicbrainz_releasegroupid": "f5093c06-23e3-404f-aeaa-40f72885ee3a",
    "MusicBrainz Release Track Id": "f5093c06-23e3-404f-aeaa-40f72885ee3a",
    "Acoustid Id": "f5093c06-23e3-404f-aeaa-40f72885ee3a",
    "BARCODE": "4006381333931",
}

# Songs with tags, as other programs write them


def vorbis(file: Any) -> None:
    """Into FLAC, Vorbis, Opus."""
    names = {"albumartist": "ALBUM ARTIST", "tracktotal": "TOTALTRACKS", "comment": "DESCRIPTION"}
    file.tags[:] = [(names.get(key, key.upper()), text) for key, texts in TEXTS.items() for text in texts]
    file.tags.extend(UNWANTED.items())
    pictures = []
    for cover in (BACK, FRONT):
        picture = flac.Picture()
        picture.type, picture.mime, picture.data, picture.desc = cover.kind, cover.mime, cover.data, cover.description
        pictures.append(picture)
    if isinstance(file, flac.FLAC):
        for picture in pictures:
            file.add_picture(picture)
    else:
        file.tags.extend(("metadata_block_picture", base64.b64encode(each.write()).decode()) for each in pictures)


FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "albumartist": "TPE2",
    "genre": "TCON",
    "composer": "TCOM",
    "bpm": "TBPM",
    "date": "TDRC",
}


def frames(into: Any) -> Any:
    """ID3v2.4's frames."""
    for key, name in FRAMES.items():
        into.add(getattr(id3, name)(encoding=3, text=list(TEXTS[key])))
    into.add(id3.TRCK(encoding=0, text=["03/12"[1:]]))
    into.add(id3.TPOS(encoding=0, text=["1/2"]))
    into.add(id3.COMM(encoding=3, lang="deu", desc="", text=list(TEXTS["comment"])))
    into.add(id3.COMM(encoding=3, lang="eng", desc="iTunSMPB", text=[" 00000000 00000840"]))
    into.add(id3.USLT(encoding=3, lang="deu", desc="", text=TEXTS["lyrics"][0]))
    into.add(id3.TXXX(encoding=3, desc="MusicBrainz Artist Id", text=list(TEXTS["musicbrainz_artistid"])))
    into.add(id3.TXXX(encoding=3, desc="Moods", text=list(TEXTS["moods"])))
    for name, text in UNWANTED.items():
        into.add(id3.TXXX(encoding=3, desc=name, text=[text]))
    into.add(id3.TSSE(encoding=3, text=["LAME 3.100"]))
    into.add(id3.TENC(encoding=3, text=["somebody"]))
    into.add(id3.TLEN(encoding=3, text=["1000"]))
    into.add(id3.RVA2(desc="track", channel=1, gain=-7.0, peak=0.9))
    into.add(id3.PRIV(owner="x", data=b"private"))
    into.add(id3.UFID(owner="http://musicbrainz.org", data=b"x"))
    into.add(id3.CHAP(element_id="c", start_time=0, end_time=9, sub_frames=[id3.TIT2(encoding=3, text=["Chapter"])]))
    for cover in (BACK, FRONT):
        into.add(id3.APIC(encoding=0, mime=cover.mime, type=cover.kind, desc=cover.description, data=cover.data))
    return into


def mp3(path: Path) -> None:
    song(path, tones(3000), format="MP3")


def mp3_v24(path: Path) -> None:
    mp3(path)
    frames(id3.ID3()).save(path)


def mp3_v23(path: Path) -> None:
    """With several values as most programs that write them in 2.3 do it: separated by zeros."""
    mp3(path)
    made = frames(id3.ID3())
    made.update_to_v23()
    made.save(path, v2_version=3, v23_sep=None)


def mp3_v22(path: Path) -> None:
    """ID3v2.2 by hand: three letters, three bytes of size, no flags."""
    mp3(path)

    def frame(name: str, content: bytes) -> bytes:
        return name.encode() + struct.pack(">I", len(content))[1:] + content

    def text(name: str, *texts: str) -> bytes:
        return frame(name, b"\1" + b"\0\0".join(each.encode("utf-16") for each in texts))

    names = {"TT2": "title", "TP1": "artist", "TAL": "album", "TP2": "albumartist", "TCO": "genre", "TCM": "composer"}
    body = b"".join(text(name, *TEXTS[key]) for name, key in (names | {"TBP": "bpm"}).items())
    body += text("TYE", "2019") + text("TDA", "1705") + text("TRK", "3/12") + text("TPA", "1/2")
    for name, key in (("COM", "comment"), ("ULT", "lyrics")):
        body += frame(name, b"\1deu" + "".encode("utf-16") + b"\0\0" + TEXTS[key][0].encode("utf-16"))
    for key in ("MusicBrainz Artist Id", "moods"):
        value = "\0".join(TEXTS.get(key, TEXTS["musicbrainz_artistid"]))
        body += frame("TXX", b"\1" + key.encode("utf-16") + b"\0\0" + value.encode("utf-16"))
    body += frame("TXX", b"\0REPLAYGAIN_TRACK_GAIN\0-7 dB") + text("TSS", "LAME")
    for cover, kind in ((BACK, b"JPG"), (FRONT, b"PNG")):
        body += frame("PIC", b"\0" + kind + bytes([cover.kind]) + cover.description.encode() + b"\0" + cover.data)
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\2\0\0" + size + body + path.read_bytes())


def ape(path: Path) -> None:
    made = apev2.APEv2()
    names = {"albumartist": "Album Artist", "date": "Year"}
    for key, texts in TEXTS.items():
        if key not in ("tracknumber", "tracktotal", "discnumber", "disctotal"):
            made[names.get(key, key.capitalize())] = list(texts)
    made["Track"], made["Disc"] = "3/12", "1/2"
    for name, text in (UNWANTED | {"MP3GAIN_UNDO": "+3,+3,N"}).items():
        made[name] = text
    made["Cover Art (Front)"] = apev2.APEValue(b"cover.png\0" + PNG, apev2.BINARY)
    made["Cover Art (Back)"] = apev2.APEValue(b"cover.jpg\0" + JPEG, apev2.BINARY)
    made.save(path)


def encoded(path: Path, codec: str, container: str, rate: int = 44100, metadata: Mapping[str, str] = {}) -> None:
    """Audio as FFmpeg encodes it: what libsndfile cannot."""
    with av.open(os.fspath(path), "w", format=container) as out:
        out.metadata.update(metadata)
        stream: Any = out.add_stream(codec, rate=rate, layout="stereo")
        stream.bit_rate = 128_000
        layout = stream.codec_context.format.name
        resampler = av.AudioResampler(format=layout, layout="stereo", rate=rate, frame_size=stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tones(9000).T), format="fltp", layout="stereo")
        frame.sample_rate = rate
        for each in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(each))
        out.mux(stream.encode(None))


def mp3_ape(path: Path) -> None:
    """With an ID3v1 behind, which says less of the same."""
    mp3(path)
    ape(path)
    with path.open("ab") as file:
        file.write(id3_v1())


def id3_v1(title: bytes = b"Nachtmusik") -> bytes:
    cut = (title.ljust(30, b"\0"), b"Bj\xf6rk".ljust(30, b"\0"), b"Gr\xf6\xdfe".ljust(30, b"\0"), b"2019")
    return b"TAG" + b"".join(cut) + b"Live in K\xf6ln".ljust(28, b"\0") + b"\0\3" + b"\x11"


def mp3_v1(path: Path) -> None:
    mp3(path)
    with path.open("ab") as file:
        file.write(id3_v1())


def flac_plain(path: Path) -> None:
    song(path, tones(3000), format="FLAC")
    file = flac.FLAC(path)
    vorbis(file)
    file.save(path)


def flac_behind_id3(path: Path) -> None:
    flac_plain(path)
    made = id3.ID3()
    made.add(id3.TIT2(encoding=3, text=["Not this"]))
    whole = path.with_name("tag")
    made.save(whole)
    path.write_bytes(whole.read_bytes() + path.read_bytes())


def ogg_vorbis(path: Path) -> None:
    song(path, tones(3000), format="OGG")
    file = oggvorbis.OggVorbis(path)
    vorbis(file)
    file.save(path)


def ogg_opus(path: Path) -> None:
    song(path, tones(3000), 48000, format="OGG", subtype="OPUS")
    file = oggopus.OggOpus(path)
    vorbis(file)
    file.save(path)


def m4a(path: Path) -> None:
    encoded(path, "aac", "ipod")
    file = mp4.MP4(path)
    made: Any = file.tags
    names = {"title": "nam", "artist": "ART", "album": "alb", "date": "day", "genre": "gen", "composer": "wrt"}
    for key, name in (names | {"comment": "cmt", "lyrics": "lyr"}).items():
        made["\xa9" + name] = list(TEXTS[key])
    made["aART"], made["trkn"], made["disk"], made["tmpo"] = list(TEXTS["albumartist"]), [(3, 12)], [(1, 2)], [128]
    free = {"MusicBrainz Artist Id": "musicbrainz_artistid", "MOODS": "moods"}
    for name, key in free.items():
        made["----:com.apple.iTunes:" + name] = [text.encode() for text in TEXTS[key]]
    for name, text in (UNWANTED | {"iTunSMPB": " 0000"}).items():
        made["----:com.apple.iTunes:" + name] = text.encode()
    made["covr"] = [mp4.MP4Cover(PNG, mp4.MP4Cover.FORMAT_PNG), mp4.MP4Cover(JPEG, mp4.MP4Cover.FORMAT_PNG)]
    file.save(path)


def wav_id3(path: Path) -> None:
    song(path, tones(3000), format="WAV")
    whole = path.with_name("tag")
    frames(id3.ID3()).save(whole)
    with path.open("ab") as file:
        file.write(chunk(b"LIST", b"INFO" + chunk(b"INAM", b"Not this\0")) + chunk(b"id3 ", whole.read_bytes()))


def rf64_id3(path: Path) -> None:
    song(path, tones(3000), format="RF64")
    whole = path.with_name("tag")
    frames(id3.ID3()).save(whole)
    with path.open("ab") as file:
        file.write(chunk(b"id3 ", whole.read_bytes()))


def wav_info(path: Path) -> None:
    song(path, tones(3000), format="WAV")
    said = {"INAM": "Nachtmusik - 夜に駆ける", "IART": "Björk", "IPRD": "Größe", "ICRD": "2019", "IGNR": "Art Pop"}
    said |= {"ICMT": "Live in Köln", "ITRK": "3/12", "ISFT": "Some DAW"}
    parts = [chunk(name.encode(), text.encode("cp1252" if name == "IART" else "utf-8")) for name, text in said.items()]
    data = path.read_bytes() + chunk(b"LIST", b"adtl....") + chunk(b"LIST", b"INFO" + b"".join(parts))
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])


def aiff_id3(path: Path) -> None:
    song(path, tones(3000), format="AIFF")
    file = aiff.AIFF(path)
    file.add_tags()
    frames(file.tags)
    file.save(path)


def dsf_id3(path: Path) -> None:
    """Of a DSF only the header: nothing decodes it here."""
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 2, 2, 2822400, 1, 8192, 4096, 0)
    path.write_bytes(struct.pack("<4sQQQ", b"DSD ", 28, 92, 0) + form + struct.pack("<4sQ", b"data", 12))
    file = dsf.DSF(path)
    file.add_tags()
    frames(file.tags)
    file.save(path)


def wma(path: Path) -> None:
    encoded(path, "wmav2", "asf")
    module: Any = asf
    file = module.ASF(path)
    made = file.tags
    names = {"title": "Title", "artist": "Author", "comment": "Description", "album": "WM/AlbumTitle"}
    names |= {"albumartist": "WM/AlbumArtist", "date": "WM/Year", "genre": "WM/Genre", "composer": "WM/Composer"}
    names |= {"lyrics": "WM/Lyrics", "bpm": "WM/BeatsPerMinute", "moods": "moods"}
    for key, name in (names | {"musicbrainz_artistid": "MusicBrainz/Artist Id"}).items():
        made[name] = list(TEXTS[key])
    made["WM/TrackNumber"], made["WM/PartOfSet"], made["tracktotal"] = 3, "1/2", "12"
    for name, text in UNWANTED.items():
        made[name] = text
    made["WM/Picture"] = [
        module.ASFValue(
            struct.pack("<BI", cover.kind, len(cover.data))
            + f"{cover.mime}\0{cover.description}\0".encode("utf-16-le")
            + cover.data,
            module.BYTEARRAY,
        )
        for cover in (BACK, FRONT)
    ]
    file.save(path)


def wavpack(path: Path) -> None:
    encoded(path, "wavpack", "wv")
    ape(path)


def musepack(path: Path) -> None:
    """Nothing here encodes it; what tells its tags is their end."""
    path.write_bytes(b"MPCK" + bytes(500))
    ape(path)


def tta(path: Path) -> None:
    encoded(path, "tta", "tta")
    frames(id3.ID3()).save(path)


def without(*keys: str, **changes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {key: texts for key, texts in (TEXTS | changes).items() if key not in keys}


LITTLE = without(
    "albumartist", "tracktotal", "discnumber", "disctotal", "composer", "lyrics", "bpm", "musicbrainz_artistid",
    "moods", artist=("Björk",), date=("2019",)
)  # fmt: skip

SOURCES: dict[str, tuple[Callable[[Path], None], dict[str, tuple[str, ...]], tuple[Cover, ...]]] = {
    make.__name__: (make, TEXTS, (FRONT, BACK))
    for make in (
        mp3_v22, mp3_v23, mp3_v24, flac_plain, flac_behind_id3, ogg_vorbis, ogg_opus, wav_id3, rf64_id3, aiff_id3,
        dsf_id3, wma, tta,
    )
} | {
    make.__name__: (make, TEXTS, (FRONT, BARE)) for make in (mp3_ape, wavpack, musepack)
} | {
    "m4a": (m4a, TEXTS, (FRONT, Cover(mime="image/jpeg", data=JPEG, kind=0))),
    "mp3_v1": (mp3_v1, LITTLE | {"title": ("Nachtmusik",), "genre": ("Rock",)}, ()),
    "wav_info": (wav_info, LITTLE | {"tracktotal": ("12",)}, ()),
}  # fmt: skip

# Stems to be tagged

STEMS: dict[str, Callable[[Path], object]] = {
    "wav": lambda path: song(path, tones(9001), format="WAV", subtype="PCM_24"),
    "flac": lambda path: song(path, tones(9000), format="FLAC"),
    "mp3": lambda path: song(path, tones(9000), format="MP3", bitrate_mode="CONSTANT"),
    "ogg": lambda path: song(path, tones(90_000), format="OGG"),
    "opus": lambda path: song(path, tones(96_000), 48000, format="OGG", subtype="OPUS"),
    "m4a": lambda path: encoded(path, "aac", "ipod"),
    "alac": lambda path: encoded(path, "alac", "ipod"),
}
LOSSLESS = ("wav", "flac", "mp3")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every source and every untagged stem, made once."""
    folder = tmp_path_factory.mktemp("shelf")
    for name, (make, _, _) in SOURCES.items():
        make(folder / name)
    for name, write in STEMS.items():
        write(folder / f"stem.{name}")
    return folder


@pytest.fixture
def stem(shelf: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(format: str) -> Path:
        path = tmp_path / f"vocals.{format}"
        path.write_bytes((shelf / f"stem.{format}").read_bytes())
        return path

    return copy


def seen(path: Path) -> Tags:
    with path.open("rb") as file:
        return tags_of(file)


@pytest.mark.parametrize("source", SOURCES)
def test_reading(shelf: Path, source: str) -> None:
    """Every format is read whole, by its content, and without what is no stem's business."""
    _, texts, covers = SOURCES[source]
    assert seen(shelf / source) == Tags(texts=texts, covers=covers)


@pytest.mark.parametrize("target", STEMS)
@pytest.mark.parametrize("source", SOURCES)
def test_from_all_to_all(shelf: Path, stem: Callable[[str], Path], source: str, target: str) -> None:
    """What a song says of itself arrives in its stems, byte for byte the covers too."""
    path = stem(target)
    given = seen(shelf / source)
    tags.write(path, given, target)
    read = seen(path)
    assert read.texts == given.texts
    assert read.warning is None
    assert [(each.mime, each.data) for each in read.covers] == [(each.mime, each.data) for each in given.covers]
    if target not in ("m4a", "alac"):
        assert read.covers == given.covers


FFMPEG = {"title": "title", "album": "album", "album_artist": "albumartist", "genre": "genre", "composer": "composer"}


@pytest.mark.parametrize("target", STEMS)
def test_another_program_reads_it(stem: Callable[[str], Path], target: str) -> None:
    """FFmpeg finds the texts and the cover where it looks for them."""
    path = stem(target)
    tags.write(path, Tags(texts=TEXTS, covers=(FRONT,)), target)
    with av.open(os.fspath(path)) as file:
        found = {key.lower(): text for key, text in (dict(file.metadata) | dict(file.streams[0].metadata)).items()}
        pictures = [stream for stream in file.streams if stream.type == "video"]
    assert {key: found[key] for key in FFMPEG} == {key: TEXTS[ours][0] for key, ours in FFMPEG.items()}
    assert found["artist"].startswith("Björk")
    assert found["date"].startswith("2019")
    assert found["track"].split("/")[0] == "3"
    assert found["comment"] == "Live in Köln"
    assert len(pictures) == 1 or target == "wav"


# The audio


def decoded(path: Path) -> Any:
    if path.suffix not in (".m4a", ".alac"):
        return soundfile.read(path)[0]
    with av.open(os.fspath(path)) as file:
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)


def large(size: int = 300_000) -> Cover:
    return Cover(mime="image/png", data=PNG + np.random.default_rng(0).bytes(size))


@pytest.mark.parametrize("target", STEMS)
@pytest.mark.parametrize("covers", [(), (large(),)], ids=["texts", "cover"])
def test_the_audio_is_untouched(stem: Callable[[str], Path], target: str, covers: tuple[Cover, ...]) -> None:
    """Every sample is decoded as before, and the same tags make the same bytes."""
    path = stem(target)
    bare, before = path.read_bytes(), decoded(path)
    written = []
    for _ in range(2):
        path.write_bytes(bare)
        tags.write(path, Tags(texts=TEXTS, covers=covers), target)
        written.append(path.read_bytes())
        assert np.array_equal(decoded(path), before)
    assert written[0] == written[1]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_wav_of_odd_size(tmp_path: Path, subtype: str) -> None:
    """A mono WAV with an odd number of bytes ends in a pad, and the tags begin behind it."""
    path = song(tmp_path / "stem", tones(1001, channels=1), format="WAV", subtype=subtype)
    before = decoded(path)
    tags.write(path, Tags(texts=TEXTS | {"comment": ("odd",)}, covers=(FRONT,)), "wav")
    data = path.read_bytes()
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert np.array_equal(decoded(path), before)
    assert seen(path).texts["comment"] == ("odd",)
    info = data[data.index(b"LIST") :]
    assert info[8:12] == b"INFO"
    assert b"INAM" in info and TEXTS["title"][0].encode() + b"\0" in info


def test_mp3_keeps_its_first_frame(stem: Callable[[str], Path]) -> None:
    """The Info frame says as much as before, of as many frames, and nothing is left behind the last."""
    path = stem("mp3")
    bare = path.read_bytes()
    tags.write(path, Tags(texts=TEXTS, covers=(large(),)), "mp3")
    data = path.read_bytes()
    assert data.startswith(b"ID3\3") and data.endswith(bare)
    at = len(data) - len(bare)
    with path.open("rb") as file:
        told = mpeg.announced(file, at)
        head = mpeg.header(data[at : at + 4])
    assert told and head
    sizes = []
    while at < len(data):
        frame = mpeg.header(data[at : at + 4])
        assert frame is not None and frame.kind == head.kind
        sizes.append(frame.size)
        at += frame.size
    assert (at, len(sizes)) == (len(data), told + 1)


def test_mp3_whose_audio_spells_a_tag(stem: Callable[[str], Path]) -> None:
    """Audio that looks like an ID3v1 stays."""
    path = stem("mp3")
    bare = path.read_bytes()[:-128] + b"TAG" + bytes(125)
    path.write_bytes(bare)
    tags.write(path, Tags(texts=TEXTS), "mp3")
    assert path.read_bytes().endswith(bare)


@pytest.mark.parametrize("target", ["ogg", "opus"])
def test_ogg_pages(stem: Callable[[str], Path], target: str) -> None:
    """The pages are in order, intact, of one stream with its number, and the last says as many samples."""

    def pages(path: Path) -> list[bytes]:
        with path.open("rb") as file:
            found = list(ogg.pages(file))
        assert all(page.intact for page in found)
        assert sum(len(page.data) for page in found) == path.stat().st_size
        return [page.data for page in found]

    path = stem(target)
    before = pages(path)
    tags.write(path, Tags(texts=TEXTS, covers=(large(),)), target)
    after = pages(path)
    assert {page[ogg.SERIAL] for page in after} == {before[0][ogg.SERIAL]}
    assert [int.from_bytes(page[18:22], "little") for page in after] == list(range(len(after)))
    assert after[-1][5:14] == before[-1][5:14]
    assert after[-1][27:] == before[-1][27:]


# Of a stem


@pytest.mark.parametrize(
    ("texts", "stem", "suffixed", "expected"),
    [
        ({"title": ("Song",)}, "vocals", ("title",), {"title": ("Song (vocals)",), "comment": ("made",)}),
        ({"title": ("Song",)}, "no_drums", ("title",), {"title": ("Song (no drums)",), "comment": ("made",)}),
        (
            {"title": ("S",), "album": ("A",)},
            "bass",
            ("album",),
            {"title": ("S",), "album": ("A (bass)",), "comment": ("made",)},
        ),
        ({"title": ("Song",)}, "vocals", (), {"title": ("Song",), "comment": ("made",)}),
        ({"comment": ("own",)}, "vocals", ("title", "album"), {"comment": ("own", "made")}),
        ({"comment": ("made",)}, "vocals", (), {"comment": ("made",)}),
        ({}, "vocals", ("title",), {"comment": ("made",)}),
    ],
)
def test_for_stem(
    texts: dict[str, tuple[str, ...]], stem: str, suffixed: tuple[str, ...], expected: dict[str, tuple[str, ...]]
) -> None:
    """A stem's title and album name the stem, if wanted and if there are any; what made it is one more comment."""
    song = Tags(texts=texts, covers=(FRONT,), warning="torn")
    assert for_stem(song, stem=stem, comment="made", suffixed=suffixed) == Tags(texts=expected, covers=(FRONT,))


LYRICS = [("One ", 0), ("two", 1240), ("\nThree", 61_005)]


@pytest.mark.parametrize("target", STEMS)
def test_lyrics_with_times(tmp_path: Path, stem: Callable[[str], Path], target: str) -> None:
    """A SYLT arrives in every format as LRC, and in MP3 and WAV as a SYLT with the same times."""
    tag = id3.ID3()
    tag.add(id3.SYLT(encoding=3, lang="eng", format=2, type=1, desc="", text=LYRICS))
    path = tmp_path / "song.mp3"
    tag.save(path)
    found = seen(path)
    assert found == Tags(texts={"syncedlyrics": ("[00:00.000]One <00:01.240>two\n[01:01.005]Three",)})
    made = stem(target)
    assert tags.write(made, found, target) is None
    assert seen(made).texts == found.texts
    if target == "mp3":
        (written,) = id3.ID3(made).getall("SYLT")
        assert written.text == LYRICS


@pytest.mark.parametrize("text", ["no times", "[ar:somebody]\n[00:01.00]x", "x [00:01.00]y", "[1:2]x"])
def test_lyrics_without_times(text: str) -> None:
    """A text that is no LRC has no times, and stays a text."""
    assert lrc.timed(text) == []


def test_what_no_stem_can_have_is_named(tmp_path: Path) -> None:
    """Frames that travel to no stem are named in a warning, but for those that are true of the song alone."""
    tag = id3.ID3()
    tag.add(id3.TIT2(encoding=3, text=["Song"]))
    tag.add(id3.PRIV(owner="x", data=b"x"))
    tag.add(id3.APIC(encoding=3, mime="-->", type=3, desc="", data=b"http://example.org/cover.png"))
    path = tmp_path / "song.mp3"
    tag.save(path)
    assert "a picture is a link" in (seen(path).warning or "")
    tag.delall("APIC")
    tag.save(path)
    assert seen(path).warning is None
    tag.add(id3.GEOB(encoding=3, mime="x/y", filename="", desc="", data=b"x"))
    tag.add(id3.SYLT(encoding=3, lang="eng", format=1, type=1, desc="", text=[("x", 1)]))
    tag.save(path)
    assert seen(path).texts == {"title": ("Song",)}
    assert "GEOB, SYLT" in (seen(path).warning or "")


@pytest.mark.parametrize("target", STEMS)
def test_a_cover_that_the_format_cannot_hold(stem: Callable[[str], Path], target: str) -> None:
    """A WebP cover travels, or a sentence says that it does not; the other covers do in any case."""
    webp = Cover(mime="image/webp", data=b"RIFF\x04\0\0\0WEBP")
    path = stem(target)
    said = tags.write(path, Tags(texts={"title": ("x",)}, covers=(webp, FRONT)), target)
    has_it = webp.data in [each.data for each in seen(path).covers]
    assert has_it is (said is None)
    assert said is None or "image/webp" in said
    assert FRONT.data in [each.data for each in seen(path).covers]


@pytest.mark.parametrize("target", STEMS)
def test_more_than_one(stem: Callable[[str], Path], target: str) -> None:
    """Comments, lyrics, and pictures of a kind stay several; of numbers, one alone will do."""
    path = stem(target)
    texts = {"comment": ("own", "made", "夜"), "lyrics": ("One", "Two"), "disctotal": ("2",), "tracknumber": ("A1",)}
    texts |= {"bpm": ("127.5",), "compilation": ("1",), "date": ("2019-05",), "titlesort": ("Song, The",)}
    covers = (FRONT, Cover(mime="image/jpeg", data=JPEG))
    tags.write(path, Tags(texts=texts, covers=covers), target)
    assert seen(path).texts == texts
    assert [each.data for each in seen(path).covers] == [PNG, JPEG]


# Bounds


def test_bounds() -> None:
    """No song makes its stems carry more than the bounds, and a warning says that there was more."""
    many = [(f"key{n}", "x") for n in range(300)] + [("lyrics", "x" * 70_000)] + [("a", str(n)) for n in range(300)]
    for texts in (many[:300], many[300:301], many[301:], many):
        found = values.merged([values.Found(texts=texts)])
        assert found.warning and "more" in found.warning
        assert len(found.texts) <= values.MOST_KEYS
        assert all(len(each) <= values.MOST_VALUES for each in found.texts.values())
    covers = [Cover(mime="image/png", data=PNG + bytes([n]) + bytes(5 << 20)) for n in range(4)]
    found = values.merged([values.Found(covers=covers)])
    assert len(found.covers) == 3 and found.warning


@pytest.mark.parametrize("target", STEMS)
def test_the_most_there_can_be(stem: Callable[[str], Path], target: str) -> None:
    """A stem takes what the bounds let pass."""
    path = stem(target)
    texts: dict[str, tuple[str, ...]] = {f"key{n}": ("y" * 60_000,) for n in range(60)}
    cover = Cover(mime="image/jpeg", data=JPEG + bytes(values.LARGEST_COVERS - len(JPEG)), description="z" * 200)
    tags.write(path, Tags(texts=texts, covers=(cover,)), target)
    assert seen(path).texts == texts
    assert seen(path).covers[0].data == cover.data


@pytest.mark.parametrize(
    ("data", "mime", "expected"),
    [
        (PNG, "image/jpeg", "image/png"),
        (JPEG, "", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBP", "", "image/webp"),
        (b"new kind", "image/new", "image/new"),
        (b"http://example.org/x.png", "-->", ""),
        (b"", "image/png", None),
    ],
)
def test_pictures(data: bytes, mime: str, expected: str | None) -> None:
    """A picture is what its bytes are; a link is none, and is left out with a word."""
    found = values.picture(data, mime)
    assert [each.mime for each in found] == ([] if expected is None else [expected])
    assert len(values.merged([values.Found(covers=found)]).covers) == bool(expected)


# Hostile and damaged


def id3_tag(body: bytes, version: int = 3, size: int | None = None) -> bytes:
    length = len(body) if size is None else size
    return b"ID3" + bytes([version, 0, 0]) + bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0)) + body


def atom(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I4s", len(content) + 8 if size is None else size, name) + content


def with_covr(covr: bytes) -> bytes:
    ilst = atom(b"ilst", atom(b"covr", covr))
    meta = atom(b"udta", atom(b"meta", bytes(4) + ilst))
    return atom(b"ftyp", b"M4A \0\0\2\0") + atom(
        b"moov", atom(b"mvhd", bytes(12) + struct.pack(">II", 1000, 1000) + bytes(80)) + meta
    )


def flac_block(code: int, content: bytes, size: int | None = None, last: bool = True) -> bytes:
    return bytes([code | last << 7]) + struct.pack(">I", len(content) if size is None else size)[1:] + content


STREAMINFO = b"fLaC" + flac_block(0, bytes.fromhex("1000100000000000000000ac442f0000000000") + bytes(15), last=False)
TITLE = struct.pack("<II", 0, 1) + struct.pack("<I", 10) + b"TITLE=Song"
LYING = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">6I", 0, 0, 0, 0, 0, 0xFFFFFFF0) + PNG


def ogg_page(number: int, content: bytes, flags: int = 0) -> bytes:
    sizes = bytes([255] * (len(content) // 255) + [len(content) % 255])
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, 0, 1, number, 0) + bytes([len(sizes)])
    return ogg.renumbered(head + sizes + content, 1)


IDENTIFIED = ogg_page(0, b"\x01vorbis" + struct.pack("<IBI3iBB", 0, 2, 44100, 0, 0, 0, 0xB8, 1), 2)


def id3_bomb() -> bytes:
    """A frame of 1 MB that becomes 1 GiB: what 16 MiB of zeros are to zlib, 64 times."""
    squeeze = zlib.compressobj()
    start = squeeze.compress(b"\0") + squeeze.flush(zlib.Z_FULL_FLUSH)
    part = squeeze.compress(bytes(1 << 24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    packed = start + 64 * part + squeeze.flush()
    return id3_tag(b"TIT2" + struct.pack(">IHI", len(packed) + 4, 0x80, 1 << 30) + packed)


HOSTILE: dict[str, tuple[Callable[[], bytes], dict[str, tuple[str, ...]]]] = {
    "truncated id3": (lambda: id3_tag(b"TIT2\0\0\0\5\0\0\0Song" + bytes(500), size=9000)[:300], {}),
    "giant id3": (lambda: id3_tag(b"TIT2\0\0\0\5\0\0\0Song", size=(1 << 28) - 1) + bytes(1000), {}),
    "giant frame": (lambda: id3_tag(b"TIT2\x7f\xff\xff\xff\0\0\0Song" + bytes(100)), {"title": ("Song",)}),
    "id3 bomb": (id3_bomb, {}),
    "id3 of small frames": (lambda: id3_tag((b"TIT3" + struct.pack(">IH", 1, 0) + b"\0") * 2_000_000), {}),
    "id3 of many texts": (lambda: id3_tag(b"TIT2" + struct.pack(">IH", 8_000_001, 0) + b"\0" + 4_000_000 * b"a\0"), {}),
    "flac picture lies": (lambda: STREAMINFO + flac_block(4, TITLE, last=False) + flac_block(6, LYING), {"title": ("Song",)}),
    "flac counts 2^31": (lambda: STREAMINFO + flac_block(4, struct.pack("<II", 0, 1 << 31) + TITLE[8:]), {}),
    "vorbis counts 2^31": (
        lambda: IDENTIFIED + ogg_page(1, b"\x03vorbis" + struct.pack("<II", 0, 1 << 31) + TITLE[8:] + b"\1", 4),
        {},
    ),
    "vorbis vendor of 4 GiB": (lambda: IDENTIFIED + ogg_page(1, b"\x03vorbis" + b"\xff\xff\xff\xff" + TITLE, 4), {}),
    "mp4 cover lies": (lambda: with_covr(atom(b"data", bytes(8) + PNG, 0x7FFFFFFF)), {}),
    "mp4 cover without end": (lambda: with_covr(atom(b"name", bytes(4), 0)), {}),
    "mp4 in mp4": (lambda: atom(b"ftyp", b"M4A ") + b"\0\0\0\1moov\0\0\0\0\7\0\0\0" * 100_000, {}),
    "ape of one key": (
        lambda: bytes(8) + b"x" * (4 << 20) + struct.pack("<8s4I8x", b"APETAGEX", 2000, (4 << 20) + 40, 1, 0),
        {},
    ),
    "ape of 4 GiB": (lambda: bytes(1000) + struct.pack("<8s4I8x", b"APETAGEX", 2000, 0xFFFFFFF0, 1 << 31, 0), {}),
    "wav of 4 GiB": (
        lambda: b"RIFF\xff\xff\xff\xffWAVELIST\xff\xff\xff\xffINFOINAM\xff\xff\xff\xffSong",
        {"title": ("Song",)},
    ),
    "asf of 2^32 objects": (
        lambda: bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<QI2x", 1 << 60, 0xFFFFFFFF) + bytes(999),
        {},
    ),
    "nothing": (lambda: b"", {}),
    "noise": (lambda: np.random.default_rng(1).bytes(100_000), {}),
}  # fmt: skip

SILENT = ("wav of 4 GiB", "nothing", "noise", "giant frame", "mp4 cover lies")
"""What is read as far as it goes, or has no tags at all: nobody need be warned."""


@pytest.mark.daily
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(tmp_path: Path, name: str) -> None:
    """Damaged and hostile tags end with a value, soon, and with a warning."""
    make, expected = HOSTILE[name]
    path = tmp_path / "snapshot"
    path.write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    read = tags.read(path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert read.texts == expected
    assert (read.warning is None) == (name in SILENT), read.warning
    assert after.ru_utime + after.ru_stime < before.ru_utime + before.ru_stime + sandbox.CPU_S + 1


MEASURED = """
import sys
from pathlib import Path
from demixd.audio.tags.__main__ import main
try:
    main()
finally:
    sys.stderr.write(Path("/proc/self/status").read_text())
"""


def test_memory(tmp_path: Path) -> None:
    """Whoever reads them has so much memory and no more: the kernel's own count of it, from its start on."""
    path = tmp_path / "snapshot"
    path.write_bytes(id3_bomb())
    with path.open("rb") as song:
        child = subprocess.run([sys.executable, "-c", MEASURED], stdin=song, capture_output=True, check=False)
    highest = re.search(rb"VmHWM:\s+(\d+) kB", child.stderr)
    assert highest, child.stderr
    assert int(highest[1]) << 10 < sandbox.LARGEST


@pytest.mark.parametrize("source", ["mp3_v24", "flac_plain", "m4a", "wav_info"])
def test_damage(shelf: Path, source: str, day: int) -> None:
    """Any byte of a song can be any other: there is a value, or mutagen's own error is one."""
    whole = (shelf / source).read_bytes()
    draw = np.random.default_rng(day)
    path = shelf / "damaged"
    for _ in range(150):
        data = bytearray(whole)
        for at in draw.integers(0, min(len(data), 4000), 3):
            data[at] = draw.integers(0, 256)
        path.write_bytes(data[: draw.integers(1, len(data) + 1)] if draw.random() < 0.3 else data)
        assert isinstance(seen(path), Tags)


@pytest.mark.parametrize("source", ["mp3_v24", "flac_plain", "wma"])
def test_read(shelf: Path, source: str) -> None:
    """What another process has read is what there is."""
    assert tags.read(shelf / source) == seen(shelf / source)


def test_read_without_a_song(tmp_path: Path) -> None:
    """A song that is not there has no tags, and a warning that says so."""
    read = tags.read(tmp_path / "gone")
    assert (read.texts, read.covers) == ({}, ())
    assert read.warning and "gone" in read.warning


def test_matroska(tmp_path: Path) -> None:
    """A Matroska's tags are read by FFmpeg; what a program wrote for itself is no tag."""
    path = tmp_path / "snapshot"
    said = {"TITLE": "Song", "album_artist": "Various", "track": "3/12", "ENCODER": "Lavf", "DURATION": "00:00:01"}
    encoded(path, "pcm_s16le", "matroska", metadata=said)
    expected: dict[str, tuple[str, ...]] = {
        "title": ("Song",),
        "albumartist": ("Various",),
        "tracknumber": ("3",),
        "tracktotal": ("12",),
    }
    assert tags.read(path) == Tags(texts=expected)


def element(name: str, content: bytes) -> bytes:
    """An element of a Matroska."""
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def with_element(path: Path, added: bytes) -> None:
    """Make `path` a Matroska with one more element before its sound."""
    encoded(path, "pcm_s16le", "matroska", metadata={"TITLE": "Song"})
    data = path.read_bytes()
    segment, cluster = data.find(bytes.fromhex("18538067")) + 4, data.find(bytes.fromhex("1F43B675"))
    path.write_bytes(data[:segment] + b"\x01" + b"\xff" * 7 + data[segment + 8 : cluster] + added + data[cluster:])


def attachment(number: int, name: bytes, mime: bytes, data: bytes) -> bytes:
    words = element("466E", name) + element("4660", mime) + element("467E", b"back")
    return element("61A7", words + element("465C", data) + element("46AE", bytes([number])))


def test_covers_of_a_matroska(tmp_path: Path) -> None:
    """Pictures that are attached travel, those too that FFmpeg knows not for pictures; `cover.jpg` is the front; a font stays."""
    path = tmp_path / "snapshot"
    webp = b"RIFF\x10\0\0\0WEBPVP8L"
    files = [(b"small.png", b"image/png", PNG), (b"x.webp", b"image/webp", webp), (b"cover.jpg", b"image/jpeg", JPEG)]
    files += [(b"a.ttf", b"font/ttf", b"font"), (b"none.png", b"image/png", b"")]
    with_element(path, element("1941A469", b"".join(attachment(n, *file) for n, file in enumerate(files, 1))))
    read = tags.read(path)
    assert (read.texts, read.warning) == ({"title": ("Song",)}, None)
    assert [(cover.mime, cover.data, cover.kind, cover.description) for cover in read.covers] == [
        ("image/jpeg", JPEG, 3, "back"),
        ("image/png", PNG, 0, "back"),
        ("image/webp", webp, 0, "back"),
    ]


def test_covers_of_a_matroska_that_are_too_large(tmp_path: Path) -> None:
    """They are left out, and a warning says so."""
    path = tmp_path / "snapshot"
    data = PNG + bytes(values.LARGEST_COVERS)
    with_element(path, element("1941A469", attachment(1, b"cover.png", b"image/png", data)))
    read = tags.read(path)
    assert (read.texts, read.covers) == ({"title": ("Song",)}, ())
    assert read.warning and "more than a stem takes" in read.warning


@pytest.mark.parametrize(("format", "codec"), [("caf", "pcm_s16be"), ("au", "pcm_s16be"), ("rm", "ac3")])
def test_formats_that_ffmpeg_alone_knows(tmp_path: Path, format: str, codec: str) -> None:
    """Their tags travel too."""
    path = tmp_path / "snapshot"
    encoded(path, codec, format, metadata={"title": "Song"})
    assert tags.read(path) == Tags(texts={"title": ("Song",)})


def test_matroska_of_many_tags(tmp_path: Path) -> None:
    """FFmpeg compares each with all before it, for minutes: the child is ended, and the song has no tags."""
    path = tmp_path / "snapshot"
    many = b"".join(element("67C8", element("45A3", b"%d" % each) + element("4487", b"x")) for each in range(100_000))
    with_element(path, element("1254C367", element("7373", element("63C0", b"") + many)))
    read = tags.read(path)
    assert read == Tags(warning=read.warning)
    assert read.warning and f"they take more than {sandbox.CPU_S} s of the processor" in read.warning


# The child that reads them


def program(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """From now on the child runs this first."""
    whole = f"import os, signal, sys, time; {code}; from demixd.audio.tags.__main__ import main; main()"
    monkeypatch.setattr(sandbox, "PROGRAM", [sys.executable, "-c", whole])


def test_a_child_that_somebody_kills(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing of the song: the tags are read once more."""
    mark = tmp_path / "killed"
    dies = f"os.path.exists({str(mark)!r}) or (os.mkdir({str(mark)!r}), os.kill(os.getpid(), signal.SIGKILL))"
    program(monkeypatch, dies)
    assert tags.read(shelf / "flac_plain") == seen(shelf / "flac_plain")
    assert mark.exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "the process that read them was killed twice (SIGKILL); free some memory",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "they crash the process that reads them (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "they take more than 3 s of the processor"),
        ("raise MemoryError", "they take more than 512 MiB of memory"),
        ("time.sleep(600)", "it took longer than 1 s, as from a disk that does not answer"),
    ],
)
def test_why_the_child_ended(shelf: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str) -> None:
    """The warning tells it in a sentence, and blames the song for nothing else."""
    monkeypatch.setattr(sandbox, "LONGEST_S", 1.0 if "sleep" in code else 60.0)
    program(monkeypatch, code)
    assert tags.read(shelf / "flac_plain").warning == f"The song's tags could not be read: {words}."


def test_tags_of_more_than_the_memory(tmp_path: Path) -> None:
    """Where Python itself runs out of it, the warning says so: nothing is damaged."""
    path = tmp_path / "snapshot"
    path.write_bytes(id3_bomb())
    read = tags.read(path)
    assert read.warning and "they take more than 512 MiB of memory" in read.warning


PAUSED = """
import sys
from pathlib import Path
from demixd.spool import child_process
from demixd.audio.tags import sandbox
child_process.PAUSE_S, sandbox.LONGEST_S = 2.0, 4.0
code = "import sys, time; sys.stderr.write('x'); time.sleep(1); from demixd.audio.tags.__main__ import main; main()"
sandbox.PROGRAM = [sys.executable, "-c", code]
print("begun", flush=True)
print(sandbox.read(Path(sys.argv[1])).warning)
"""


def test_a_pause_of_both(shelf: Path) -> None:
    """A container that is frozen for longer than the child may take costs the song nothing."""
    words = [sys.executable, "-c", PAUSED, os.fspath(shelf / "flac_plain")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as paused:
        assert paused.stdout is not None
        assert paused.stdout.readline() == b"begun\n"
        time.sleep(0.5)
        os.killpg(paused.pid, signal.SIGSTOP)
        time.sleep(5)
        os.killpg(paused.pid, signal.SIGCONT)
        assert paused.stdout.read() == b"None\n"


# What cannot be written


@pytest.mark.parametrize(
    ("target", "make", "words"),
    [
        ("wav", lambda path: song(path, tones(100), format="RF64"), "vocals stays without tags: an RF64 has none"),
        ("wav", lambda path: song(path, tones(100), format="FLAC"), "it is no WAV"),
        ("flac", lambda path: song(path, tones(100), format="WAV"), "stays without tags"),
        ("ogg", lambda path: path.write_bytes(b"OggS" + bytes(9)), "stays without tags"),
        ("opus", lambda path: path.write_bytes(b""), "stays without tags"),
        ("m4a", lambda path: path.write_bytes(bytes(100)), "stays without tags"),
        ("aiff", lambda path: path.write_bytes(b""), "stays without tags"),
    ],
)
def test_no_place_for_tags(tmp_path: Path, target: str, make: Callable[[Path], object], words: str) -> None:
    """A file that cannot have tags stays as it was, and the error names it."""
    path = tmp_path / "vocals"
    make(path)
    before = path.read_bytes()
    with pytest.raises(TagsError, match=words):
        tags.write(path, Tags(texts=TEXTS), target)
    assert path.read_bytes() == before


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As a disk that is full: the kernel refuses to write further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("target", STEMS)
def test_the_disk_fails(stem: Callable[[str], Path], target: str) -> None:
    """The disk's error comes out as it is, whatever mutagen makes of it."""
    path = stem(target)
    given = Tags(texts=TEXTS, covers=(large(3 << 20),))
    with no_file_larger_than(path.stat().st_size + 1000), pytest.raises(OSError, match="too large") as error:
        tags.write(path, given, target)
    assert not isinstance(error.value, TagsError)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tags.write(tmp_path / "gone", Tags(texts=TEXTS), "flac")


@pytest.mark.parametrize("target", STEMS)
def test_nothing_to_write(stem: Callable[[str], Path], target: str) -> None:
    """A song without tags leaves its stems as they are."""
    path = stem(target)
    before = path.read_bytes()
    tags.write(path, NOTHING, target)
    assert path.read_bytes() == before
