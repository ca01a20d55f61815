"""One song through every codec that it can come in and every format that its stems can have: aligned to the sample."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote

import av
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from audio import nothing, song, tones
from decoding import heard
from demixd.audio import tags
from demixd.audio.budget import Budget
from demixd.audio.ffmpeg import reader, stemfile
from demixd.audio.formats import FORMATS
from demixd.audio.loudness import loudness
from demixd.audio.pcm import Frames, Shelf
from demixd.audio.streams import View
from demixd.audio.tags import Cover, Tags
from demixd.audio.tags.reading import tags_of
from demixd.audio.truepeak import true_peak
from demixd.engine.engine import Engine
from demixd.errors import AudioProcessingError, Code
from demixd.pipeline import decoder
from demixd.pipeline.decode import LOUDEST
from demixd.pipeline.song import Observer, Order, Result, run
from demixd.protocol.job import EngineFacts
from demixd.protocol.options import Defaults
from demixd.protocol.result_names import file_name
from song_codecs import CODECS, Codec, dsf, through_ffmpeg

FRAMES = 60_003
"""Of the song: no multiple of any codec's packet."""

PARTS = ("drums", "bass", "other", "vocals")


def original(rate: int) -> Frames:
    """Tones, and bursts of noise that only fit at one place."""
    audio = tones(FRAMES, rate=rate)
    bursts = np.random.default_rng(3).standard_normal(audio.shape) * (np.arange(FRAMES)[:, None] % 9000 < 900)
    made = audio + 0.1 * bursts
    return (made - made.mean()).astype(np.float32)


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
TAGS = Tags(
    texts={"title": ("Song",), "artist": ("One", "Two"), "tracknumber": ("3",)},
    covers=(Cover(mime="image/png", data=PNG),),
)
TAGGED = {
    "wav-16": "wav",
    "flac": "flac",
    "mp3": "mp3",
    "vorbis": "ogg",
    "opus": "opus",
    "aac-m4a": "m4a",
    "alac-16": "alac",
}
"""Codecs of songs that get tags here -> what `tags.write` calls them; test_tags.py has the others."""


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The song in every codec."""
    folder = tmp_path_factory.mktemp("songs")
    made = {}
    for name, codec in CODECS.items():
        made[name] = folder / name
        with_suffix = folder / f"{name}.{codec.suffix}"
        codec.write(with_suffix, original(codec.rate), codec.rate)
        with_suffix.rename(made[name])  # content decides
        if name in TAGGED:
            tags.write(made[name], TAGS, TAGGED[name])
    return made


@pytest.fixture(scope="module", autouse=True)
def one_decoder(songs: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all songs, as in a worker."""
    with Shelf(Budget(0), (tmp_path_factory.mktemp("pcm"),)) as shelf:
        decoder.decode(next(iter(songs.values())), shelf, max_duration_s=60, check=nothing, progress=nothing)
    yield
    decoder.close()


def lag(one: Frames, other: Frames) -> int:
    """By how many frames `other` comes later, by the peak of the cross-correlation."""
    size = 1 << 18
    spectra = [np.fft.rfft(each.mean(axis=1), size) for each in (one, other)]
    at = int(np.argmax(np.fft.irfft(spectra[0].conj() * spectra[1], size)))
    return at if at < size // 2 else at - size


class Shares:
    """An engine whose model gives each part its share of the song."""

    rate, channels, batch = 44100, 2, 1
    warnings: tuple[str, ...] = ()
    alone: frozenset[str] = frozenset()
    facts = EngineFacts(model="shares", model_sha256="0" * 64, device="cpu", device_name="", precision="float32")
    device = torch.device("cpu")
    members = (SimpleNamespace(samplerate=44100, segment=2),)
    weights = ((1.0,) * len(PARTS),)
    sources = PARTS

    def __init__(self, shares: tuple[float, ...]) -> None:
        self.networks = [
            lambda windows, _check, mix: (torch.tensor(mix) @ torch.tensor(shares))[:, None, None] * windows[:, None]
        ]


QUARTERS = (0.25, 0.25, 0.25, 0.25)


def separated(
    path: Path,
    folder: Path,
    shares: tuple[float, ...] = QUARTERS,
    memory_bytes: int = 1 << 30,
    engine: Shares | None = None,
    **options: Any,
) -> tuple[Result, Path]:
    """The song's stems, and where they are. Everything but the model is real."""
    tmp, out = folder / "tmp", folder / "out"
    tmp.mkdir(parents=True)
    out.mkdir()
    wanted = Defaults(**options).of("shares", None)
    order = Order(song=path, name="Song.x", tmp=tmp, out=out, options=wanted, max_duration_s=60, seed=7)
    observer = Observer(check=nothing, decoded=nothing, progressed=nothing)
    with Shelf(Budget(memory_bytes), (tmp,)) as shelf:
        return run(order, cast(Engine, engine or Shares(shares)), shelf, observer, {}), out


