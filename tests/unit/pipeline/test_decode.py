"""Decoding: what comes out of every format, and what is refused with which code."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio import MUSIC, bytes_at, small_disk, song, tones
from decoding import heard as decoded
from demixd.audio.containers import mpeg, ogg
from demixd.audio.pcm import BLOCK, Frames
from demixd.audio.streams import View
from demixd.errors import AudioProcessingError, Code, StopProcessingError

HALF = np.sqrt(0.5)


def refused(path: Path, *, max_duration_s: float = 3600.0) -> AudioProcessingError:
    with pytest.raises(AudioProcessingError) as error:
        decoded(path, max_duration_s=max_duration_s)
    return error.value


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("container", "subtype", "rate", "name"),
    [
        ("WAV", "PCM_U8", 44100, "wav"),
        ("WAV", "PCM_16", 8000, "wav"),
        ("WAV", "PCM_24", 192000, "wav"),
        ("WAV", "PCM_32", 96000, "wav"),
        ("WAV", "FLOAT", 44100, "wav"),
        ("WAV", "DOUBLE", 44100, "wav"),
        ("WAVEX", "PCM_24", 48000, "wav"),
        ("RF64", "PCM_16", 44100, "wav"),
        ("AIFF", "PCM_16", 44100, "aiff"),
        ("FLAC", "PCM_16", 44100, "flac"),
        ("FLAC", "PCM_24", 192000, "flac"),
        ("FLAC", "PCM_S8", 8000, "flac"),
        ("MP3", "MPEG_LAYER_III", 44100, "mp3"),
        ("MP3", "MPEG_LAYER_III", 22050, "mp3"),
        ("MP3", "MPEG_LAYER_III", 8000, "mp3"),
        ("OGG", "VORBIS", 44100, "ogg"),
        ("OGG", "VORBIS", 8000, "ogg"),
        ("OGG", "OPUS", 48000, "ogg"),
    ],
)
def test_formats(tmp_path: Path, container: str, subtype: str, rate: int, name: str, channels: int) -> None:
    """Every format comes out with its own frames, rate and subtype, and the samples it was made from."""
    audio = tones(BLOCK + 1234, rate=rate, channels=channels)
    path = song(tmp_path / "song", audio, rate, format=container, subtype=subtype)
    track, heard = decoded(path)
    told = "PCM_16" if (container, subtype) == ("FLAC", "PCM_S8") else subtype  # FFmpeg has no eight bits but a WAV's
    assert (track.format, track.subtype, track.rate, track.frames) == (name, told, rate, len(audio))
    assert (track.channels, track.song_channels, track.warnings) == (channels, channels, ())
    lossy = track.bitrate is not None
    assert lossy == (name in ("mp3", "ogg"))
    error = np.abs(heard - audio).max()
    assert error <= {"PCM_U8": 1 / 128, "PCM_S8": 1 / 128, "PCM_16": 1 / 32768}.get(subtype, 1e-6) or lossy


@pytest.mark.parametrize("frames", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3", "OGG"])
def test_lengths(tmp_path: Path, container: str, frames: int) -> None:
    """A song may be two samples long or end anywhere in a block."""
    path = song(tmp_path / "song", tones(frames), format=container)
    assert decoded(path)[0].frames == frames


def test_blocks_change_nothing(tmp_path: Path) -> None:
    """An MP3 read block by block is the MP3 read at once, by another decoder."""
    path = song(tmp_path / "song.mp3", tones(3 * BLOCK))
    whole, _ = soundfile.read(path, dtype="float32")
    found = decoded(path)[1]
    assert found.shape == whole.shape
    assert np.abs(found - whole).max() < 1e-5


@pytest.mark.parametrize(("name", "rate", "channels"), [("demucs_test.mp3", 44100, 2), ("mardy20s.flac", 44100, 2)])
def test_music(tmp_path: Path, name: str, rate: int, channels: int) -> None:
    """Real music has the frames that libsndfile says it has."""
    if not (MUSIC / name).exists():
        pytest.skip(f"no {name} beside this checkout")
    track = decoded(MUSIC / name)[0]
    assert (track.rate, track.channels) == (rate, channels)
    assert track.frames == soundfile.info(MUSIC / name).frames


def test_progress_and_check(tmp_path: Path) -> None:
    """Progress grows to 1, and `check` is called before each block and stops by raising."""
    path = song(tmp_path / "song.wav", tones(4 * BLOCK))
    seen: list[float] = []
    calls: list[int] = []
    decoded(path, check=lambda: calls.append(1), progress=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]
    assert len(calls) == 5

    def stop() -> None:
        raise StopProcessingError

    with pytest.raises(StopProcessingError):
        decoded(path, check=stop)


# More than two channels

WAVE = {
    3: [(1, 0), (0, 1), (HALF, HALF)],
    4: [(1, 0), (0, 1), (HALF, 0), (0, HALF)],
    5: [(1, 0), (0, 1), (HALF, HALF), (HALF, 0), (0, HALF)],
    6: [(1, 0), (0, 1), (HALF, HALF), (0, 0), (HALF, 0), (0, HALF)],
    7: [(1, 0), (0, 1), (HALF, HALF), (0, 0), (0.5, 0.5), (HALF, 0), (0, HALF)],
    8: [(1, 0), (0, 1), (HALF, HALF), (0, 0), (HALF, 0), (0, HALF), (HALF, 0), (0, HALF)],
    9: [(1 / 9, 1 / 9)] * 9,
}
OGG = {
    3: [(1, 0), (HALF, HALF), (0, 1)],
    4: [(1, 0), (0, 1), (HALF, 0), (0, HALF)],
    5: [(1, 0), (HALF, HALF), (0, 1), (HALF, 0), (0, HALF)],
    6: [(1, 0), (HALF, HALF), (0, 1), (HALF, 0), (0, HALF), (0, 0)],
    7: [(1, 0), (HALF, HALF), (0, 1), (HALF, 0), (0, HALF), (0.5, 0.5), (0, 0)],
    8: [(1, 0), (HALF, HALF), (0, 1), (HALF, 0), (0, HALF), (HALF, 0), (0, HALF), (0, 0)],
}


def weights(path: Path, audio: Frames) -> Frames:
    """How much of each channel of `audio` is in left and right, by least squares."""
    track, heard = decoded(path)
    assert track.channels == 2
    assert track.song_channels == audio.shape[1]
    assert f"{audio.shape[1]} channels" in track.warnings[0]
    found: Frames = np.linalg.lstsq(audio, heard, rcond=None)[0]
    return found


@pytest.mark.parametrize("channels", WAVE)
def test_wave_channels(tmp_path: Path, channels: int) -> None:
    """Each channel of a WAV arrives on each side with its coefficient of BS.775."""
    audio = tones(4000, channels=channels)
    found = weights(song(tmp_path / "song.wav", audio, subtype="FLOAT"), audio)
    assert np.allclose(found, WAVE[channels], atol=1e-4)


@pytest.mark.parametrize("channels", OGG)
def test_ogg_channels(tmp_path: Path, channels: int) -> None:
    """Ogg's channels are in Ogg's order: the centre is the second."""
    audio = tones(44100, channels=channels)
    found = weights(song(tmp_path / "song.ogg", audio, compression_level=0.0), audio)
    assert np.allclose(found, OGG[channels], atol=0.03)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (0x107, [(1, 0), (0, 1), (HALF, HALF), (0.5, 0.5)]),  # FL FR FC BC
        (0x603, [(1, 0), (0, 1), (HALF, 0), (0, HALF)]),  # FL FR SL SR
        (0x0C3, [(1, 0), (0, 1), (1, 0), (0, 1)]),  # FL FR FLC FRC
        (0x5003, [(0.25, 0.25)] * 4),  # FL FR and heights: no place in BS.775
        (0x007, [(0.25, 0.25)] * 4),  # three positions for four channels
    ],
)
def test_channel_mask(tmp_path: Path, mask: int, expected: list[tuple[float, float]]) -> None:
    """A WAV's channel mask says where its channels belong; an impossible one puts their mean on both sides."""
    audio = tones(4000, channels=4)
    path = song(tmp_path / "song.wav", audio, format="WAVEX", subtype="FLOAT")
    bytes_at(path, {40: mask.to_bytes(4, "little")})
    assert np.allclose(weights(path, audio), expected, atol=1e-4)


