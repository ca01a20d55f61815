"""Encoding: which format a stem gets, what is written, and that it can be read again."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio import MUSIC, blocks, nothing, small_disk, song, tones, track
from decoding import heard
from demixd.audio import formats
from demixd.audio.containers import ogg
from demixd.audio.formats import FORMATS, Target, ceiling, choose_target
from demixd.audio.pcm import BLOCK, Frames
from demixd.audio.sndfile import container
from demixd.errors import AudioProcessingError, Code, StopProcessingError
from demixd.pipeline.encode import Manner, verify, write
from demixd.pipeline.mix import joint_gain
from demixd.protocol.job import StemFile
from demixd.protocol.track import Track

DITHERED = {"PCM_16": 16, "PCM_24": 24, "ALAC_16": 16, "ALAC_24": 24}


def target(name: str, depth: str = "16", *, rate: int = 44100, channels: int = 2, bitrate: int = 320) -> Target:
    return choose_target(track(rate=rate, channels=channels), format=name, bit_depth=depth, bitrate=bitrate)[0]


def written(path: Path, audio: Frames, to: Target, gain: float = 1.0, *, clamp: bool = False) -> StemFile:
    return write(
        blocks(audio), path, to, frames=len(audio), how=Manner(stem="vocals", check=nothing, gain=gain, clamp=clamp)
    )


def read_back(path: Path) -> tuple[Frames, Track]:
    """All of a written file, and what it is."""
    track, audio = heard(path)
    return audio, track


# Choosing


@pytest.mark.parametrize(
    ("song_format", "song_subtype", "format", "depth", "expected"),
    [
        ("wav", "PCM_U8", "source", "source", ("wav", "PCM_16")),
        ("wav", "PCM_16", "source", "source", ("wav", "PCM_16")),
        ("wav", "PCM_24", "source", "source", ("wav", "PCM_24")),
        ("wav", "PCM_32", "source", "source", ("wav", "PCM_32")),
        ("wav", "FLOAT", "source", "source", ("wav", "FLOAT")),
        ("wav", "DOUBLE", "source", "source", ("wav", "FLOAT")),
        ("wav", "ULAW", "source", "source", ("wav", "PCM_16")),
        ("aiff", "PCM_24", "source", "source", ("wav", "PCM_24")),
        ("dsf", "DSD", "source", "source", ("wav", "PCM_24")),
        ("flac", "PCM_S8", "source", "source", ("flac", "PCM_16")),
        ("flac", "PCM_16", "source", "source", ("flac", "PCM_16")),
        ("flac", "PCM_24", "source", "source", ("flac", "PCM_24")),
        ("mp3", "MPEG_LAYER_III", "source", "source", ("mp3", "MPEG_LAYER_III")),
        ("ogg", "VORBIS", "source", "source", ("ogg", "VORBIS")),
        ("ogg", "OPUS", "source", "source", ("opus", "OPUS")),
        ("mp3", "MPEG_LAYER_III", "wav", "source", ("wav", "PCM_16")),
        ("mp3", "MPEG_LAYER_III", "flac", "24", ("flac", "PCM_24")),
        ("wav", "PCM_24", "mp3", "source", ("mp3", "MPEG_LAYER_III")),
        ("flac", "PCM_24", "wav", "float", ("wav", "FLOAT")),
        ("flac", "PCM_24", "wav", 16, ("wav", "PCM_16")),
    ],
)
def test_choice(song_format: str, song_subtype: str, format: str, depth: str | int, expected: tuple[str, str]) -> None:
    """The stems keep the song's format and depth, or get those that are asked for, without a warning."""
    codec = {"mp3": "mp3", "ogg": song_subtype.lower(), "flac": "flac"}.get(song_format, "pcm")
    facts = track(format=song_format, codec=codec, subtype=song_subtype, rate=48000)
    chosen, warnings = choose_target(facts, format=format, bit_depth=depth)
    assert (chosen.format, chosen.subtype) == expected
    assert warnings == ()


@pytest.mark.parametrize(
    ("format", "depth", "song_subtype", "subtype"),
    [("flac", "32", "PCM_16", "PCM_24"), ("flac", "float", "PCM_16", "PCM_24"), ("flac", "source", "FLOAT", "PCM_24")],
)
def test_depth_that_does_not_fit(format: str, depth: str, song_subtype: str, subtype: str) -> None:
    """A depth that a format cannot carry becomes its best, with a warning."""
    chosen, warnings = choose_target(track(subtype=song_subtype), format=format, bit_depth=depth)
    assert chosen.subtype == subtype
    assert "24 bits" in warnings[0]
    assert ("32-bit samples" if depth == "32" else "float samples") in warnings[0]