def holds(codec: Codec, frames: int, audio: Frames, decoded: Frames) -> None:
    """What a song's codec promises: its frames, and where they are."""
    assert (0 if codec.offset >= 0 else -codec.extra) <= frames - FRAMES <= codec.extra
    assert lag(audio, decoded) == codec.offset


@pytest.mark.parametrize("name", CODECS)
def test_every_codec(songs: Mapping[str, Path], name: str) -> None:
    """A song comes out of its codec at its own rate and depth, with its own frames, where they were."""
    codec, audio = CODECS[name], original(CODECS[name].rate)
    track, decoded = heard(songs[name])
    assert (track.format, track.subtype, track.rate, track.channels) == (codec.format, codec.subtype, codec.rate, 2)
    assert (track.bitrate is None) == codec.lossless
    holds(codec, track.frames, audio, decoded)
    if codec.lossless:
        bits = {"PCM_16": 16, "ALAC_16": 16}.get(codec.subtype, 24)
        assert np.abs(decoded - audio).max() <= 2.0 ** (1 - bits)


OWN = {"vorbis": "ogg", "aac": "m4a"}
"""What stems are with `format = "source"`, where the codec's own name does not say it."""


@pytest.mark.daily
@pytest.mark.parametrize("format", ["source", *FORMATS])
@pytest.mark.parametrize("name", CODECS)
def test_every_codec_into_every_format(songs: Mapping[str, Path], tmp_path: Path, name: str, format: str) -> None:
    """A stem has the frames of the song at its rate, or at the next that its format has, lies where it does, and has its tags."""
    codec = CODECS[name]
    result, out = separated(songs[name], tmp_path, format=format, stems=("vocals",))
    (file,) = result.files
    track, decoded = heard(out / file.name)
    if format == "source":
        own = OWN.get(name.partition("-")[0], name.partition("-")[0])
        assert file.format == (own if own in FORMATS else "wav")
    assert (track.rate, track.channels, track.frames) == (file.rate, file.channels, file.frames)
    assert (file.subtype, file.bytes) == (track.subtype, (out / file.name).stat().st_size)
    if name in TAGGED:
        with (out / file.name).open("rb") as stem:
            said = tags_of(stem)
        assert (said.texts["title"], said.texts["artist"]) == (("Song (vocals)",), TAGS.texts["artist"])
        assert said.texts["comment"][0].startswith("shares 000000000000 by demixd ")
        assert [cover.data for cover in said.covers] == [PNG]
    rates = FORMATS[file.format].rates
    if rates and codec.rate not in rates:
        assert any("cannot carry" in warning for warning in result.warnings)
        assert (file.rate, file.frames) == (48000, -(-result.track.frames * 48000 // codec.rate))
        return
    deep = codec.subtype in ("FLOAT", "PCM_32") and file.format in ("flac", "alac")
    assert (file.rate, file.frames) == (codec.rate, result.track.frames)
    assert [warning.partition("; ")[2] for warning in result.warnings] == (["the stems have 24 bits."] if deep else [])
    holds(codec, file.frames, original(codec.rate), decoded)
    assert np.abs(decoded).mean() == pytest.approx(np.abs(original(codec.rate)).mean() / 4, rel=0.05)


def test_dsd(tmp_path: Path) -> None:
    """A DSF's stems have 24 bits at half its rate in eights, and lie where it does but for the decoder's own filter."""
    audio = original(44100)[:8000]
    dsf(tmp_path / "song", audio, 44100)
    result, out = separated(tmp_path / "song", tmp_path / "work", stems=("vocals",))
    assert (result.track.format, result.track.rate, result.track.frames) == ("dsf", 352_800, 64_000)
    (file,) = result.files
    assert (file.format, file.subtype, file.rate, file.frames) == ("wav", "PCM_24", 176_400, 32_000)
    assert "DSD has a rate that no stem can have; the stems have 176400 Hz." in result.warnings
    _, decoded = heard(out / file.name)
    assert abs(lag(np.repeat(audio, 4, axis=0), decoded)) <= 6


@pytest.mark.parametrize(
    ("muxer", "encoder", "samples", "subtype"),
    [
        ("w64", "pcm_u8", "u8", "PCM_U8"),
        ("w64", "pcm_s16le", "s16", "PCM_16"),
        ("w64", "pcm_s24le", "s32", "PCM_24"),
        ("caf", "pcm_s32be", "s32", "PCM_32"),
        ("w64", "pcm_s64le", "s64", "PCM_32"),
        ("wav", "pcm_s64le", "s64", "PCM_32"),
        ("au", "pcm_f32be", "flt", "FLOAT"),
        ("au", "pcm_f64be", "dbl", "DOUBLE"),
    ],
)
@pytest.mark.parametrize("rate", [8000, 192_000])
def test_depths_and_rates(tmp_path: Path, muxer: str, encoder: str, samples: str, subtype: str, rate: int) -> None:
    """From 8 bits to 64, from 8 to 192 kHz: FFmpeg's samples are what libsndfile's would be."""
    audio = tones(3000, rate=rate)
    through_ffmpeg(muxer, encoder, samples=samples)(tmp_path / "song", audio, rate)
    track, decoded = heard(tmp_path / "song")
    assert (track.subtype, track.rate, track.frames) == (subtype, rate, 3000)
    assert np.abs(decoded - audio).max() <= {"PCM_U8": 1 / 64, "PCM_16": 1 / 32768}.get(subtype, 1e-6)


@pytest.mark.parametrize(
    ("muxer", "encoder", "channels"),
    [("ipod", "alac", 6), ("matroska", "flac", 6), ("matroska", "flac", 8), ("w64", "pcm_s16le", 6)],
)
def test_surround(tmp_path: Path, muxer: str, encoder: str, channels: int) -> None:
    """More than two channels become two by ITU-R BS.775, wherever they come from."""
    audio = tones(5000, channels=channels) / 4
    samples = {"alac": "s16p"}.get(encoder, "s16")
    through_ffmpeg(muxer, encoder, samples=samples)(tmp_path / "song", audio, 44100)
    track, decoded = heard(tmp_path / "song")
    half = np.sqrt(0.5)
    shares = np.array([(1, 0), (0, 1), (half, half), (0, 0), (half, 0), (0, half), (half, 0), (0, half)][:channels])
    assert (track.channels, track.song_channels) == (2, channels)
    assert np.abs(decoded - audio @ shares).max() < channels / 32768


def test_more_than_eight_channels(tmp_path: Path) -> None:
    """Sixteen channels, which av cannot read as the decoder gives them, become their mean."""
    audio = original(44100).mean(axis=1, keepdims=True) * np.linspace(0.5, 1.5, 16, dtype=np.float32)
    through_ffmpeg("ipod", "aac", b="1024k")(tmp_path / "song", audio, 44100)
    track, decoded = heard(tmp_path / "song")
    assert (track.channels, track.song_channels, track.frames) == (2, 16, FRAMES)
    assert "unknown positions" in track.warnings[0]
    assert lag(audio, decoded) == 0
    assert np.abs(decoded).mean() == pytest.approx(np.abs(audio.mean(axis=1)).mean(), rel=0.1)


# Cut short, and what is no song


@pytest.mark.parametrize("name", [name for name, codec in CODECS.items() if codec.suffix not in ("aac", "ac3", "mp2")])
def test_cut_in_half(songs: Mapping[str, Path], tmp_path: Path, name: str) -> None:
    """Half of a song is no song: where the file speaks of its length, or the decoder stumbles, it is refused."""
    data = songs[name].read_bytes()
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioProcessingError) as error:
        heard(tmp_path / "half")
    assert error.value.code in (Code.TRUNCATED, Code.BAD_AUDIO)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile {}\n",
        "#EXTM3U\n#EXTINF:1,\n{}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\na={}\n",
        "<?xml version='1.0'?><MPD><BaseURL>{}</BaseURL></MPD>",
        "; A comment\n{}\n",
    ],
)
def test_playlists_lead_nowhere(tmp_path: Path, text: str) -> None:
    """A text that has FFmpeg open other files is no song."""
    other = song(tmp_path / "other.wav", tones(1000))
    (tmp_path / "song").write_text(text.format(other))
    with pytest.raises(AudioProcessingError, match="no audio that can be read") as error:
        heard(tmp_path / "song")
    assert error.value.code is Code.BAD_AUDIO


