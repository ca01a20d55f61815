"""Songs as they are found: joined, tagged in front and behind, written by old encoders; whole, and where they were."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from audio import song, tones
from decoding import heard
from demixd.audio.containers import matroska, mpeg, ogg
from demixd.audio.ffmpeg import opening
from demixd.audio.ffmpeg.opening import decoders
from demixd.audio.pcm import Frames
from demixd.errors import AudioProcessingError, Code
from song_codecs import CODECS, through_ffmpeg

FRAMES = 60_003

ID3V2 = b"ID3\x03\0\0\0\0\0\x1f" + b"TIT2\0\0\0\7\0\0\0Prefix".ljust(31, b"\0")
ID3V1 = b"TAG" + bytes(125)
APEV2 = b"\5\0\0\0\0\0\0\0Title\0Words" + b"APETAGEX\xd0\x07\0\0\x33\0\0\0\1\0\0\0" + bytes(12)
LARGE = (
    b"ID3\x03\0\0\0\x06\x20\0"
    + b"APIC\0\1\x8f\xf6\0\0"
    + np.random.default_rng(5).bytes(102_390).replace(b"\xff", b"\0")
)
TAILS = {"id3v1": ID3V1, "apev2": APEV2, "both": APEV2 + ID3V1, "zeros": bytes(5000), "byte": b"\0"}


def original(rate: int = 44100, channels: int = 2) -> Frames:
    """Tones, and bursts of noise that only fit at one place."""
    audio = tones(FRAMES, rate=rate, channels=channels)
    bursts = np.random.default_rng(3).standard_normal(audio.shape) * (np.arange(FRAMES)[:, None] % 9000 < 900)
    return (audio + 0.1 * bursts).astype(np.float32)


def refused(path: Path) -> AudioProcessingError:
    with pytest.raises(AudioProcessingError) as error:
        heard(path)
    return error.value


def lag(one: Frames, other: Frames) -> int:
    """By how many frames `other` comes later, by the peak of the cross-correlation."""
    size = 1 << (len(one) + len(other)).bit_length()
    spectra = [np.fft.rfft(each.mean(axis=1), size) for each in (one, other)]
    at = int(np.argmax(np.fft.irfft(spectra[0].conj() * spectra[1], size)))
    return at if at < size // 2 else at - size


def mp3(folder: Path, *, info: bool = True, rate: int = 44100, channels: int = 2) -> bytes:
    path = folder / "made.mp3"
    song(path, original(rate, channels), rate, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT")
    data = path.read_bytes()
    head = mpeg.header(data[:4])
    assert head is not None
    return data if info else data[head.size :]


def frames_of(data: bytes) -> int:
    """How many frames of MPEG audio there are."""
    at = count = 0
    while (head := mpeg.header(data[at : at + 4])) is not None:
        at, count = at + head.size, count + 1
    return count


def given(folder: Path, data: bytes) -> Path:
    path = folder / "song"
    path.write_bytes(data)
    return path


# MP3


def test_an_mp3_without_an_info_frame_begins_with_its_first_frame(tmp_path: Path) -> None:
    """Nothing of it is cut: no decoder knows how much its encoder has put in front."""
    data = mp3(tmp_path, info=False)
    track, found = heard(given(tmp_path, data))
    assert track.frames == frames_of(data) * 1152
    assert 1000 < lag(original(), found) < 1200  # LAME's delay and the decoder's


def test_a_checksum_moves_no_info_frame(tmp_path: Path) -> None:
    """LAME sets the flag of a checksum in the Info frame too, and leaves the tag where it is."""
    data = bytearray(mp3(tmp_path))
    data[1] &= 0xFE
    track, found = heard(given(tmp_path, bytes(data)))
    assert track.frames == FRAMES
    assert lag(original(), found) == 0


def test_a_vbri_frame_is_skipped(tmp_path: Path) -> None:
    """Fraunhofer's frame holds no sound, and what it announces is believed."""
    data = mp3(tmp_path, info=False)
    plain = heard(given(tmp_path, data))[1]
    tag = b"VBRI\0\1" + bytes(4) + len(data).to_bytes(4, "big") + frames_of(data).to_bytes(4, "big")
    begin = data[:2] + bytes([data[2] & 0xFD]) + data[3:4]  # no padding
    head = mpeg.header(begin)
    assert head is not None
    frame = (begin + bytes(32) + tag).ljust(head.size, b"\0")
    assert np.array_equal(heard(given(tmp_path, frame + data))[1], plain)
    assert refused(given(tmp_path, frame + data[: len(data) // 2])).code is Code.TRUNCATED


@pytest.mark.parametrize("info", [True, False])
@pytest.mark.parametrize("tag", [b"", ID3V2, LARGE, ID3V1 + ID3V2], ids=["bare", "small", "large", "both"])
def test_joined_mp3s_are_one_song(tmp_path: Path, tag: bytes, info: bool) -> None:
    """All of both, whatever lies between them; a tag can cost one frame, as in FFmpeg's programs."""
    data = mp3(tmp_path, info=info)
    alone = heard(given(tmp_path, data))[0].frames
    track, _ = heard(given(tmp_path, data + tag + data))
    assert 2 * alone - 1152 <= track.frames <= 2 * alone + 4 * 1152


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (44100, 1)])
def test_an_mp3_that_changes_in_the_middle(tmp_path: Path, rate: int, channels: int) -> None:
    """It goes on at the rate and with the channels of its start, with a warning."""
    first, second = mp3(tmp_path, info=False), mp3(tmp_path, info=False, rate=rate, channels=channels)
    alone = heard(given(tmp_path, second))[0].frames * 44100 / rate
    track, found = heard(given(tmp_path, first + second))
    assert abs(track.frames - heard(given(tmp_path, first))[0].frames - alone) < 1200
    assert (track.rate, found.shape[1]) == (44100, 2)
    assert any("change in the middle" in warning for warning in track.warnings)


def test_a_last_frame_that_lacks_some_bytes(tmp_path: Path) -> None:
    """Old LAMEs wrote them: a warning. A frame less, and a song is cut short."""
    data = mp3(tmp_path)
    track, _ = heard(given(tmp_path, data[:-20]))
    assert track.frames == FRAMES
    assert any("in the middle of an MPEG frame" in warning for warning in track.warnings)
    assert refused(given(tmp_path, data[:-900])).code is Code.TRUNCATED


def test_nothing_but_an_info_frame(tmp_path: Path) -> None:
    """What an encoder leaves that was stopped at once is no song."""
    data = bytearray(mp3(tmp_path)[:417])
    data[data.find(b"Info") + 4 : data.find(b"Info") + 12] = bytes(8)
    assert refused(given(tmp_path, bytes(data))).code is Code.BAD_AUDIO


# Tags and other bytes around a song


@pytest.mark.parametrize(
    "kind", ["wav-16", "aiff", "vorbis", "opus", "wavpack", "tta", "flac", "mp3", "aac-m4a", "w64"]
)
@pytest.mark.parametrize("tag", [ID3V2, LARGE, ID3V2 * 3], ids=["small", "large", "three"])
def test_a_tag_in_front_changes_nothing(tmp_path: Path, kind: str, tag: bytes) -> None:
    """Taggers put an ID3v2 in front of any format."""
    codec = CODECS[kind]
    codec.write(tmp_path / f"x.{codec.suffix}", original(codec.rate), codec.rate)
    data = (tmp_path / f"x.{codec.suffix}").read_bytes()
    (track, found), (plain, sound) = heard(given(tmp_path, tag + data)), heard(given(tmp_path, data))
    assert track == plain
    assert np.array_equal(found, sound)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    "kind", ["flac", "wavpack", "ac3", "mp2", "aac-adts", "tta", "mp3", "alac-caf", "w64", "vorbis"]
)
def test_bytes_behind_a_song_change_nothing(tmp_path: Path, kind: str, tail: str) -> None:
    """EAC writes an ID3v1 behind a FLAC, others an APEv2 or zeros: what is in front of them is whole."""
    codec = CODECS[kind]
    codec.write(tmp_path / f"x.{codec.suffix}", original(codec.rate), codec.rate)
    data = (tmp_path / f"x.{codec.suffix}").read_bytes()
    found, sound = heard(given(tmp_path, data + TAILS[tail]))[1], heard(given(tmp_path, data))[1]
    assert np.array_equal(found[: len(sound)], sound)
    more = 1152 if kind == "mp3" else 0  # of an MP3 that is longer than its Info frame says, FFmpeg plays the padding
    assert len(found) - len(sound) <= more