@pytest.mark.parametrize(
    ("format", "rate", "expected"),
    [
        ("mp3", 8000, 8000),
        ("mp3", 44100, 44100),
        ("mp3", 96000, 48000),
        ("mp3", 192000, 48000),
        ("mp3", 37800, 44100),
        ("opus", 44100, 48000),
        ("opus", 32000, 48000),
        ("opus", 8001, 12000),
        ("m4a", 50000, 64000),
        ("opus", 192000, 48000),
        ("opus", 16000, 16000),
        ("ogg", 192000, 192000),
        ("flac", 192000, 192000),
        ("wav", 11025, 11025),
    ],
)
def test_rates(format: str, rate: int, expected: int) -> None:
    """A rate that a format cannot carry becomes the next higher that it can, else its highest, with a warning."""
    chosen, warnings = choose_target(track(rate=rate), format=format)
    assert chosen.rate == expected
    assert bool(warnings) == (rate != expected)
    assert choose_target(track(), format=format, rate=rate)[0] == chosen


@pytest.mark.parametrize(
    ("format", "asked", "rate", "channels", "expected"),
    [
        ("mp3", 320, 44100, 2, 320),
        ("mp3", 320, 22050, 2, 160),
        ("mp3", 320, 8000, 1, 64),
        ("mp3", 200, 44100, 2, 192),
        ("mp3", 8, 44100, 2, 32),
        ("mp3", 8, 22050, 2, 8),
        ("mp3", "source", 44100, 2, 112),
        ("opus", 320, 48000, 1, 256),
        ("opus", 8, 48000, 2, 12),
        ("ogg", 160, 44100, 2, 160),
        ("flac", 320, 44100, 2, None),
    ],
)
def test_bitrates(format: str, asked: int | str, rate: int, channels: int, expected: int | None) -> None:
    """A bitrate is the nearest that the format has at that rate; `source` is the song's own."""
    facts = track(format="mp3", subtype="MPEG_LAYER_III", rate=rate, channels=channels, bitrate=115)
    assert choose_target(facts, format=format, bitrate=asked)[0].bitrate == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "wma"}, "format = wma is not offered; choose from source, wav, flac"),
        ({"bit_depth": 20}, "bit_depth = 20 is not offered"),
        ({"clip": "none"}, "needs samples that can pass full scale; set format = wav and bit_depth = float"),
    ],
)
def test_bad_options(options: dict[str, str], words: str) -> None:
    """Options that cannot be met at all are refused with what can be had."""
    with pytest.raises(AudioProcessingError, match=words) as error:
        choose_target(track(), **options)
    assert error.value.code is Code.BAD_OPTIONS


# Writing