def test_a_tag_behind_an_mp4(songs: Mapping[str, Path], tmp_path: Path) -> None:
    """What stands behind the last box is no box that is cut short."""
    (tmp_path / "song").write_bytes(songs["aac-m4a"].read_bytes() + b"TAG" + b"Song".ljust(125, b"\0"))
    assert heard(tmp_path / "song")[0].frames == FRAMES


@pytest.mark.parametrize("size", [1 << 46, (1 << 63) - 1, (1 << 64) - 1])
def test_a_box_beyond_all_files(songs: Mapping[str, Path], tmp_path: Path, size: int) -> None:
    """A box as long as no file can be is one that is cut short, and no fault of the disk."""
    data = bytearray(songs["aac-m4a"].read_bytes())
    data[:24] = b"\0\0\0\1ftyp" + size.to_bytes(8, "big") + b"M4A isom"
    (tmp_path / "song").write_bytes(data)
    with pytest.raises(AudioProcessingError, match=f"of {size:,} bytes") as error:
        heard(tmp_path / "song")
    assert error.value.code is Code.TRUNCATED


def test_video_without_sound(tmp_path: Path) -> None:
    """A film without an audio stream is refused with the reason."""
    with av.open(str(tmp_path / "song"), "w", format="matroska") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioProcessingError) as error:
        heard(tmp_path / "song")
    assert (error.value.code, error.value.detail) == (Code.BAD_AUDIO, "it has no audio stream")
    assert error.value.message.startswith("The file has no sound")


