"""Which format a song has, and whether it is whole, by its first bytes and the sizes it declares; nothing is decoded.

libsndfile shortens a cut WAV to what is there, takes an Ogg's length from its last whole page, plays one of several
chained Ogg streams, and reads nothing from a WAV whose header was never finished. None of that is an error to it. So
the few numbers that show it are read here:

    RIFF, RF64, FORM    the size of the audio chunk against the size of the file
    OggS                intact pages to the end, one stream
    fLaC                nothing: the decoder fails where a FLAC is cut
    read by FFmpeg      signatures.py
    anything else       an MP3, if its frames follow each other (mpeg.py)
"""

from typing import BinaryIO

import msgspec

from demixd.audio.containers import mpeg, ogg, riff, signatures
from demixd.audio.containers.mpeg import behind_tags, read_at
from demixd.audio.downmix import OGG, WAVE, masked

UNKNOWN = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000)
"""Sizes that mean "until the end" in streamed WAVs: GStreamer's, SoX's, and two that recorders use."""

UNKNOWN_FROM = 0xFFFFFFFF - 4096
"""From here on too: FFmpeg writes 0xFFFFFFFF, and some programs that less the size of their header."""

REST = 1 << 17
"""Bytes that are searched behind the last good Ogg page; a page has at most 65,307."""

MOST_PAGES = 5_000_000
"""Pages of an Ogg: 28 hours with one page for each packet of 20 ms. They are walked in 20 s; a file of nothing but page
headers would read_at minutes."""

SAMPLES = (1, 3, 6, 7)
"""Format tags whose block is one frame: PCM, float, A-law, mu-law."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """What a song's bytes say before it is decoded."""

    format: str
    """`wav`, `aiff`, `flac`, `ogg`, `mp3`, or one of those in signatures.py."""
    demuxer: str = ""
    """FFmpeg's demuxer for it; empty where libsndfile reads it."""
    head: bytes = b""
    """Bytes that the decoder gets in place of the first `start`."""
    start: int = 0
    cut: str | None = None
    """The sign that the file is cut short, as the end of a sentence; None where there is none."""
    refusal: str | None = None
    """Why a file of this format cannot be decoded."""
    bitrate: int | None = None
    """kbit/s, where the container says."""
    mask: int = 0
    """A WAV's channel mask, 0 without one."""
    ordered: bool = True
    """Whether the order of more than two channels is known."""
    warnings: tuple[str, ...] = ()

    def layout(self, channels: int) -> tuple[str, ...] | None:
        """The speaker positions of the channels; None where they are unknown."""
        if self.mask:
            return masked(self.mask, channels)
        return (OGG if self.format == "ogg" else WAVE).get(channels) if self.ordered else None


def container_of(file: BinaryIO) -> Container | None:
    """The container of `file` by its content; None if it is no audio that can be read. Its position is lost."""
    size = file.seek(0, 2)
    magic = read_at(file, 0, 12)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64") and magic[8:] == b"WAVE":
        return _wave(file, size, magic[:4])
    if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        return _aiff(file, size)
    if magic[:4] == b"OggS":
        return _ogg(file)
    if read_at(file, behind_tags(file), 4) == b"fLaC":
        return Container(format="flac")
    if found := signatures.signature_of(file, size):
        return Container(format=found.format, demuxer=found.demuxer, cut=found.cut)
    return _mp3(file, size)


def _chunks(file: BinaryIO, order: riff.Order) -> dict[bytes, riff.Chunk]:
    """The first chunk of each name, up to the audio."""
    found: dict[bytes, riff.Chunk] = {}
    for chunk in riff.walk(file, order):
        found.setdefault(chunk.name, chunk)
        if chunk.name in (b"data", b"SSND"):
            break
    return found


