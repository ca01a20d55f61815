"""The formats of stems: the samples, rates and bitrates that each can carry, and the library that writes it.

    name   suffix  written by        samples                  rates                    bitrate
    wav    wav     libsndfile        16, 24, 32 bits, float   any                      -
    flac   flac    libsndfile        16, 24 bits              any                      -
    mp3    mp3     FFmpeg, LAME      MPEG layer III           the nine of MPEG         constant, or V0 to V9
    ogg    ogg     libsndfile        Vorbis                   any                      by quality, roughly
    opus   opus    libsndfile        Opus                     the five of Opus         mean, 6 to 256 kbit/s a channel
    m4a    m4a     FFmpeg            AAC                      the thirteen of MPEG-4   mean
    alac   m4a     FFmpeg            16, 24 bits              any                      -

Eight-bit and mu-law songs get 16-bit stems: a stem is quieter than its song and would drown in the noise of eight bits.
Double-precision songs get float stems: between the steps audio is float32, the other half would be zeros. DSD has one bit
at a rate that nothing else has: its stems have 24 bits at what is left of the rate when it is halved to 192 kHz or less.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise

import msgspec

from demixd.errors import AudioProcessingError, Code
from demixd.protocol.track import Track


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """A format of stems. What a new one needs, tests/README.md says under "To add an output format"."""

    suffix: str
    container: str
    """libsndfile's major format; with an `encoder` FFmpeg's muxer."""
    subtypes: dict[str, str]
    """Depth as the options spell it -> libsndfile's subtype. A lossy format has one, under `""`."""
    rates: tuple[int, ...] = ()
    """All the rates that it carries, ascending; empty means any."""
    encoder: str = ""
    """FFmpeg's encoder; empty where libsndfile writes."""

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
        container="mp3",
        encoder="libmp3lame",
        subtypes={"": "MPEG_LAYER_III"},
        rates=(8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    ),
    "ogg": Format(suffix="ogg", container="OGG", subtypes={"": "VORBIS"}),
    "opus": Format(suffix="opus", container="OGG", subtypes={"": "OPUS"}, rates=(8000, 12000, 16000, 24000, 48000)),
    "m4a": Format(
        suffix="m4a",
        container="ipod",
        encoder="aac",
        subtypes={"": "AAC"},
        rates=(7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    ),
    "alac": Format(suffix="m4a", container="ipod", encoder="alac", subtypes={"16": "ALAC_16", "24": "ALAC_24"}),
}

OWN = {"flac": "flac", "mp3": "mp3", "vorbis": "ogg", "opus": "opus", "aac": "m4a", "alac": "alac"}
"""A song's codec -> the format of its stems under `source`; that of any other is WAV."""

DEPTHS = {
    **dict.fromkeys(("PCM_24", "ALAC_24", "DSD"), "24"),
    **dict.fromkeys(("PCM_32", "ALAC_32"), "32"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "float"),
}
"""A song's subtype -> the depth of its stems under `source`; that of any other is 16 bits."""

BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "ALAC_16": 16, "ALAC_24": 24}
"""Bits of the integer subtypes."""

DITHERED = 24
"""Bits up to which integers are dithered; above, float32 samples have no finer steps to round."""

VBR = {"V0": 245, "V1": 225, "V2": 190, "V3": 175, "V4": 165, "V5": 130, "V6": 115, "V7": 100, "V8": 85, "V9": 65}
"""LAME's qualities of variable bitrate -> mean kbit/s of stereo, by LAME's documentation."""

HIGHEST = 192_000
"""Hz: the highest rate of the stems of a DSD."""

MPEG_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MPEG_2_5 = (8, 16, 24, 32, 40, 48, 56, 64)
"""kbit/s of layer III in MPEG-1, -2 and -2.5; in MPEG-2.5, LAME goes up to 64."""

VORBIS = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)
"""Nominal kbit/s of stereo at 44.1 kHz for Vorbis' qualities 0 to 10, by Xiph's table."""

