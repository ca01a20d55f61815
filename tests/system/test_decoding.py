"""Songs of every encoder that Debian has, as they come: decoded as `ffmpeg -i` decodes them, frame by frame.

    encoder x {plain, tags before and behind, other bytes behind, cut, joined, without its beginning}

Where the two differ, DIFFERENT says why, and ours is held to what is right by it.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from audio import song, tones
from decoding import heard
from demixd.audio.pcm import Frames
from demixd.errors import AudioProcessingError, Code

RATE = 44100
FRAMES = 3 * RATE + 123

LAME, FFMPEG, SOX = ("lame", "--quiet"), ("ffmpeg", "-v", "error", "-y", "-i"), ("sox", "-V1")

ENCODERS: dict[str, tuple[str, ...]] = {
    "lame-cbr.mp3": (*LAME, "-b", "192", "IN", "OUT"),
    "lame-vbr.mp3": (*LAME, "-V", "2", "IN", "OUT"),
    "lame-abr.mp3": (*LAME, "--abr", "150", "IN", "OUT"),
    "lame-crc.mp3": (*LAME, "-p", "IN", "OUT"),
    "lame-bare.mp3": (*LAME, "-t", "IN", "OUT"),
    "lame-bare-vbr.mp3": (*LAME, "-t", "-V", "4", "IN", "OUT"),
    "lame-mono.mp3": (*LAME, "-m", "m", "IN", "OUT"),
    "lame-22.mp3": (*LAME, "--resample", "22.05", "IN", "OUT"),
    "lame-8.mp3": (*LAME, "--resample", "8", "IN", "OUT"),
    "ffmpeg.mp3": (*FFMPEG, "IN", "-b:a", "160k", "OUT"),
    "ffmpeg-bare.mp3": (*FFMPEG, "IN", "-write_xing", "0", "-id3v2_version", "0", "OUT"),
    "twolame.mp2": ("twolame", "--quiet", "IN", "OUT"),
    "twolame-crc.mp2": ("twolame", "--quiet", "-p", "IN", "OUT"),
    "ffmpeg.mp2": (*FFMPEG, "IN", "OUT"),
    "flac.flac": ("flac", "-s", "-f", "IN", "-o", "OUT"),
    "flac.oga": ("flac", "-s", "-f", "--ogg", "IN", "-o", "OUT"),
    "ffmpeg.flac": (*FFMPEG, "IN", "OUT"),
    "oggenc.ogg": ("oggenc", "-Q", "IN", "-o", "OUT"),
    "ffmpeg-libvorbis.ogg": (*FFMPEG, "IN", "-c:a", "libvorbis", "OUT"),
    "ffmpeg-vorbis.mka": (*FFMPEG, "IN", "-c:a", "libvorbis", "OUT"),
    "opusenc.opus": ("opusenc", "--quiet", "IN", "OUT"),
    "ffmpeg.opus": (*FFMPEG, "IN", "-c:a", "libopus", "OUT"),
    "ffmpeg.webm": (*FFMPEG, "IN", "-c:a", "libopus", "OUT"),
    "wavpack.wv": ("wavpack", "-q", "-y", "IN", "-o", "OUT"),
    "wavpack-lossy.wv": ("wavpack", "-q", "-y", "-b256", "IN", "-o", "OUT"),
    "ffmpeg.wv": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.aac": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.m4a": (*FFMPEG, "IN", "OUT"),
    "ffmpeg-aac.mka": (*FFMPEG, "IN", "-c:a", "aac", "OUT"),
    "ffmpeg-aac.ts": (*FFMPEG, "IN", "-c:a", "aac", "OUT"),
    "ffmpeg-mp2.ts": (*FFMPEG, "IN", "-c:a", "mp2", "OUT"),
    "ffmpeg-alac.m4a": (*FFMPEG, "IN", "-c:a", "alac", "OUT"),
    "ffmpeg-alac.caf": (*FFMPEG, "IN", "-c:a", "alac", "OUT"),
    "ffmpeg.ac3": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.eac3": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.dts": (*FFMPEG, "IN", "-c:a", "dca", "-strict", "-2", "OUT"),
    "ffmpeg.tta": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.wma": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.wav": (*FFMPEG, "IN", "OUT"),
    "ffmpeg-24.wav": (*FFMPEG, "IN", "-c:a", "pcm_s24le", "OUT"),
    "ffmpeg.aiff": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.au": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.w64": (*FFMPEG, "IN", "OUT"),
    "ffmpeg.caf": (*FFMPEG, "IN", "OUT"),
    "ffmpeg-ms.wav": (*FFMPEG, "IN", "-c:a", "adpcm_ms", "OUT"),
    "ffmpeg-ima.wav": (*FFMPEG, "IN", "-c:a", "adpcm_ima_wav", "OUT"),
    "ffmpeg-ulaw.wav": (*FFMPEG, "IN", "-c:a", "pcm_mulaw", "OUT"),
    "sox.wav": (*SOX, "IN", "OUT"),
    "sox-ms.wav": (*SOX, "IN", "-e", "ms-adpcm", "OUT"),
    "sox-ima.wav": (*SOX, "IN", "-e", "ima-adpcm", "OUT"),
    "sox-gsm.wav": (*SOX, "IN", "-e", "gsm-full-rate", "-c", "1", "-r", "8000", "OUT"),
    "sox.aiff": (*SOX, "IN", "OUT"),
    "sox.aifc": (*SOX, "IN", "OUT"),
    "sox.flac": (*SOX, "IN", "OUT"),
    "sox.ogg": (*SOX, "IN", "OUT"),
    "sox.w64": (*SOX, "IN", "OUT"),
}
"""A song's name -> the command that makes it of a WAV."""