@pytest.mark.parametrize("kind", ["mp3", "mp2", "aac-adts", "ac3"])
def test_a_song_without_its_beginning(tmp_path: Path, kind: str) -> None:
    """A recording that begins in the middle of a frame plays from the next one on."""
    codec = CODECS[kind]
    codec.write(tmp_path / f"x.{codec.suffix}", original(), 44100)
    data = (tmp_path / f"x.{codec.suffix}").read_bytes()
    whole = heard(given(tmp_path, data))[0].frames
    assert whole - 6 * 1536 < heard(given(tmp_path, data[1000:]))[0].frames <= whole + 1152


# Containers


def test_bw64(tmp_path: Path) -> None:
    """A BW64 is an RF64 by another name."""
    data = song(tmp_path / "x.wav", original(), format="RF64", subtype="PCM_24").read_bytes()
    track, found = heard(given(tmp_path, b"BW64" + data[4:]))
    assert (track.format, track.subtype, track.frames) == ("wav", "PCM_24", FRAMES)
    assert np.abs(found - original()).max() < 1e-6
    assert refused(given(tmp_path, b"BW64" + data[4:-4000])).code is Code.TRUNCATED


def test_alac_in_caf_whose_last_packet_counts_as_a_whole_one(tmp_path: Path) -> None:
    """FFmpeg up to 5.1 wrote them so; the packets say themselves how long they are."""
    CODECS["alac-caf"].write(tmp_path / "x.caf", original(), 44100)
    data = bytearray((tmp_path / "x.caf").read_bytes())
    at = data.find(b"pakt") + 12
    packets = int.from_bytes(data[at : at + 8], "big")
    data[at + 8 : at + 24] = (packets * 4096).to_bytes(8, "big") + bytes(8)
    assert heard(given(tmp_path, bytes(data)))[0].frames == FRAMES