def _wave(file: BinaryIO, size: int, magic: bytes) -> Container:
    order: riff.Order = "big" if magic == b"RIFX" else "little"
    chunks = _chunks(file, order)
    if b"data" not in chunks or b"fmt " not in chunks:
        return Container(format="wav", refusal="its header has no format or no audio")
    first, declared = chunks[b"data"].at, chunks[b"data"].size
    fmt = read_at(file, chunks[b"fmt "].at, 40)
    tag, block = (int.from_bytes(fmt[at : at + 2], order) for at in (0, 12))
    mask = int.from_bytes(fmt[20:24], order) if tag == 0xFFFE and chunks[b"fmt "].size >= 40 else 0
    if tag == 0xFFFE:
        tag = int.from_bytes(fmt[24:26], order)
    if magic == b"RF64" and b"ds64" in chunks:
        declared = riff.ds64_audio(file, chunks[b"ds64"])
    elif declared in UNKNOWN or declared >= UNKNOWN_FROM:
        return _streamed(file, size, first, declared, mask)
    unit, name = (block, "frames") if tag in SAMPLES and block else (1, "bytes of audio")
    return Container(format="wav", mask=mask, cut=_short((size - first) // unit, declared // unit, name))


def _streamed(file: BinaryIO, size: int, first: int, declared: int, mask: int) -> Container:
    """A WAV whose writer could not go back and fill in the size. libsndfile reads it once the size is right, in `head`."""
    riff = int.from_bytes(read_at(file, 4, 4), "little")
    if declared == 0 and riff + 8 == size:
        return Container(format="wav", mask=mask)  # finished, and empty
    if 0 < declared < UNKNOWN_FROM and declared <= size - first:
        return Container(format="wav", mask=mask)  # its true size, which is by chance one of those numbers
    length = min(size - first, UNKNOWN_FROM)
    head = read_at(file, 0, first - 4) + length.to_bytes(4, "little")
    return Container(format="wav", mask=mask, head=head, start=first)


def _aiff(file: BinaryIO, size: int) -> Container:
    audio = _chunks(file, "big").get(b"SSND")
    if audio is None:
        return Container(format="aiff", refusal="it has no audio")
    return Container(format="aiff", cut=_short(size - audio.at, audio.size, "bytes of audio"))


def _short(held: int, declared: int, unit: str) -> str | None:
    return f"it holds {held:,} of {declared:,} {unit}" if held < declared else None


def _ogg(file: BinaryIO) -> Container:
    end, flags, begun, chained, cut = 0, 0, False, False, None
    for number, page in enumerate(ogg.pages(file)):
        if number == MOST_PAGES:
            return Container(format="ogg", refusal="it has more pages than any song")
        if not page.intact:
            cut = f"the Ogg page at byte {page.at:,} is damaged"
            break
        flags, end = page.flags, page.at + len(page.data)
        chained |= bool(begun and flags & ogg.BEGINS)
        begun |= not flags & ogg.BEGINS
    rest = read_at(file, end, REST)
    if ogg.MAGIC in rest and not cut:
        cut = (
            "it ends in the middle of an Ogg page"
            if rest.startswith(ogg.MAGIC)
            else "some of its Ogg pages are damaged"
        )
    elif rest and not any(rest) and not flags & ogg.ENDS:
        cut = "it holds zeros where Ogg pages should be"
    endless = not cut and not flags & ogg.ENDS
    return Container(
        format="ogg",
        cut=cut,
        refusal="it holds several Ogg streams one after another; save it as one" if chained else None,
        ordered=read_at(file, 28, 8) != b"OpusHead" or read_at(file, 28 + 18, 1) != b"\xff",
        warnings=("The song has no end-of-stream mark; it may be a part of a longer one.",) if endless else (),
    )


def _mp3(file: BinaryIO, size: int) -> Container | None:
    walk = mpeg.walk(file, size)
    if walk is None:
        return None
    if walk.count == mpeg.MOST_FRAMES:
        return Container(format="mp3", refusal="it has more frames than any song")
    announced = mpeg.announced(file, walk.first, walk.head)
    held = walk.count - (announced is not None)
    warnings: tuple[str, ...] = ()
    if walk.skipped:
        warnings += (f"{walk.skipped:,} bytes in the song are no audio and were skipped.",)
    cut, own = None, False
    if announced and (
        held < announced - 1 or (walk.partial and held < announced)
    ):  # some writers count the Info frame too
        cut = f"it holds {held * walk.head.samples:,} of {announced * walk.head.samples:,} frames"
    elif not announced or held > announced + 1:
        own = True
        if announced:
            warnings += ("The song is longer than its header says; all of it is used.",)
        elif walk.partial:
            warnings += ("The song ends in the middle of an MP3 frame; its end may be missing.",)
    first = walk.first + (walk.head.size if own and announced is not None else 0)
    size = walk.size - (walk.head.size if announced is not None else 0)
    mean = round(size * 8 * walk.head.kind[1] / (walk.head.samples * max(held, 1)) / 1000)
    return Container(
        format="mp3",
        head=mpeg.info_frame(read_at(file, first, 4), held) if own else b"",
        start=first,
        cut=cut,
        bitrate=min(walk.bitrates) if len(walk.bitrates) == 1 else mean,
        warnings=warnings,
    )