def test_itunes_note(tmp_path: Path) -> None:
    """An M4A whose only word about its length is iTunes' note has that length."""
    path = tmp_path / "song.m4a"
    audio = original(44100)
    filled = np.concatenate((audio, np.zeros((1024 - FRAMES % 1024, 2), np.float32)))
    CODECS["aac-m4a"].write(path, filled, 44100)
    assert heard(path)[0].frames == len(filled)
    note = tags.Tags(texts={"title": ("x",)})
    tags.write(path, note, "m4a")
    from mutagen.mp4 import MP4

    file: Any = MP4(path)
    digits = f" 00000000 00000400 {len(filled) - FRAMES:08X} {FRAMES:016X} 00000000"
    file["----:com.apple.iTunes:iTunSMPB"] = [digits.encode()]
    file.save()
    track, decoded = heard(path)
    assert track.frames == FRAMES
    assert lag(audio, decoded) == 0


# What is made of it


@pytest.mark.parametrize(
    ("format", "depth"), [("wav", 16), ("wav", 24), ("flac", 16), ("flac", 24), ("alac", 16), ("alac", 24)]
)
def test_minus_adds_up(tmp_path: Path, format: str, depth: int) -> None:
    """With `minus`, vocals and instrumental are the song times the common gain, but for the dither of both."""
    audio = original(44100) * 3
    path = song(tmp_path / "song.wav", audio, subtype="FLOAT")
    result, out = separated(
        path, tmp_path / "work", (0.1, 0.2, 0.3, 2.0), format=format, bit_depth=depth, instrumental="minus"
    )
    assert result.gain_db < -3
    one, other = (heard(out / file.name)[1].astype(np.float64) for file in result.files)
    step = 2.0 ** (1 - depth)
    assert np.abs(one + other - audio * 10 ** (result.gain_db / 20)).max() <= 2 * 1.5 * step + 1e-6
    assert result.residual_db is not None
    assert result.residual_db < -100


@pytest.mark.parametrize(
    ("shares", "stems", "expected"),
    [
        (QUARTERS, PARTS, -100),
        (QUARTERS, ("vocals", "instrumental"), -100),
        ((0.1, 0.1, 0.1, 0.2), PARTS, 20 * np.log10(0.5)),
        ((0.1, 0.1, 0.1, 0.2), ("no_bass", "bass"), 20 * np.log10(0.5)),
        (QUARTERS, ("vocals",), None),
        (QUARTERS, ("guide", "vocals"), None),
    ],
)
def test_residual(tmp_path: Path, shares: tuple[float, ...], stems: tuple[str, ...], expected: float | None) -> None:
    """What the stems leave of the song, where they should make it up."""
    path = song(tmp_path / "song.wav", original(44100), subtype="FLOAT")
    found = separated(path, tmp_path / "work", shares, stems=stems, instrumental="add")[0].residual_db
    if expected is None:
        assert found is None
    elif expected == -100:
        assert found is not None
        assert found < -60
    else:
        assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("stems", [PARTS, ("vocals", "instrumental"), ("no_bass", "bass")])
@pytest.mark.parametrize("how", ["add", "minus"])
def test_offset(tmp_path: Path, stems: tuple[str, ...], how: str) -> None:
    """A song whose mean is not zero has it once in its stems together, however they are made."""
    audio = original(44100) + np.float32(0.1)
    path = song(tmp_path / "song.wav", audio, subtype="FLOAT")
    result, out = separated(path, tmp_path / "work", (0.1, 0.2, 0.3, 0.4), stems=stems, instrumental=how)
    total = np.sum([heard(out / file.name)[1].astype(np.float64) for file in result.files], axis=0)
    assert np.abs(total - audio).max() < 1e-3
    assert result.residual_db is not None
    assert result.residual_db < -60


@pytest.mark.parametrize("how", ["add", "minus"])
def test_guide(tmp_path: Path, how: str) -> None:
    """`guide` is the instrumental, and the vocals so many dB down."""
    audio = original(44100)
    path = song(tmp_path / "song.wav", audio, subtype="FLOAT")
    _, out = separated(path, tmp_path / "work", (0.1, 0.2, 0.3, 0.4), stems=("guide",), guide_db=-20, instrumental=how)
    _, decoded = heard(out / "guide.wav")
    assert np.abs(decoded - audio * (0.6 + 0.04)).max() < 1e-3


@pytest.mark.parametrize("rate", [44100, 48000])
def test_guide_that_leaves_nothing_out(tmp_path: Path, rate: int) -> None:
    """With the vocals as they are, the song minus nothing of them is the song, to the last bit."""
    audio = original(rate)
    path = song(tmp_path / "song.wav", audio, rate, subtype="FLOAT")
    _, out = separated(path, tmp_path / "work", stems=("guide",), guide_db=0, instrumental="minus")
    assert np.array_equal(heard(out / "guide.wav")[1], audio)


def test_a_part_that_no_member_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is silent, but for its share of the song's mean, also where it alone is asked for."""
    monkeypatch.setattr(Shares, "weights", ((1.0, 1.0, 1.0, 0.0),))
    path = song(tmp_path / "song.wav", original(44100))
    _, out = separated(path, tmp_path / "work", stems=("vocals",), format="wav", bit_depth="float")
    assert np.abs(heard(out / "vocals.wav")[1]).max() < 1e-4