RAW = (".mp3", ".mp2", ".aac", ".ac3", ".eac3", ".dts")
"""Of these FFmpeg finds the frames by themselves: they can be joined, and be without their beginning."""

TEXT = b"TIT2\0\0\0\7\0\0\0Prefix"
ID3V2 = b"ID3\x03\0\0\0\0\0\x1f" + TEXT.ljust(31, b"\0")
LARGE = b"ID3\x03\0\0\0\x06\x20\0" + (b"APIC\0\1\x8f\0\0\0" + bytes(range(1, 255)) * 402)[:102_400].ljust(
    102_400, b"\1"
)
ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")
APEV2 = b"APETAGEX" + bytes.fromhex("d0070000 2d000000 01000000 00000000".replace(" ", "")) + bytes(8)
APEV2 = bytes.fromhex("05000000 00000000") + b"Title\0Words" + APEV2

BEHIND = ("id3v1-behind", "apev2-behind", "both-behind", "zeros-behind")

VARIANTS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "id3v2-before": lambda data: ID3V2 + data,
    "large-id3v2-before": lambda data: LARGE + data,
    "id3v1-behind": lambda data: data + ID3V1,
    "apev2-behind": lambda data: data + APEV2,
    "both-behind": lambda data: data + APEV2 + ID3V1,
    "zeros-behind": lambda data: data + bytes(5000),
    "byte-behind": lambda data: data + b"\0",
    "cut": lambda data: data[: len(data) * 2 // 3],
    "joined": lambda data: data + data,
    "joined-with-tag": lambda data: data + LARGE + data,
    "headless": lambda data: data[1000:],
}


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones, and bursts of noise that fit at one place only."""
    audio = tones(FRAMES, rate=RATE)
    bursts = np.random.default_rng(3).standard_normal(audio.shape) * (np.arange(FRAMES)[:, None] % 9000 < 900)
    return song(tmp_path_factory.mktemp("wave") / "in.wav", (audio + 0.1 * bursts) * 0.8, RATE)


def made(name: str, wave: Path, folder: Path) -> bytes:
    """The song as its encoder writes it. Skips where there is no such encoder."""
    command = ENCODERS[name]
    for program in (command[0], "ffmpeg"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}; apt-get install ffmpeg lame twolame flac vorbis-tools opus-tools wavpack sox")
    path = folder / name
    words = [{"IN": str(wave), "OUT": str(path)}.get(word, word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or not path.exists():
        pytest.skip(f"{command[0]} does not write it: {done.stderr.strip()[-200:]}")
    return path.read_bytes()


def theirs(path: Path, channels: int) -> Frames:
    """The song as `ffmpeg -i` decodes it, `[T, channels]`."""
    command = ("ffmpeg", "-v", "quiet", "-i", str(path), "-map", "0:a:0", "-f", "f32le", "-")
    raw = subprocess.run(command, capture_output=True, check=False).stdout
    return np.frombuffer(raw[: len(raw) // (4 * channels) * 4 * channels], dtype="<f4").reshape(-1, channels)


def lag(one: Frames, other: Frames) -> int:
    """By how many frames `other` comes later, by the peak of the cross-correlation."""
    size = 1 << (len(one) + len(other)).bit_length()
    spectra = [np.fft.rfft(each.mean(axis=1), size) for each in (one, other)]
    at = int(np.argmax(np.fft.irfft(spectra[0].conj() * spectra[1], size)))
    return at if at < size // 2 else at - size


FLAC, OGG, OPUS = (tuple(name for name in ENCODERS if name.endswith(end)) for end in (".flac", ".ogg", ".opus"))

DIFFERENT: dict[tuple[str, str], int] = {
    # FFmpeg 5 loses or doubles some frames where FLACs or Oggs are joined; of each there is all.
    **{(name, variant): 2 * FRAMES for name in FLAC for variant in ("joined", "joined-with-tag")},
    **{(name, "joined"): 2 * FRAMES for name in OGG},
    **{(name, "joined"): 2 * -(-FRAMES * 48_000 // RATE) for name in OPUS},
    # FFmpeg plays the padding of AAC's last packet, and no M4A behind a tag.
    **{("ffmpeg.m4a", variant): FRAMES for variant in VARIANTS},
    **{("ffmpeg-alac.m4a", variant): FRAMES for variant in VARIANTS},
    # FFmpeg takes what follows for a part of the last frame, and drops that.
    **{(name, variant): 87 * 1536 for name in ("ffmpeg.ac3", "ffmpeg.eac3") for variant in BEHIND},
    # FFmpeg 5 takes a W64 with a tag behind it for something else.
    **{(name, variant): FRAMES + more for name, more in (("ffmpeg.w64", 1), ("sox.w64", 0)) for variant in VARIANTS},
}
"""Song and variant -> the frames that are right, where FFmpeg has others."""

REFUSED = {(name, "joined-with-tag") for name in (*OGG, *OPUS, "flac.oga")}
"""`truncated`: a tag between the pages of an Ogg looks like damage."""


def cases() -> list[tuple[str, str]]:
    whole = [(name, variant) for name in ENCODERS for variant in VARIANTS if variant != "headless"]
    return whole + [(name, "headless") for name in ENCODERS if name.endswith(RAW)]


@pytest.mark.daily
@pytest.mark.parametrize(("name", "variant"), cases())
def test_as_ffmpeg_decodes_it(name: str, variant: str, wave: Path, tmp_path: Path) -> None:
    """Frames and lag are those of `ffmpeg -i`; a song that is cut is `truncated`, where its file tells how long it was."""
    path = tmp_path / "song"
    path.write_bytes(VARIANTS[variant](made(name, wave, tmp_path)))
    try:
        found = heard(path)[1]
    except AudioProcessingError as error:
        assert variant == "cut" or (name, variant) in REFUSED, error
        assert error.code is Code.TRUNCATED
        return
    assert (name, variant) not in REFUSED
    wanted = theirs(path, found.shape[1])
    if (name, variant) in DIFFERENT:
        assert len(found) == DIFFERENT[name, variant]
        wanted = theirs(tmp_path / name, found.shape[1])
    else:
        assert len(found) == len(wanted)
    assert lag(wanted, found[: len(wanted)]) == 0