# Cut short


@pytest.mark.parametrize(
    ("container", "how"),
    [
        ("WAV", {}),
        ("WAV", {"subtype": "FLOAT"}),
        ("RF64", {}),
        ("AIFF", {}),
        ("FLAC", {}),
        ("MP3", {}),
        ("OGG", {}),
        ("OGG", {"subtype": "OPUS"}),
    ],
)
@pytest.mark.parametrize("left", [0.2, 0.5, 0.9, 0.999])
def test_cut(tmp_path: Path, container: str, how: dict[str, str], left: float) -> None:
    """A song cut anywhere is `truncated`; an MP3 is if it lacks more than a part of its last frame."""
    path = song(tmp_path / "song", tones(2 * BLOCK, rate=48000), 48000, format=container, **how)
    left = min(left, 0.98) if container == "MP3" else left
    os.truncate(path, int(path.stat().st_size * left))
    error = refused(path)
    assert error.code is Code.TRUNCATED
    assert "cut short" in error.message


@pytest.mark.parametrize(("container", "kept"), [("FLAC", 60), ("FLAC", 0.5), ("FLAC", 0.99), ("MP3", 0.3)])
def test_cut_in_its_first_frame(tmp_path: Path, container: str, kept: float) -> None:
    """A song of which not a single frame is there, or not even all of its header, is cut short too, and no bad one."""
    path = song(tmp_path / "song", tones(2000, rate=48000), 48000, format=container)
    os.truncate(path, int(kept if kept > 1 else path.stat().st_size * kept))
    assert refused(path).code is Code.TRUNCATED