@pytest.mark.parametrize(("clip", "rate"), [("joint", "source"), ("none", "source"), ("joint", 48000)])
def test_as_loud_as_a_song_may_be(tmp_path: Path, clip: str, rate: str | int) -> None:
    """The largest samples that are taken come out as any others do, and what is measured of them are numbers."""
    audio = original(44100)
    audio *= LOUDEST / np.abs(audio).max()
    path = song(tmp_path / "song.wav", audio, subtype="FLOAT")
    result, out = separated(path, tmp_path / "work", stems=PARTS, clip=clip, rate=rate)
    assert result.residual_db is not None and result.residual_db < -60
    assert all(each.sound and each.sound.true_peak_dbtp is not None for each in result.files)
    _, decoded = heard(out / "bass.wav")
    gain = 10 ** (result.gain_db / 20)
    if rate == "source":
        assert np.abs(decoded / gain - audio / 4).max() < 1e-3 * LOUDEST


@pytest.mark.parametrize(
    ("song_rate", "options"),
    [(44100, {"rate": 44101}), (8000, {"rate": 8001}), (22254, {"format": "mp3"}), (11025, {"rate": 192_000})],
)
def test_rates_far_from_a_simple_ratio(tmp_path: Path, song_rate: int, options: dict[str, Any]) -> None:
    """The stems have as many frames as they should at their rate, and the song's sound where it was."""
    frames = 20 * song_rate + 1
    path = song(tmp_path / "song.wav", tones(frames, rate=song_rate), song_rate, subtype="FLOAT")
    result, _ = separated(path, tmp_path / "work", stems=("bass",), **options)
    (file,) = result.files
    assert file.frames == -(-frames * file.rate // song_rate)


def test_facts(tmp_path: Path) -> None:
    """The manifest's facts are those of what was written; a stem that is hardly there is silent, whatever its noise."""
    audio = np.concatenate((original(44100), np.zeros((FRAMES, 2), np.float32)))
    path = song(tmp_path / "song.wav", audio, subtype="FLOAT")
    result, out = separated(path, tmp_path / "work", (0.5, 0.3, 0.2, 0.001), stems=("drums", "vocals"))
    drums, vocals = result.files
    assert drums.sound is not None
    assert vocals.sound is not None
    sound = heard(out / "drums.wav")[1]
    assert drums.sound.loudness_lufs == round(loudness(sound, 44100) or 0, 2)
    assert drums.sound.true_peak_dbtp == round(true_peak(sound, 44100) or 0, 2)
    assert drums.sound.true_peak_dbtp is not None
    assert drums.sound.true_peak_dbtp >= 20 * np.log10(drums.peak) - 0.01
    assert (drums.sound.silent, vocals.sound.silent) == (False, True)
    assert drums.sound.silence == pytest.approx(0.5, abs=0.06)
    assert vocals.sound.silence == 1.0


def test_too_short_for_loudness(tmp_path: Path) -> None:
    """A song of a moment has no loudness, and digital silence no peak either."""
    path = song(tmp_path / "song.wav", np.zeros((100, 2)), subtype="PCM_16")
    (file,) = separated(path, tmp_path / "work", stems=("vocals",))[0].files
    assert file.sound is not None
    assert (file.sound.loudness_lufs, file.sound.true_peak_dbtp, file.sound.silent) == (None, None, True)


# Waveforms


def waveforms(out: Path) -> NDArray[np.int8]:
    """Of peaks.json: `[N, S, 2]`."""
    found = json.loads((out / "peaks.json").read_bytes())
    assert (found["version"], found["bits"]) == (2, 8)
    return np.array(found["data"], np.int8).reshape(found["length"], found["channels"], 2)


def points(audio: NDArray[Any], step: int, bits: int) -> NDArray[np.int8]:
    """Of the samples `[T, C]`, integers of that many bits: `[N, 2]`."""
    whole = [audio[start : start + step] >> (bits - 8) for start in range(0, len(audio), step)]
    return np.array([(each.min(), each.max()) for each in whole], np.int8)


@pytest.mark.parametrize(("format", "bit_depth"), [("wav", 16), ("flac", 16), ("flac", 24), ("wav", 24), ("wav", 32)])
@pytest.mark.parametrize("channels", [1, 2])
def test_waveforms_are_those_of_the_files(tmp_path: Path, format: str, bit_depth: int, channels: int) -> None:
    """Every point of every stem is exactly the lowest and highest sample that its file has there."""
    audio = original(44100)[:, :channels]
    path = song(tmp_path / "song.wav", audio, subtype="FLOAT")
    shares = (0.5, 0.3, 0.2, 0.001)
    stems = ("vocals", "drums", "no_vocals")
    result, out = separated(path, tmp_path / "work", shares, format=format, bit_depth=bit_depth, stems=stems)
    (extra,) = result.extras
    data = (out / "peaks.json").read_bytes()
    assert (extra.kind, extra.name, extra.bytes) == ("peaks", "peaks.json", len(data))
    assert extra.sha256 == hashlib.sha256(data).hexdigest()
    found = waveforms(out)
    step = json.loads(data)["samples_per_pixel"]
    assert found.shape == (-(-FRAMES // step), len(stems), 2)
    for number, file in enumerate(result.files):
        samples, _ = soundfile.read(out / file.name, dtype="int32", always_2d=True)
        assert np.array_equal(found[:, number], points(samples, step, 32))


def test_waveforms_of_float_and_lossy_files(tmp_path: Path) -> None:
    """Of float samples each point is the file's, too; of a lossy file it is near."""
    path = song(tmp_path / "song.wav", original(44100), subtype="FLOAT")
    cases: list[tuple[dict[str, Any], int]] = [({"format": "wav", "bit_depth": "float"}, 0), ({"format": "mp3"}, 40)]
    for number, (options, near) in enumerate(cases):
        result, out = separated(path, tmp_path / str(number), stems=("vocals",), **options)
        samples = heard(out / result.files[0].name)[1][:FRAMES]
        found = waveforms(out)[:, 0].astype(int)
        step = json.loads((out / "peaks.json").read_bytes())["samples_per_pixel"]
        whole = np.clip(np.floor(samples * 128.0), -128, 127).astype(np.int32)
        assert np.abs(found - points(whole, step, 8)).max() <= near


def test_waveforms_of_streams(tmp_path: Path) -> None:
    """A file of several stems has a channel for each of its streams, in their order."""
    path = song(tmp_path / "song.wav", original(44100), subtype="PCM_16")
    result, out = separated(path, tmp_path / "work", naming="ni-stems")
    (file,) = result.files
    assert waveforms(out).shape[1] == len(file.streams) == 5


def test_without_waveforms(tmp_path: Path) -> None:
    path = song(tmp_path / "song.wav", original(44100), subtype="PCM_16")
    result, out = separated(path, tmp_path / "work", peaks=False)
    assert result.extras == ()
    assert sorted(each.name for each in out.iterdir()) == sorted(file.name for file in result.files)


def test_a_song_with_the_name_of_our_files(tmp_path: Path) -> None:
    """Stems whose names come from the song leave room for the files that are no stems."""
    for leaf in ("Peaks.json.wav", "stems.JSON.flac", "Index.html.mp3"):
        name = file_name("{song}/{stem}.{ext}", stem="vocals", ext="wav", model="m", leaf=leaf)
        assert name.split("/")[0].casefold() not in ("peaks.json", "stems.json", "index.html")


# Page


def song_in(page: bytes) -> dict[str, Any]:
    """What a page gives to its player, its waveforms as `[N, S, 2]`."""
    found = re.search(rb'<script type="application/json" id="demixd-song">(.*?)</script>', page)
    assert found is not None
    song: dict[str, Any] = json.loads(found[1])
    peaks = song["peaks"]
    values = np.frombuffer(base64.b64decode(peaks["data"]), np.int8)
    song["peaks"] = peaks | {"data": values.reshape(peaks["length"], peaks["channels"], 2)}
    return song


@pytest.mark.parametrize("peaks", [True, False])
def test_a_page(tmp_path: Path, peaks: bool) -> None:
    """`page` adds a page that knows the stems as they are, and draws them whether or not peaks.json is there too."""
    path = song(tmp_path / "song.wav", original(44100), subtype="FLOAT")
    options = {"naming": "{model}/{stem} 100% #1.{ext}", "stems": ("vocals", "no_vocals")}
    result, out = separated(
        path, tmp_path / "work", (0.5, 0.3, 0.2, 0.1), page=True, peaks=peaks, bit_depth=16, **options
    )
    assert [extra.kind for extra in result.extras] == (["peaks", "page"] if peaks else ["page"])
    assert (out / "peaks.json").exists() is peaks
    page = (out / "index.html").read_bytes()
    extra = result.extras[-1]
    assert (extra.name, extra.bytes, extra.sha256) == ("index.html", len(page), hashlib.sha256(page).hexdigest())
    found = song_in(page)
    assert (found["title"], found["rate"], found["frames"], found["channels"]) == ("Song", 44100, FRAMES, 2)
    assert [(stem["label"], stem["bytes"]) for stem in found["stems"]] == [
        (file.stem, file.bytes) for file in result.files
    ]
    assert [unquote(stem["url"]) for stem in found["stems"]] == [f"./{file.name}" for file in result.files]
    step = found["peaks"]["samples_per_pixel"]
    assert found["peaks"]["length"] == -(-FRAMES // step) <= 1000
    for number, file in enumerate(result.files):
        samples, _ = soundfile.read(out / file.name, dtype="int32", always_2d=True)
        assert np.array_equal(found["peaks"]["data"][:, number], points(samples, step, 32))


def test_a_page_of_streams(tmp_path: Path) -> None:
    """The page of a file of several streams plays its first, which is the song, and draws that."""
    path = song(tmp_path / "song.wav", original(44100), subtype="PCM_16")
    _, out = separated(path, tmp_path / "work", naming="ni-stems", page=True)
    found = song_in((out / "index.html").read_bytes())
    assert [stem["url"] for stem in found["stems"]] == ["./Song.stem.mp4"]
    assert np.array_equal(found["peaks"]["data"][:, 0, 0], reduce(waveforms(out)[:, 0, 0], found["peaks"]["length"]))


def reduce(lows: NDArray[np.int8], length: int) -> NDArray[np.int8]:
    """The lowest of each of `length` groups."""
    step = -(-len(lows) // length)
    return np.array([lows[start : start + step].min() for start in range(0, len(lows), step)], np.int8)


# What it is called


@pytest.mark.parametrize(
    ("naming", "stems", "names"),
    [
        ("demucs", ("vocals", "no_vocals"), ["shares/Song/vocals.ogg", "shares/Song/no_vocals.ogg"]),
        ("ultrastar", ("vocals", "instrumental"), ["Song [VOC].ogg", "Song [INSTR].ogg"]),
        ("yarg", PARTS, ["drums.ogg", "bass.ogg", "song.ogg", "vocals.ogg"]),
        ("yarg", ("vocals", "instrumental"), ["vocals.ogg", "song.ogg"]),
    ],
)
def test_presets(tmp_path: Path, naming: str, stems: tuple[str, ...], names: list[str]) -> None:
    """Consumers find the files under the names that they look for."""
    path = song(tmp_path / "song.ogg", original(44100))
    result, out = separated(path, tmp_path / "work", naming=naming, stems=stems)
    assert [file.name for file in result.files] == names
    assert sorted(each.relative_to(out).as_posix() for each in out.rglob("*") if each.is_file()) == sorted(
        [*names, "peaks.json"]
    )


def test_yarg_is_ogg(tmp_path: Path) -> None:
    """YARG's stems are Ogg, whatever the song is."""
    path = song(tmp_path / "song.wav", original(44100))
    assert separated(path, tmp_path / "work", naming="yarg", stems=PARTS)[0].files[0].format == "ogg"


@pytest.mark.parametrize("name", ["wav-24", "mp3", "flac"])
@pytest.mark.parametrize("format", ["source", "m4a", "alac"])
def test_one_file(songs: Mapping[str, Path], tmp_path: Path, name: str, format: str) -> None:
    """NI Stems: the song and its four stems in one file, in order, aligned, with the atom, tags and cover."""
    shares = (0.1, 0.2, 0.3, 0.4)
    result, out = separated(songs[name], tmp_path, shares, naming="ni-stems", format=format)
    (file,) = result.files
    lossless = format == "alac" or (format == "source" and name != "mp3")
    assert (file.stem, file.name, file.format) == ("ni-stems", "Song.stem.mp4", "alac" if lossless else "m4a")
    assert list(file.streams) == ["master", *PARTS]
    assert {path.name for path in out.iterdir()} == {"Song.stem.mp4", "peaks.json"}
    found = stemfile.atom(out / file.name)
    assert found is not None
    assert [stem["name"] for stem in found["stems"]] == ["Drums", "Bass", "Other", "Vocals"]
    for number, share in enumerate((1.0, *shares)):
        with (out / file.name).open("rb") as opened, reader.opened(View(opened), "mov", number) as sound:
            decoded = np.concatenate(list(sound.blocks()))
        assert len(decoded) == FRAMES
        assert lag(original(44100), decoded) == 0
        assert np.abs(decoded).mean() == pytest.approx(np.abs(original(44100)).mean() * share, rel=0.05)
    if name in TAGGED:
        with (out / file.name).open("rb") as opened:
            said = tags_of(opened)
        assert (said.texts["title"], [cover.data for cover in said.covers]) == (("Song",), [PNG])
    assert list((tmp_path / "tmp").glob("*.m4a")) == []


@pytest.mark.parametrize("format", ["m4a", "alac"])
def test_one_file_is_stereo(tmp_path: Path, format: str) -> None:
    """A mono song's streams are stereo, the same on both sides: players refuse a stem file with others."""
    path = song(tmp_path / "song.wav", original(44100)[:, :1])
    result, out = separated(path, tmp_path / "work", (0.1, 0.2, 0.3, 0.4), naming="ni-stems", format=format)
    (file,) = result.files
    assert (result.track.channels, file.channels) == (1, 2)
    for number in range(5):
        with (out / file.name).open("rb") as opened, reader.opened(View(opened), "mov", number) as sound:
            decoded = np.concatenate(list(sound.blocks()))
        assert decoded.shape == (FRAMES, 2)
        # Each side has dither of its own, and in AAC noise of its own where the song is noise.
        apart = np.abs(decoded[:, 0] - decoded[:, 1]).mean() / np.abs(decoded).mean()
        assert apart < (0.03 if format == "m4a" else 0.001)
        assert lag(original(44100)[:, :1], decoded) == 0


def test_one_file_needs_four(tmp_path: Path) -> None:
    """A model with other than the four stems cannot make one."""
    path = song(tmp_path / "song.wav", original(44100))
    engine = Shares(QUARTERS)
    engine.sources = [*PARTS, "piano"]
    wanted = Defaults(naming="ni-stems").of("shares", None)
    order = Order(song=path, name="x", tmp=tmp_path, out=tmp_path, options=wanted, max_duration_s=60, seed=7)
    observer = Observer(check=nothing, decoded=nothing, progressed=nothing)
    with pytest.raises(AudioProcessingError, match="take htdemucs") as error, Shelf(Budget(0), (tmp_path,)) as shelf:
        run(order, cast(Engine, engine), shelf, observer, {})
    assert error.value.code is Code.BAD_OPTIONS


@pytest.mark.parametrize("bitrate", ["V0", "V5", "source", 192])
def test_bitrates_of_mp3(songs: Mapping[str, Path], tmp_path: Path, bitrate: int | str) -> None:
    """LAME's variable bitrates, the song's own, or a number."""
    _, out = separated(songs["mp3"], tmp_path, stems=("vocals",), bitrate=bitrate, quality=9)
    found = heard(out / "vocals.mp3")[0].bitrate
    assert found is not None
    if isinstance(bitrate, int) or bitrate == "source":
        assert found == (256 if bitrate == "source" else bitrate)
    else:
        assert found not in (128, 192, 256, 320)


def test_tags_only_if_wanted(songs: Mapping[str, Path], tmp_path: Path) -> None:
    """Stems can do without tags, and title and album without the stem."""
    for wanted in ({"tags": False}, {"title_suffix": False, "album_suffix": False}):
        _, out = separated(songs["flac"], tmp_path / next(iter(wanted)), stems=("vocals",), **wanted)
        with (out / "vocals.flac").open("rb") as stem:
            said = tags_of(stem)
        assert said.texts.get("title") == (None if "tags" in wanted else ("Song",))
        assert "(vocals)" not in str(said.texts)


def test_broken_tags_are_a_warning(tmp_path: Path) -> None:
    """A song whose tags cannot be read is separated all the same, and says so."""
    path = song(tmp_path / "song.mp3", original(44100))
    bomb = zlib.compress(bytes(600 << 20))  # a text that is larger than who reads tags may be
    frame = b"TIT2" + (len(bomb) + 4).to_bytes(4, "big") + b"\x00\x80" + (600 << 20).to_bytes(4, "big") + bomb
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\x00\x00" + size + frame + path.read_bytes())
    result, out = separated(path, tmp_path / "work", stems=("vocals",))
    assert (out / result.files[0].name).exists()
    assert [warning for warning in result.warnings if "tags" in warning] != []


def test_same_song_same_bytes(songs: Mapping[str, Path], tmp_path: Path) -> None:
    """The same song has the same stems, dither and tags included."""
    for format in FORMATS:
        hashes = {
            separated(songs["flac"], tmp_path / f"{format}{number}", stems=("vocals",), format=format)[0]
            .files[0]
            .sha256
            for number in range(2)
        }
        assert len(hashes) == 1, format


def test_stems_have_noise_of_their_own(tmp_path: Path) -> None:
    """The dither of two stems is not the same noise, which would add up."""
    path = song(tmp_path / "song.wav", original(44100), subtype="FLOAT")
    _, out = separated(path, tmp_path / "work", stems=("drums", "bass"), format="wav", bit_depth=16)
    one, other = (soundfile.read(out / f"{stem}.wav")[0] for stem in ("drums", "bass"))
    errors = [(each - original(44100) / 4).ravel() for each in (one, other)]
    assert abs(np.corrcoef(errors)[0, 1]) < 0.1


@pytest.mark.parametrize("rate", [44100, 48000])
def test_where_sound_is_kept_changes_nothing(tmp_path: Path, rate: int) -> None:
    """In memory nothing but the stems is written; on a disk, for which there is nothing to be seen either, they are the same."""
    path = song(tmp_path / "song.wav", original(rate), rate=rate)
    digests = []
    for allowed in (1 << 30, 0):
        result, _ = separated(path, tmp_path / str(allowed), memory_bytes=allowed, format="flac")
        assert list((tmp_path / str(allowed) / "tmp").iterdir()) == []
        digests.append([file.sha256 for file in result.files])
    assert digests[0] == digests[1]


class Starved(Shares):
    """An engine whose model asks for more memory than there is."""

    accelerated = True
    fallback_after = Engine.fallback_after

    def __init__(self, allocate: Callable[[int], object]) -> None:
        self.networks = [lambda _windows, _check, _mix: allocate(1 << 50)]


@pytest.mark.parametrize("allocate", [np.empty, torch.empty])
def test_no_memory_left(tmp_path: Path, allocate: Callable[[int], object]) -> None:
    """Memory that the machine does not have is the machine's fault, with a remedy; another engine would need it too."""
    path = song(tmp_path / "song.wav", original(44100))
    with pytest.raises(AudioProcessingError) as error:
        separated(path, tmp_path / "work", engine=Starved(allocate))
    assert error.value.code is Code.IO_ERROR
    assert error.value.message.startswith("There is no memory left for separating;")
