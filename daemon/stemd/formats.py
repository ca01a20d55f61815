"""The formats that stems are written in: what each one can carry, and how libsndfile wants to be told.

    name   suffix  libsndfile  samples                        rates            bitrate
    wav    wav     WAV, RF64   16, 24, 32 bits, float         any              -
    flac   flac    FLAC        16, 24 bits                    any              -
    mp3    mp3     MP3         MPEG layer III                 the nine of MPEG constant, the standard steps
    ogg    ogg     OGG         Vorbis                         any              by quality, roughly
    opus   opus    OGG         Opus                           the five of Opus mean, 6 to 256 kbit/s a channel

Eight-bit and mu-law songs get 16-bit stems: a stem is quieter than its song and would drown in the noise of eight bits.
Double-precision songs get float stems: between the steps audio is float32, the other half would be zeros.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise

import msgspec

from stemd.errors import AudioProcessingError, Code
from stemd.track import Track


class Format(msgspec.Struct, frozen=True, kw_only=True):
    suffix: str
    container: str
    """libsndfile's major format."""
    subtypes: dict[str, str]
    """Depth as the options spell it -> libsndfile's subtype. A lossy format has one, under `""`."""
    rates: tuple[int, ...] = ()
    """All the rates that it carries, ascending; empty means any."""

    @property
    def lossy(self) -> bool:
        return "" in self.subtypes


FORMATS = {
    "wav": Format(
        suffix="wav",
        container="WAV",
        subtypes={"16": "PCM_16", "24": "PCM_24", "32": "PCM_32", "float": "FLOAT"},
    ),
    "flac": Format(suffix="flac", container="FLAC", subtypes={"16": "PCM_16", "24": "PCM_24"}),
    "mp3": Format(
        suffix="mp3",
        container="MP3",
        subtypes={"": "MPEG_LAYER_III"},
        rates=(8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    ),
    "ogg": Format(suffix="ogg", container="OGG", subtypes={"": "VORBIS"}),
    "opus": Format(suffix="opus", container="OGG", subtypes={"": "OPUS"}, rates=(8000, 12000, 16000, 24000, 48000)),
}

DEPTHS = {"PCM_24": "24", "PCM_32": "32", "FLOAT": "float", "DOUBLE": "float"}
"""A song's subtype -> the depth of its stems; whatever is not here gets 16 bits."""

BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
"""The integer subtypes."""

MPEG_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MPEG_2_5 = (8, 16, 24, 32, 40, 48, 56, 64)
"""kbit/s of layer III. MPEG-2.5 stops at 64 because libsndfile's scale for it does."""

VORBIS = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)
"""Nominal kbit/s of stereo at 44.1 kHz for the qualities 0 to 10, from Xiph's table."""

FULL_SCALE = 1.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a stem's file is to be."""

    format: str
    """A key of FORMATS."""
    subtype: str
    rate: int
    """Of the file, and so of the blocks to be written: where it is not the song's, they have to be resampled."""
    channels: int
    bitrate: int | None = None
    """kbit/s of a lossy format."""

    @property
    def suffix(self) -> str:
        return FORMATS[self.format].suffix


def choose_target(
    track: Track,
    *,
    format: str = "source",
    bitrate: int | str = 320,
    bit_depth: int | str = "source",
    rate: int | str = "source",
    clip: str = "joint",
) -> tuple[Target, tuple[str, ...]]:
    """The files that a song's stems become, and warnings where the options cannot be had to the letter."""
    name = _source_format(track) if format == "source" else format
    if name not in FORMATS:
        raise _bad_option("format", format, ("source", *FORMATS))
    chosen = FORMATS[name]
    subtype, warnings = _subtype(track, name, chosen, str(bit_depth))
    if clip == "none" and subtype != "FLOAT":
        message = "clip = none needs samples that can pass full scale; set format = wav and bit_depth = float."
        raise AudioProcessingError(Code.BAD_OPTIONS, message)
    wanted = track.rate if rate == "source" else int(rate)
    carried = nearest(chosen.rates, wanted) if chosen.rates else wanted
    if carried != wanted:
        warnings += (f"{name} cannot carry {wanted} Hz; the stems have {carried} Hz.",)
    kbit_s = (track.bitrate or 320) if bitrate == "source" else int(bitrate)
    target = Target(
        format=name,
        subtype=subtype,
        rate=carried,
        channels=track.channels,
        bitrate=bitrate_for(name, kbit_s, carried, track.channels),
    )
    return target, warnings