TARGETS = [
    ("wav", "16", 8000),
    ("wav", "16", 44100),
    ("wav", "24", 192000),
    ("wav", "32", 48000),
    ("wav", "float", 96000),
    ("flac", "16", 44100),
    ("flac", "24", 192000),
    ("flac", "16", 8000),
    *[("mp3", "16", rate) for rate in FORMATS["mp3"].rates],
    *[("ogg", "16", rate) for rate in (8000, 22050, 44100, 192000)],
    *[("opus", "16", rate) for rate in FORMATS["opus"].rates],
    *[("m4a", "16", rate) for rate in FORMATS["m4a"].rates],
    ("alac", "16", 8000),
    ("alac", "16", 44100),
    ("alac", "24", 192000),
]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("name", "depth", "rate"), TARGETS)
def test_round_trip(tmp_path: Path, name: str, depth: str, rate: int, channels: int) -> None:
    """Every format comes back with the frames, rate, channels and subtype given, and what is said of it is true."""
    to = target(name, depth, rate=rate, channels=channels)
    audio = tones(BLOCK + 1153, rate=rate, channels=channels)
    path = tmp_path / f"vocals.{to.suffix}"
    made = written(path, audio, to)
    heard, facts = read_back(path)
    at = 48000 if name == "opus" else rate  # of Opus, which has no other rate inside, FFmpeg decodes
    assert heard.shape == (-(-len(audio) * at // rate), channels)
    assert (facts.rate, facts.subtype) == (at, to.subtype)
    assert (made.name, made.rate, made.channels, made.frames) == (path.name, rate, channels, len(audio))
    assert made.bytes == path.stat().st_size
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert made.peak == pytest.approx(np.abs(audio).max(), abs=2**-15)
    assert made.gain_db == 0
    verify(path, made, len(audio))
    if to.bitrate is None:
        steps = 1.5 if to.subtype in DITHERED else 0.5
        assert np.abs(heard - audio).max() <= steps / 2 ** (DITHERED.get(to.subtype, 32) - 1) + 1e-7


@pytest.mark.daily
@pytest.mark.parametrize("frames", [1, 2, 46, 100, 575, 576, 1105, 1151, 1152, 1153, 1198, 2304, 100_000])
@pytest.mark.parametrize("name", ["mp3", "ogg", "opus", "m4a"])
def test_lossy_lengths(tmp_path: Path, name: str, frames: int) -> None:
    """Lossy files come back with exactly as many frames, at any length, rate and number of channels."""
    for rate in (48000,) if name == "opus" else (48000, 44100, 32000, 22050, 16000, 8000):
        for channels in (1, 2):
            to = target(name, rate=rate, channels=channels, bitrate=64)
            path = tmp_path / f"{rate}-{channels}.{to.suffix}"
            verify(path, written(path, tones(frames, rate=rate, channels=channels), to), frames)
            facts = heard(path)[0]
            if name == "mp3" and rate < 32000 and frames <= 46:
                assert facts.frames == frames + 529  # FFmpeg leaves no more than one MP3 frame out at the end
            else:
                assert facts.frames == frames


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("depth", ["16", "24", "float"])
def test_same_bytes(tmp_path: Path, name: str, depth: str) -> None:
    """The same stem gives the same bytes in every format, with no time or random number in them."""
    to = target(name, depth, rate=48000)
    audio = tones(BLOCK)
    first, second = (written(tmp_path / f"{n}.{to.suffix}", audio, to) for n in range(2))
    assert first.sha256 == second.sha256
    if to.subtype == "FLOAT":
        head = (tmp_path / f"0.{to.suffix}").read_bytes()[:200]
        assert head[head.index(b"PEAK") + 12 :][:4] == bytes(4)


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_ogg_is_whole(tmp_path: Path, name: str) -> None:
    """An Ogg's pages carry our stream number and right checksums, from the first to the one marked as last."""
    path = tmp_path / "stem"
    written(path, tones(BLOCK), target(name, rate=48000))
    with path.open("rb") as file:
        pages = list(ogg.pages(file))
    assert sum(len(page.data) for page in pages) == path.stat().st_size
    assert all(page.intact and page.data[ogg.SERIAL] == b"\1\0\0\0" for page in pages)
    assert pages[-1].flags & ogg.ENDS


@pytest.mark.parametrize("size", [1, 1000, BLOCK])
def test_blocks_do_not_matter(tmp_path: Path, size: int) -> None:
    """However the stem is cut into blocks, the file is the same."""
    audio = tones(10_000)
    for name in ("wav", "flac", "mp3", "m4a", "alac"):
        to = target(name)
        whole = written(tmp_path / "whole", audio, to)
        step = max(size, 50)
        parts = write(
            blocks(audio, step), tmp_path / "parts", to, frames=len(audio), how=Manner(stem="vocals", check=nothing)
        )
        assert parts.sha256 == whole.sha256


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [44100, 22050, 8000])
def test_mp3_bitrate(tmp_path: Path, rate: int, channels: int) -> None:
    """An MP3 has the constant bitrate that its target says."""
    audio = tones(rate, rate=rate, channels=channels)
    for bitrate in formats.mp3_bitrates(rate):
        path = tmp_path / f"{bitrate}.mp3"
        written(path, audio, target("mp3", rate=rate, channels=channels, bitrate=bitrate))
        facts = heard(path)[0]
        assert (facts.bitrate, facts.frames) == (bitrate, rate)


@pytest.mark.parametrize("bitrate", [64, 128, 192, 320])
@pytest.mark.parametrize(("name", "within"), [("ogg", 0.15), ("opus", 0.05)])
def test_music_bitrate(tmp_path: Path, name: str, within: float, bitrate: int) -> None:
    """On music, Opus has about its target's bitrate and Vorbis roughly."""
    if not (MUSIC / "mardy20s.flac").exists():
        pytest.skip("no mardy20s.flac beside this checkout")
    music, rate = soundfile.read(MUSIC / "mardy20s.flac", frames=6 * 44100, dtype="float32")
    audio = np.asarray(music, np.float32)
    to = target(name, rate=48000 if name == "opus" else rate, bitrate=bitrate)
    made = written(tmp_path / "stem", audio, to)
    assert made.bytes * 8 / (made.frames / made.rate) / 1000 == pytest.approx(bitrate, rel=within)


# Levels


@pytest.mark.parametrize(
    ("name", "depth"), [("wav", "16"), ("wav", "24"), ("flac", "16"), ("flac", "24"), ("wav", "32")]
)
def test_joint_gain_on_a_clipping_set(tmp_path: Path, name: str, depth: str) -> None:
    """Stems that would clip get one gain: undone, they are what they were within the dither, and nothing clips."""
    to = target(name, depth)
    stems = {"vocals": 3 * tones(5000, seed=1), "bass": tones(5000, seed=2), "drums": -1.5 * tones(5000, seed=3)}
    gain = joint_gain({stem: float(np.abs(audio).max()) for stem, audio in stems.items()}, "joint", ceiling(to.subtype))
    assert gain < 0.9
    step = 2.0 ** (1 - int(depth))
    for stem, audio in stems.items():
        made = written(tmp_path / stem, audio, to, gain)
        heard, _ = soundfile.read(tmp_path / stem, dtype="float64")
        steps = 0.5 if depth == "32" else 1.5
        assert np.abs(heard / gain - audio).max() <= steps * step / gain + 1e-9
        assert np.abs(heard).max() <= 1 - step
        assert made.gain_db == pytest.approx(20 * np.log10(gain))
        assert made.peak == np.abs(heard).max()


@pytest.mark.parametrize("depth", ["16", "24", "32"])
def test_integers_clamp(tmp_path: Path, depth: str) -> None:
    """Integers beyond full scale become the last value on their side and never wrap around."""
    audio = np.array([[2.0, -2.0], [1.0, -1.0], [0.5, -0.5]], dtype=np.float32)
    made = written(tmp_path / "stem", audio, target("wav", depth))
    heard, _ = soundfile.read(tmp_path / "stem", dtype="float64")
    top = 1 - 2.0 ** (1 - int(depth))
    assert np.array_equal(heard, [[top, -1], [top, -1], [0.5, -0.5]])
    assert made.peak == 1.0


@pytest.mark.parametrize(("clamp", "expected"), [(False, [[2.0, -2.0]]), (True, [[1.0, -1.0]])])
def test_floats_clamp_only_if_told(tmp_path: Path, clamp: bool, expected: list[list[float]]) -> None:
    """Float files keep what passes full scale unless they are to clamp."""
    audio = np.array([[2.0, -2.0]], dtype=np.float32)
    made = written(tmp_path / "stem", audio, target("wav", "float"), clamp=clamp)
    assert np.array_equal(soundfile.read(tmp_path / "stem")[0], expected)
    assert made.peak == expected[0][0]


def test_rounding(tmp_path: Path) -> None:
    """Integers are rounded with dither, and not down: the error has no offset, and is at most one and a half steps."""
    audio = tones(50_000)
    written(tmp_path / "stem", audio, target("wav"))
    heard, _ = soundfile.read(tmp_path / "stem", dtype="float64")
    error = (heard - audio) * 32768
    assert 1.0 < np.abs(error).max() <= 1.5
    assert abs(error.mean()) < 0.02
    assert error.std() == pytest.approx(0.5, abs=0.02)  # a quarter of a step squared: rounding 1/12, dither 1/6


@pytest.mark.parametrize(
    ("subtype", "expected"), [("PCM_16", 32766 / 32768), ("PCM_32", 1 - 2**-31), ("FLOAT", 1.0), ("AAC", 1.0)]
)
def test_ceiling(subtype: str, expected: float) -> None:
    """The ceiling of integers is one step below full scale, and one more where dither comes on top."""
    assert ceiling(subtype) == expected


# Failures


@pytest.mark.parametrize("name", FORMATS)
def test_disk_full(tmp_path: Path, name: str) -> None:
    """A full disk is `no-space` in every format, though libsndfile does not notice."""
    audio = np.random.default_rng(0).uniform(-1, 1, (8 * BLOCK, 2)).astype(np.float32)
    with small_disk(tmp_path / "disk", 64 * 1024) as disk, pytest.raises(AudioProcessingError) as error:
        written(disk / "stem", audio, target(name, rate=48000))
    assert error.value.code is Code.NO_SPACE
    assert "stem" in error.value.message


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there is `io-error`."""
    with pytest.raises(AudioProcessingError) as error:
        written(tmp_path / "gone" / "stem.wav", tones(100), target("wav"))
    assert error.value.code is Code.IO_ERROR


def test_stop(tmp_path: Path) -> None:
    """`check` is called for every block and stops by raising."""

    def stop() -> None:
        raise StopProcessingError

    with pytest.raises(StopProcessingError):
        write(
            blocks(tones(100)), tmp_path / "stem.mp3", target("mp3"), frames=100, how=Manner(stem="vocals", check=stop)
        )


@pytest.mark.parametrize("name", ["wav", "mp3"])
def test_not_finite(tmp_path: Path, name: str) -> None:
    """Samples that are no numbers are never written."""
    audio = tones(100)
    audio[50] = np.nan
    with pytest.raises(AudioProcessingError) as error:
        written(tmp_path / "stem", audio, target(name))
    assert error.value.code is Code.BAD_OUTPUT


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "harm", [_cut, Path.unlink, lambda path: path.write_bytes(b""), lambda path: song(path, tones(5), format="WAV")]
)
def test_verify(tmp_path: Path, name: str, harm: Callable[[Path], object]) -> None:
    """A file that was cut, emptied, removed or replaced after writing is `bad-output`."""
    path = tmp_path / "stem"
    made = written(path, tones(2 * BLOCK), target(name, rate=48000))
    verify(path, made, 2 * BLOCK)
    harm(path)
    with pytest.raises(AudioProcessingError, match="stem was not written right") as error:
        verify(path, made, 2 * BLOCK)
    assert error.value.code is Code.BAD_OUTPUT


def test_verify_of_a_short_vorbis(tmp_path: Path) -> None:
    """Of an Ogg of 3 to 4 seconds libsndfile loses frames where it seeks; it is read without."""
    frames = 175_000
    bursts = np.random.default_rng(0).standard_normal((frames, 2)) * (np.arange(frames)[:, None] % 9000 < 900)
    audio = (tones(frames) + 0.1 * bursts).astype(np.float32)
    made = written(tmp_path / "stem", audio, target("ogg"))
    with soundfile.SoundFile(tmp_path / "stem") as sound:
        sound.read(BLOCK)
        sound.seek(frames - BLOCK)
        lost = BLOCK - len(sound.read(BLOCK))
    if not lost:
        pytest.skip("this libsndfile seeks to where it is told")
    verify(tmp_path / "stem", made, frames)


def test_verify_wants_all_frames(tmp_path: Path) -> None:
    """A whole file with other than the song's number of frames is `bad-output`."""
    made = written(tmp_path / "stem", tones(1000), target("wav"))
    with pytest.raises(AudioProcessingError, match="instead of"):
        verify(tmp_path / "stem", made, 1001)


@pytest.mark.parametrize(
    ("depth", "channels", "frames", "expected"),
    [
        ("16", 2, 1 << 29, "WAV"),
        ("16", 2, 1 << 30, "RF64"),
        ("24", 2, 720_000_000, "RF64"),
        ("float", 1, 1 << 30, "RF64"),
    ],
)
def test_beyond_four_gigabytes(depth: str, channels: int, frames: int, expected: str) -> None:
    """A WAV that would pass 4 GiB is an RF64."""
    assert container(target("wav", depth, channels=channels), frames) == expected
    assert container(target("flac", "24"), frames) == "FLAC"


def test_rf64(tmp_path: Path) -> None:
    """An RF64 is written and read back like any WAV, and twice the same."""
    to = target("wav", "float")
    audio = tones(1000)
    made = [
        write(blocks(audio), tmp_path / f"{n}.wav", to, frames=1 << 31, how=Manner(stem="vocals", check=nothing))
        for n in range(2)
    ]
    assert (tmp_path / "0.wav").read_bytes().startswith(b"RF64")
    assert made[0].sha256 == made[1].sha256
    verify(tmp_path / "0.wav", made[0], 1000)
    facts = heard(tmp_path / "0.wav")[0]
    assert (facts.format, facts.subtype, facts.frames) == ("wav", "FLOAT", 1000)