FULL_SCALE = 1.0
"""The largest magnitude of a float sample that no player clips."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The format, rate and bitrate that a stem's file will have."""

    format: str
    """A key of FORMATS."""
    subtype: str
    rate: int
    """Hz of the file, and of the blocks given to be written: where the song's rate is another, those are resampled before."""
    channels: int
    bitrate: int | None = None
    """kbit/s of a lossy format."""
    vbr: int | None = None
    """LAME's quality of variable bitrate, 0 to 9, instead of `bitrate`."""
    quality: int | None = None
    """LAME's effort, 0 to 9."""

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
    quality: int = 3,
) -> tuple[Target, tuple[str, ...]]:
    """The target of a song's stems, and a warning for each option that the format cannot meet exactly. Raises BAD_OPTIONS."""
    name = _source_format(track) if format == "source" else format
    if name not in FORMATS:
        raise _bad_option("format", format, ("source", *FORMATS))
    chosen = FORMATS[name]
    subtype, warnings = _subtype(track, name, chosen, str(bit_depth))
    if clip == "none" and subtype != "FLOAT":
        message = "clip = none needs samples that can pass full scale; set format = wav and bit_depth = float."
        raise AudioProcessingError(Code.BAD_OPTIONS, message)
    wanted = _rate(track) if rate == "source" else int(rate)
    carried = _next(chosen.rates, wanted) if chosen.rates else wanted
    if carried != (track.rate if rate == "source" else wanted):
        cannot = f"{name} cannot carry {wanted} Hz" if carried != wanted else "DSD has a rate that no stem can have"
        warnings += (f"{cannot}; the stems have {carried} Hz.",)
    target = Target(
        format=name,
        subtype=subtype,
        rate=carried,
        channels=track.channels,
        bitrate=bitrate_for(name, _kbit_s(track, bitrate), carried, track.channels),
    )
    if name == "mp3":
        target = msgspec.structs.replace(target, quality=quality)
        if bitrate in VBR:
            target = msgspec.structs.replace(target, bitrate=None, vbr=int(str(bitrate)[1:]))
    return target, warnings


def _rate(track: Track) -> int:
    """Hz of a song's stems under `source`: the song's, but of a DSD, halved until it is at most HIGHEST."""
    rate = track.rate
    while track.subtype == "DSD" and rate > HIGHEST:
        rate //= 2
    return rate


def _kbit_s(track: Track, bitrate: int | str) -> int:
    if bitrate == "source":
        return track.bitrate or 320
    return VBR[bitrate] if isinstance(bitrate, str) else bitrate


def _next(rates: tuple[int, ...], wanted: int) -> int:
    """The next of ascending `rates` from `wanted` up, which loses nothing of it; the highest where none is higher."""
    return rates[min(bisect_left(rates, wanted), len(rates) - 1)]


def nearest(values: tuple[int, ...], wanted: float) -> int:
    """The nearest to `wanted` among ascending `values`; of two as near, the higher."""
    at = bisect_left(values, wanted)
    return min(values[max(at - 1, 0) : at + 1], key=lambda value: (abs(value - wanted), -value))


def mp3_bitrates(rate: int) -> tuple[int, ...]:
    """The bitrates of layer III at a rate in Hz, kbit/s."""
    if rate >= 32000:
        return MPEG_1
    return MPEG_2 if rate >= 16000 else MPEG_2_5


def bitrate_for(format: str, wanted: int, rate: int, channels: int) -> int | None:
    """The kbit/s that the encoder is set to: `wanted`, or the nearest that the format can have. None: it has no bitrate."""
    if format == "mp3":
        return nearest(mp3_bitrates(rate), wanted)
    if format == "m4a":
        # A frame of AAC has at most 6,144 bits a channel, for 1,024 frames of audio (ISO/IEC 14496-3, 4.5.1.1).
        return min(max(wanted, 8 * channels), 6 * rate * channels // 1000)
    if format == "opus":
        return min(max(wanted, 6 * channels), 256 * channels)
    return wanted if format == "ogg" else None


def compression_level(format: str, bitrate: int, channels: int) -> float:
    """libsndfile's compression level, 0 (largest file) to 1 (smallest), for a bitrate in kbit/s.

    Opus: kbit/s of each channel = 6 + (1 - level) x 250 (ogg_opus.c, ogg_opus_command).
    Vorbis: level = 1 - quality / 10; the quality comes from the table, where mono counts as half of stereo. Vorbis has no
    fixed bitrate: music measured 1.0 to 1.1 times the table's for stereo at 44.1 kHz, half of it at 22 kHz.
    """
    size = (bitrate / channels - 6) / 250 if format == "opus" else _vorbis_quality(bitrate * 2 / channels) / 10
    return min(max(1 - size, 0.0), 1.0)


def _vorbis_quality(kbit_s: float) -> float:
    for quality, (low, high) in enumerate(pairwise(VORBIS)):
        if kbit_s <= high:
            return max(quality + (kbit_s - low) / (high - low), 0.0)
    return 10.0


def ceiling(subtype: str) -> float:
    """The highest sample that a stem may have: with integers of `b` bits one step below full scale, since 2^(b-1) is no value.

    Where dither is added, which is less than a step (dither.py), it is one step lower.
    """
    bits = BITS.get(subtype)
    if bits is None:
        return FULL_SCALE
    return 1 - (2 if bits <= DITHERED else 1) * 2.0 ** (1 - bits)


def _source_format(track: Track) -> str:
    return OWN.get(track.codec, "wav")


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
    samples = f"{depth}-bit samples" if depth.isdigit() else f"{depth} samples"
    return chosen.subtypes[best], (f"{name} cannot carry {samples}; the stems have {best} bits.",)


def _bad_option(key: str, value: object, offered: Iterable[str]) -> AudioProcessingError:
    return AudioProcessingError(Code.BAD_OPTIONS, f"{key} = {value} is not offered; choose from {', '.join(offered)}.")