def test_cut_tells_how_much_there_is(tmp_path: Path) -> None:
    """The message says how many of how many frames there are."""
    path = song(tmp_path / "song.wav", tones(1000))
    os.truncate(path, 44 + 300 * 4)
    assert "300 of 1,000 frames" in refused(path).message
    path = song(tmp_path / "song.flac", tones(3 * BLOCK))
    os.truncate(path, path.stat().st_size // 2)
    assert f"94,208 of {3 * BLOCK:,} frames" in refused(path).message  # whole FLAC frames


@pytest.mark.parametrize("frames", [2 * BLOCK, 4 * BLOCK + 777])
@pytest.mark.parametrize("container", ["FLAC", "MP3", "OGG"])
def test_hole(tmp_path: Path, container: str, frames: int) -> None:
    """Zeros where compressed audio should be, as an upload that broke off leaves them, are `truncated`."""
    path = song(tmp_path / "song", tones(frames), format=container)
    size = path.stat().st_size
    bytes_at(path, {size * 2 // 3: bytes(size - size * 2 // 3)})
    assert refused(path).code is Code.TRUNCATED


def test_damaged_ogg_page(tmp_path: Path) -> None:
    """libsndfile leaves out an Ogg page whose checksum is wrong and says nothing; here the song is `truncated`."""
    path = song(tmp_path / "song.ogg", tones(2 * BLOCK))
    middle = path.stat().st_size // 2
    bytes_at(path, {middle: bytes([path.read_bytes()[middle] ^ 1])})
    assert refused(path).code is Code.TRUNCATED


def test_ogg_without_end_mark(tmp_path: Path) -> None:
    """An Ogg that ends with a whole page but no end mark, as recordings of web radio do, is used with a warning."""
    path = song(tmp_path / "song.ogg", tones(4 * BLOCK))
    with path.open("rb") as file:
        last = list(ogg.pages(file))[-1]
    os.truncate(path, last.at)
    track, _ = decoded(path)
    assert 0 < track.frames < 4 * BLOCK
    assert "end-of-stream" in track.warnings[0]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg(tmp_path: Path, subtype: str) -> None:
    """Ogg streams one after another are one song, each part of it as long as it is alone."""
    parts = [tones(2 * BLOCK, rate=48000), tones(BLOCK // 2, rate=48000, seed=1)]
    paths = [
        song(tmp_path / f"{number}.ogg", part, 48000, format="OGG", subtype=subtype)
        for number, part in enumerate(parts)
    ]
    (tmp_path / "song").write_bytes(b"".join(path.read_bytes() for path in paths))
    track, heard = decoded(tmp_path / "song")
    assert track.frames == 2 * BLOCK + BLOCK // 2
    assert np.abs(heard - np.concatenate([decoded(path)[1] for path in paths])).max() < 0.02


@pytest.mark.parametrize(
    ("riff", "data"), [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (36, 0), (0, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_streamed_wav(tmp_path: Path, riff: int, data: int, channels: int) -> None:
    """A WAV whose writer could not fill in the sizes is read to its end and is not truncated."""
    audio = tones(1001, channels=channels)
    path = song(tmp_path / "song.wav", audio)
    bytes_at(path, {4: riff.to_bytes(4, "little"), 40: data.to_bytes(4, "little")})
    track, heard = decoded(path)
    assert track.frames == 1001
    assert np.abs(heard - audio).max() <= 1 / 32768


def test_streamed_flac(tmp_path: Path) -> None:
    """A FLAC that does not know its length is read to its end."""
    path = song(tmp_path / "song.flac", tones(3 * BLOCK + 5))
    bytes_at(path, {21: bytes([path.read_bytes()[21] & 0xF0]), 22: bytes(4)})  # total samples: 36 bits
    seen: list[float] = []
    track = decoded(path, progress=seen.append)[0]
    assert track.frames == 3 * BLOCK + 5
    assert 0 < seen[0] <= seen[-1] <= 1


# MP3


def without_info(path: Path) -> Path:
    """Takes the Info frame out of an MP3, as encoders that write none leave it."""
    with path.open("rb") as file:
        head = mpeg.header(file.read(4))
    assert head
    path.write_bytes(path.read_bytes()[head.size :])
    return path


def test_mp3_without_info_is_read_whole(tmp_path: Path) -> None:
    """A variable bitrate MP3 without an Info frame is read to its end, though libsndfile guesses too short a length."""
    loud, quiet = tones(BLOCK, seed=1), np.zeros((8 * BLOCK, 2), dtype=np.float32)
    path = song(tmp_path / "song.mp3", np.concatenate([loud, quiet]), bitrate_mode="VARIABLE", compression_level=0.0)
    without_info(path)
    assert soundfile.info(path).frames < 7 * BLOCK
    track, _ = decoded(path)
    assert abs(track.frames - 9 * BLOCK) < 3 * 1152
    assert track.warnings == ()


@pytest.mark.parametrize(("bitrate", "level"), [(320, 0.0), (128, (320 - 128.5) / 288), (64, (320 - 64.5) / 288)])
def test_constant_bitrate(tmp_path: Path, bitrate: int, level: float) -> None:
    """The bitrate of a constant MP3 is the one in its frames, whatever tags add to the file."""
    path = song(tmp_path / "song.mp3", tones(BLOCK), bitrate_mode="CONSTANT", compression_level=level)
    tag = b"ID3\x04\0\0\0\0\x40\0" + bytes(0x40 << 7)
    path.write_bytes(tag + path.read_bytes() + b"TAG" + bytes(125))
    track, _ = decoded(path)
    assert (track.bitrate, track.frames, track.warnings) == (bitrate, BLOCK, ())


def test_mp3_longer_than_it_says(tmp_path: Path) -> None:
    """Of two MP3s one after another both are used, with a warning."""
    path = song(tmp_path / "song.mp3", tones(2 * BLOCK))
    path.write_bytes(path.read_bytes() * 2)
    track, _ = decoded(path)
    assert track.frames > 4 * BLOCK
    assert any("longer than its header says" in warning for warning in track.warnings)


def test_mp3_behind_junk(tmp_path: Path) -> None:
    """Junk before the first frame is skipped with a warning."""
    path = song(tmp_path / "song.mp3", tones(BLOCK))
    path.write_bytes(np.random.default_rng(0).bytes(5000) + path.read_bytes())
    track, _ = decoded(path)
    assert track.frames == BLOCK
    assert "5,000 bytes" in track.warnings[0]


# No audio

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xdb\0\x43\0" + np.random.default_rng(1).bytes(200_000)


@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".au"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ID3",
        b"ID3\x03\0\0\0\0\0\x7f" + bytes(500),
        b"Some words of a song, over and over.\n" * 3000,
        bytes(300_000),
        b"\xff" * 300_000,
        b"\xff\xfb" * 150_000,
        np.random.default_rng(2).bytes(300_000),
        JPEG,
        b"RIFF\x24\0\0\0WAVE",
        b"RIFF\x24\0\0\0WAVEjunk" + bytes(100),
        b"fLaC" + bytes(100),
        b"FORM\0\0\0\x10AIFF" + bytes(100),
    ],
)
def test_garbage(tmp_path: Path, content: bytes, suffix: str) -> None:
    """What is no audio is `bad-audio` under any name, though libsndfile plays all kinds of it as MP3."""
    path = tmp_path / f"song{suffix}"
    path.write_bytes(content)
    assert refused(path).code is Code.BAD_AUDIO


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG"])
def test_content_decides(tmp_path: Path, container: str) -> None:
    """A file is what it holds, not what it is called."""
    path = song(tmp_path / "song.mp3", tones(1000), format=container)
    assert decoded(path)[0].format == container.lower()


@pytest.mark.parametrize("container", ["WAV", "AIFF"])
def test_no_frames(tmp_path: Path, container: str) -> None:
    """A whole file with no frames holds no audio."""
    error = refused(song(tmp_path / "song", np.zeros((0, 2)), format=container))
    assert error.code is Code.BAD_AUDIO
    assert "holds no audio" in error.message


def test_unreadable_kind(tmp_path: Path) -> None:
    """A known container with samples that libsndfile cannot read is `bad-audio`, with its words as detail."""
    path = bytes_at(song(tmp_path / "song.wav", tones(100)), {20: (0x1234).to_bytes(2, "little")})
    error = refused(path)
    assert error.code is Code.BAD_AUDIO
    assert error.detail


def test_absurd_rate(tmp_path: Path) -> None:
    """A rate that cannot be meant is a damaged header."""
    path = bytes_at(song(tmp_path / "song.wav", tones(100)), {24: (3).to_bytes(4, "little")})
    assert refused(path).code is Code.BAD_AUDIO


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_not_finite(tmp_path: Path, value: float, channels: int) -> None:
    """The first sample that is no number is named by its time."""
    audio = tones(2 * BLOCK, rate=8000, channels=channels)
    audio[80_000:, -1] = value
    error = refused(song(tmp_path / "song.wav", audio, 8000, subtype="FLOAT"))
    assert error.code is Code.NOT_FINITE
    assert "at 10.000 s" in error.message


@pytest.mark.parametrize(
    ("container", "subtype", "value"),
    [("WAV", "FLOAT", 3.4e38), ("WAV", "FLOAT", -1e20), ("WAV", "DOUBLE", 1e300), ("CAF", "DOUBLE", 1e300)],
)
def test_too_large_to_be_sound(tmp_path: Path, container: str, subtype: str, value: float) -> None:
    """Samples that no sound has, of whose squares there would be no sum, are refused as those that are no numbers are."""
    audio = tones(2 * BLOCK, rate=8000).astype(np.float64)
    audio[80_000:, -1] = value
    error = refused(song(tmp_path / "song", audio, 8000, subtype=subtype, format=container))
    assert error.code is Code.NOT_FINITE
    assert "too large to be sound, at 10.000 s" in error.message


def test_too_long(tmp_path: Path) -> None:
    """A song over the limit is refused before decoding if it says so, else when it gets there; at the limit not."""
    path = song(tmp_path / "song.flac", tones(3 * 8000, rate=8000), 8000)
    assert decoded(path, max_duration_s=3.0)[0].duration_s == 3.0
    declared = refused(path, max_duration_s=2.9)
    assert declared.code is Code.TOO_LONG
    assert "3 s long" in declared.message
    bytes_at(path, {21: bytes([path.read_bytes()[21] & 0xF0]), 22: bytes(4)})
    assert refused(path, max_duration_s=2.9).code is Code.TOO_LONG


def test_disk_full(tmp_path: Path) -> None:
    """Samples that do not fit on their disk are `no-space`, also where the song does not say how long it is."""
    path = song(tmp_path / "song.flac", tones(2 * BLOCK))
    for _ in ("declared", "not declared"):
        with small_disk(tmp_path / "disk", 2_000_000) as disk:
            (disk / "filler").write_bytes(bytes(1_500_000))
            with pytest.raises(AudioProcessingError) as error:
                decoded(path, folder=disk)
        assert error.value.code is Code.NO_SPACE
        bytes_at(path, {21: bytes([path.read_bytes()[21] & 0xF0]), 22: bytes(4)})


def test_disk_too_small(tmp_path: Path) -> None:
    """What would not fit on the empty disk need not wait for room."""
    path = song(tmp_path / "song.wav", tones(2 * BLOCK))
    with small_disk(tmp_path / "disk", 300_000) as disk, pytest.raises(AudioProcessingError) as error:
        decoded(path, folder=disk)
    assert error.value.code is Code.TOO_LARGE


def test_no_song(tmp_path: Path) -> None:
    """A song that is gone is the machine's fault, not the song's."""
    assert refused(tmp_path / "song.wav").code is Code.IO_ERROR


@pytest.mark.parametrize("damage", range(24))
@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3", "OGG"])
def test_damage(tmp_path: Path, container: str, damage: int) -> None:
    """Random damage ends in audio or in an error of ours, and never in a song that is silently shorter."""
    path = song(tmp_path / "song", tones(20_000), format=container)
    random = np.random.default_rng(damage)
    size = path.stat().st_size
    bytes_at(path, {int(at): random.bytes(1) for at in random.integers(size // 10, size, 1 + damage)})
    try:
        track, _ = decoded(path)
    except AudioProcessingError as error:
        assert error.code in (Code.BAD_AUDIO, Code.TRUNCATED)
    else:
        assert track.frames >= 20_000 - 2 * 1152 or track.warnings


def test_a_slow_disk_and_a_pause_are_no_fault_of_the_song(tmp_path: Path) -> None:
    """A song is opened within a time of the processor: what the process does not use does not count."""
    (tmp_path / "song").write_bytes(b"song")
    with (tmp_path / "song").open("rb") as file:
        view = View(file)
        with view.limited(100, 0.1):
            time.sleep(0.2)
            assert view.read(4) == b"song"
            until = time.thread_time() + 0.2
            while time.thread_time() < until:
                view.seek(0)
            assert (view.read(4), view.exhausted) == (b"", True)