@pytest.mark.parametrize(("encoder", "codec"), [("aac", "aac"), ("mp2", "mp2")])
def test_mpeg_ts_by_its_content(tmp_path: Path, encoder: str, codec: str) -> None:
    """A transport stream is one under any name."""
    through_ffmpeg("mpegts", encoder, b="256k")(tmp_path / "x.mp3", original(), 44100)
    track, found = heard(tmp_path / "x.mp3")
    assert (track.format, track.codec) == ("mpegts", codec)
    assert FRAMES <= track.frames < FRAMES + 3 * 1152
    assert lag(original(), found) in range(480, 1025)


def test_adpcm_with_a_short_last_block(tmp_path: Path) -> None:
    """The sound of the last block is there too; libsndfile would read whole ones only."""
    through_ffmpeg("wav", "adpcm_ms")(tmp_path / "x.wav", original(), 44100)
    data = bytearray((tmp_path / "x.wav").read_bytes())
    fmt, at = data.find(b"fmt "), data.find(b"data") + 4
    block = int.from_bytes(data[fmt + 20 : fmt + 22], "little")
    size = int.from_bytes(data[at : at + 4], "little") // block * block - block // 4
    data[at : at + 4] = size.to_bytes(4, "little")
    data[4:8] = (at - 4 + size).to_bytes(4, "little")
    whole = heard(tmp_path / "x.wav")[0].frames
    cut = heard(given(tmp_path, bytes(data[: at + 4 + size])))[0].frames
    assert block // 4 - 10 <= whole - cut <= block // 4 + 10  # two samples of stereo in two bytes


def test_opus_whose_first_granule_is_late(tmp_path: Path) -> None:
    """A part of a longer stream counts from the middle of that one, and is as long as it is."""
    CODECS["opus"].write(tmp_path / "x.opus", original(48000), 48000)
    pages = []
    with (tmp_path / "x.opus").open("rb") as file:
        for page in ogg.pages(file):
            granule = int.from_bytes(page.data[ogg.POSITION], "little")
            later = page.data[: ogg.POSITION.start] + (granule + 480_000).to_bytes(8, "little") + page.data[14:]
            pages.append(ogg.renumbered(later if granule else page.data, 7))
    track, found = heard(given(tmp_path, b"".join(pages)))
    assert track.frames == FRAMES
    assert lag(original(48000), found) == 0


