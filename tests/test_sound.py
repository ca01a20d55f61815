"""One song through every codec that it can come in and every format that its stems can have: aligned to the sample."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from audio import nothing, tones
from song_codecs import CODECS, Codec, dsf
from stemd import pipeline
from stemd.formats import FORMATS, choose_target
from stemd.job import EngineFacts
from stemd.pipeline import Observer, Order, Result, Separated
from stemd.config import Defaults
from stemd.steps import mix
from stemd.steps.decode import decode
from stemd.track import SONG, Frames, Track

FRAMES = 60_003
"""Of the song: no multiple of any codec's packet."""

PARTS = ("drums", "bass", "other", "vocals")


def original(rate: int) -> Frames:
    """Tones, and bursts of noise that only fit at one place."""
    audio = tones(FRAMES, rate=rate)
    bursts = np.random.default_rng(3).standard_normal(audio.shape) * (np.arange(FRAMES)[:, None] % 9000 < 900)
    return (audio + 0.1 * bursts).astype(np.float32)


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
    return made


def heard(path: Path) -> tuple[Track, Frames]:
    spool = path.with_name(f"{path.name}.f32")
    track = decode(path, spool, max_duration_s=60, check=nothing, progress=nothing)
    return track, np.fromfile(spool, dtype="<f4").reshape(-1, track.channels)


def lag(one: Frames, other: Frames) -> int:
    """By how many frames `other` comes later, by the peak of the cross-correlation."""
    size = 1 << 18
    spectra = [np.fft.rfft(each.mean(axis=1), size) for each in (one, other)]
    at = int(np.argmax(np.fft.irfft(spectra[0].conj() * spectra[1], size)))
    return at if at < size // 2 else at - size


def separated(song: Path, folder: Path, **options: object) -> tuple[Result, Path]:
    """The song's stems, of a model that gives each part a quarter of the song: everything but the model is real."""
    tmp, out = folder / "tmp", folder / "out"
    tmp.mkdir()
    out.mkdir()
    wanted = Defaults(**options).of("quarters", None)  # type: ignore[arg-type]
    order = Order(song=song, name="Song.x", tmp=tmp, out=out, options=wanted, max_duration_s=60, seed=7)
    observer = Observer(check=nothing, began=nothing, decoded=nothing, progressed=nothing)
    track = pipeline.decode_song(order, observer, {})
    quarter = np.fromfile(tmp / SONG, dtype="<f4") / 4
    spools = {part: tmp / f"{part}.f32" for part in PARTS}
    for path in spools.values():
        path.write_bytes(quarter.astype("<f4").tobytes())
    target, warnings = choose_target(
        track, format=wanted.format, bitrate=wanted.bitrate, bit_depth=wanted.bit_depth, rate=wanted.rate
    )
    made = Separated(
        track=track,
        spools=spools,
        recipe=mix.recipe(wanted.stems, PARTS, instrumental="add", guide_db=wanted.guide_db),
        target=target,
        engine=EngineFacts(model="quarters", model_sha256="0" * 64, device="cpu", device_name="", precision="float32"),
        warnings=warnings,
    )
    return pipeline.write_stems(order, made, observer, {}), out


def holds(codec: Codec, frames: int, audio: Frames, decoded: Frames) -> None:
    """What a song's codec promises: its frames, and where they are."""
    assert 0 <= frames - FRAMES <= codec.extra or codec.offset < 0
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


@pytest.mark.parametrize("format", ["source", *FORMATS])
@pytest.mark.parametrize("name", CODECS)
def test_every_codec_into_every_format(songs: Mapping[str, Path], tmp_path: Path, name: str, format: str) -> None:
    """A stem has the song's frames at its rate, or at the nearest that its format has, and lies where the song does."""
    codec = CODECS[name]
    result, out = separated(songs[name], tmp_path, format=format, stems=("vocals",))
    (file,) = result.files
    track, decoded = heard(out / file.name)
    assert (track.rate, track.channels, track.frames) == (file.rate, file.channels, file.frames)
    assert file.subtype == track.subtype
    rates = FORMATS[file.format].rates
    if rates and codec.rate not in rates:
        assert any("cannot carry" in warning for warning in result.warnings)
        assert file.rate == 48000
        assert file.frames == -(-result.track.frames * 48000 // codec.rate)
        return
    assert (file.rate, file.frames) == (codec.rate, result.track.frames)
    holds(codec, file.frames, original(codec.rate), decoded)
    assert 0.2 < np.abs(decoded).mean() / np.abs(original(codec.rate)).mean() < 0.3