def nearest(values: tuple[int, ...], wanted: float) -> int:
    """The one of ascending `values` that is nearest to `wanted`; of two as near, the higher."""
    at = bisect_left(values, wanted)
    return min(values[max(at - 1, 0) : at + 1], key=lambda value: (abs(value - wanted), -value))


def mp3_bitrates(rate: int) -> tuple[int, ...]:
    """All that MPEG has at a rate, which are the ends of libsndfile's scale."""
    if rate >= 32000:
        return MPEG_1
    return MPEG_2 if rate >= 16000 else MPEG_2_5


def mp3_offered(rate: int) -> tuple[int, ...]:
    """The bitrates whose frames are large enough for LAME's Info tag: 156 bytes and up to 36, or 21, of header.

    Below them LAME silently writes none, and the stem comes back with other than the song's number of frames.
    """
    samples, tag = (1152, 156 + 36) if rate >= 32000 else (576, 156 + 21)
    return tuple(bitrate for bitrate in mp3_bitrates(rate) if samples * bitrate * 125 // rate >= tag)


def bitrate_for(format: str, wanted: int, rate: int, channels: int) -> int | None:
    """The kbit/s that a file will be asked to have; None where a format has none."""
    if format == "mp3":
        return nearest(mp3_offered(rate), wanted)
    if format == "opus":
        return min(max(wanted, 6 * channels), 256 * channels)
    return wanted if format == "ogg" else None


def compression_level(format: str, bitrate: int, rate: int, channels: int) -> float:
    """libsndfile's one knob, 0 (largest) to 1 (smallest), for a bitrate in kbit/s.

    MP3: kbit/s = high - level x (high - low), cut to whole numbers before LAME sees it (mpeg_l3_encode.c,
    mpeg_l3_encoder_set_quality). Half a step is added so that rounding cannot fall below the wanted number, and so that
    the level stays below 1: soundfile sets it first and the mode afterwards, and LAME refuses it as a quality of 10.
    Opus: kbit/s of each channel = 6 + (1 - level) x 250 (ogg_opus.c, ogg_opus_command).
    Vorbis: level = 1 - quality / 10; the quality comes from the table, where mono counts as half of stereo. Vorbis
    decides by what it hears: music measured 1.0 to 1.1 times the number for stereo at 44.1 kHz, half of it at 22 kHz.
    """
    if format == "mp3":
        steps = mp3_bitrates(rate)
        level = (steps[-1] - bitrate - 0.5) / (steps[-1] - steps[0])
    elif format == "opus":
        level = 1 - (bitrate / channels - 6) / 250
    else:
        level = 1 - _vorbis_quality(bitrate * 2 / channels) / 10
    return min(max(level, 0.0), 1.0)


def _vorbis_quality(kbit_s: float) -> float:
    for quality, (low, high) in enumerate(pairwise(VORBIS)):
        if kbit_s <= high:
            return max(quality + (kbit_s - low) / (high - low), 0.0)
    return 10.0


def ceiling(subtype: str) -> float:
    """The highest sample that a format holds: of `b` bits one step below full scale, since 2^(b-1) is no value."""
    bits = BITS.get(subtype)
    return FULL_SCALE if bits is None else 1 - 2.0 ** (1 - bits)


def _source_format(track: Track) -> str:
    if track.format == "ogg":
        return "opus" if track.subtype == "OPUS" else "ogg"
    return track.format if track.format in FORMATS else "wav"


def _subtype(track: Track, name: str, chosen: Format, bit_depth: str) -> tuple[str, tuple[str, ...]]:
    """libsndfile's subtype, and a warning if the format cannot carry the depth that was asked for."""
    if chosen.lossy:
        return chosen.subtypes[""], ()
    if bit_depth not in ("source", *FORMATS["wav"].subtypes):
        raise _bad_option("bit_depth", bit_depth, ("source", *FORMATS["wav"].subtypes))
    depth = DEPTHS.get(track.subtype, "16") if bit_depth == "source" else bit_depth
    if depth in chosen.subtypes:
        return chosen.subtypes[depth], ()
    best = list(chosen.subtypes)[-1]
    return chosen.subtypes[best], (f"{name} cannot carry {depth} samples; the stems have {best} bits.",)


def _bad_option(key: str, value: object, offered: Iterable[str]) -> AudioProcessingError:
    return AudioProcessingError(Code.BAD_OPTIONS, f"{key} = {value} is not offered; choose from {', '.join(offered)}.")