@pytest.mark.parametrize("magic", [b"\x03vorbis", b"OpusTags"])
def test_an_ogg_of_too_many_comments(tmp_path: Path, magic: bytes) -> None:
    """FFmpeg compares each comment with all before it: they are counted before."""
    kind = "vorbis" if b"vorbis" in magic else "opus"
    CODECS[kind].write(tmp_path / "x.ogg", original(48000), 48000)
    data = bytearray((tmp_path / "x.ogg").read_bytes())
    at = data.find(magic) + len(magic)
    at += 4 + int.from_bytes(data[at : at + 4], "little")
    data[at : at + 4] = (100_000).to_bytes(4, "little")
    error = refused(given(tmp_path, bytes(data)))
    assert error.code is Code.BAD_AUDIO
    assert "100,000 comments" in error.message


# Bombs


def element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def tags(size: int) -> bytes:
    each = element("67C8", element("45A3", b"A" * 200) + element("4487", b"x"))
    return element("1254C367", element("7373", element("63C0", b"") + each * (size // len(each))))


def streamed(folder: Path) -> tuple[bytes, int]:
    """A Matroska of unknown size, and the byte at which its first cluster begins."""
    through_ffmpeg("matroska", "flac", samples="s16")(folder / "x.mka", original(), 44100)
    data = bytearray((folder / "x.mka").read_bytes())
    at = data.find(matroska.SEGMENT) + 4
    data[at : at + 8] = b"\x01" + b"\xff" * 7
    return bytes(data), data.find(matroska.CLUSTER)


def test_tags_of_a_matroska_are_weighed_before_it_is_opened(tmp_path: Path) -> None:
    """A few are fine; of a megabyte FFmpeg would not come back for minutes."""
    data, at = streamed(tmp_path)
    assert heard(given(tmp_path, data[:at] + tags(2_000) + data[at:]))[0].frames == FRAMES
    error = refused(given(tmp_path, data[:at] + tags(1 << 20) + data[at:]))
    assert error.code is Code.BAD_AUDIO
    assert "its tags have" in error.message


def test_tags_that_a_seek_head_leads_to(tmp_path: Path) -> None:
    """FFmpeg reads them before the song, also where they lie behind it."""
    data, _ = streamed(tmp_path)
    first = data.find(matroska.SEGMENT) + 12
    seek = lambda place: element(  # noqa: E731 - a word for a line
        "114D9B74", element("4DBB", element("53AB", matroska.TAGS) + element("53AC", place.to_bytes(8, "big")))
    )
    grown = len(data) + len(seek(0)) - first
    whole = data[:first] + seek(grown) + data[first:] + tags(1 << 20)
    assert whole[first + grown :].startswith(matroska.TAGS)
    assert "its tags have" in refused(given(tmp_path, whole)).message


def test_attachments_of_gigabytes(tmp_path: Path) -> None:
    """FFmpeg would read and copy them; it gets so many bytes before the first sound, and no more."""
    data, at = streamed(tmp_path)
    size = 4 * opening.OPENING_BYTES
    facts = element("466E", b"a.ttf") + element("4660", b"application/x-truetype-font") + element("46AE", b"\0\0\0\1")
    head = facts + bytes.fromhex("465C") + (size | 1 << 56).to_bytes(8, "big")
    inner = bytes.fromhex("61A7") + (len(head) + size | 1 << 56).to_bytes(8, "big") + head
    path = given(
        tmp_path, data[:at] + bytes.fromhex("1941A469") + (len(inner) + size | 1 << 56).to_bytes(8, "big") + inner
    )
    with path.open("r+b") as file:
        file.seek(size, 2)
        file.write(data[at:])
    error = refused(path)
    assert error.code is Code.BAD_AUDIO
    assert "before its first sound" in error.message


def test_only_sound_is_decoded() -> None:
    """No decoder of pictures is tried, nor one that songs do not have."""
    assert {"mp3float", "aac", "flac", "vorbis", "opus", "alac", "pcm_s16le", "dsd_lsbf"} <= decoders()
    assert not {"h264", "hevc", "mpeg4", "png", "mjpeg", "ass", "wavesynth", "binkaudio_dct"} & decoders()


def test_many_pictures_in_a_flac_are_not_read(tmp_path: Path) -> None:
    """Of a FLAC's metadata its decoder gets the first block alone."""
    data = song(tmp_path / "x.flac", original()).read_bytes()
    size = int.from_bytes(data[5:8], "big")
    head = data[:4] + bytes([data[4] & 0x7F]) + data[5 : 8 + size]
    comment = b"\4" + (16_000_000).to_bytes(3, "big") + bytes(16_000_000)
    path = given(tmp_path, head + comment * 12 + data[8 + size :])
    assert heard(path)[0].frames == FRAMES
    shutil.rmtree(tmp_path)
