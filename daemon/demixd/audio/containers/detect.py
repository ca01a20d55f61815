"""Which format a song has, and whether it is whole, by its first bytes and the sizes it declares; nothing is decoded.

libsndfile shortens a cut WAV to what is there, FFmpeg plays an Ogg up to its last whole page, and neither reads a WAV
whose header was never finished. None of that is an error to them. So the few numbers that show it are read here:

    RIFF, RF64, BW64, FORM    the size of the audio chunk against the size of the file
    OggS                      intact pages to the end
    fLaC                      nothing: FFmpeg knows its length, and gets it without its tags
    other signatures          signatures.py
    anything else             an MP3, if frames follow each other in it (mpeg.py)
"""

from typing import BinaryIO

import msgspec

from demixd.audio.containers import mpeg, ogg, riff, signatures
from demixd.audio.containers.edges import read_at
from demixd.audio.downmix import WAVE, masked

UNKNOWN = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000)
"""Sizes that mean "until the end" in streamed WAVs: GStreamer's, SoX's, and two that recorders use."""

UNKNOWN_FROM = 0xFFFFFFFF - 4096
"""From here on too: FFmpeg writes 0xFFFFFFFF, and some programs that less the size of their header."""

REST = 1 << 17
"""Bytes that are searched behind the last good Ogg page; a page has at most 65,307."""

MOST_PAGES = 5_000_000
"""Pages of an Ogg: 28 hours with one page for each packet of 20 ms. They are walked in 20 s; a file of nothing but page
headers would take minutes."""

MOST_COMMENTS = 5_000
"""Comments of an Ogg. Most have a dozen; FFmpeg compares each with all before it."""

MOST_BLOCKS = 10_000
"""Blocks of metadata in a FLAC."""

SAMPLES = (1, 3, 6, 7)
"""Format tags whose block is one frame: PCM, float, A-law, mu-law. libsndfile reads those, FFmpeg the others: of ADPCM
libsndfile leaves out a last block that is a short one."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """What a song's bytes say before it is decoded."""

    format: str
    """`wav`, `aiff`, `flac`, `ogg`, `mp3`, or one of those in signatures.py."""
    demuxer: str
    """FFmpeg's demuxer for it."""
    samples: bool = False
    """Whether it holds samples as they are, which libsndfile reads."""
    head: bytes = b""
    """Bytes that the decoder gets in place of the first `start`."""
    start: int = 0
    stop: int | None = None
    """The first byte behind the song, where its decoder takes what follows for a part of it."""
    announced: int | None = None
    """Frames of an MP3, of its codec, by its Info frame."""
    cut: str | None = None
    """The sign that the file is cut short, as the end of a sentence; None where there is none."""
    refusal: str | None = None
    """Why a file of this format cannot be decoded."""
    mask: int = 0
    """A WAV's channel mask, 0 without one."""
    warnings: tuple[str, ...] = ()

    def layout(self, channels: int) -> tuple[str, ...] | None:
        """The speaker positions of the channels; None where they are unknown."""
        if self.mask:
            return masked(self.mask, channels)
        return WAVE.get(channels)


def container_of(file: BinaryIO) -> Container | None:
    """The container of `file`, whose first bytes are no ID3v2 tag, by its content; None if it is no audio that can be read.

    Its position is lost. Raises OSError.
    """
    size = file.seek(0, 2)
    magic = read_at(file, 0, 12)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:] == b"WAVE":
        return _wave(file, size, magic[:4])
    if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        return _aiff(file, size)
    if magic[:4] == b"OggS":
        return _ogg(file)
    if magic[:4] == b"fLaC":
        return _flac(file, size)
    if found := signatures.signature_of(file, size):
        return Container(**msgspec.structs.asdict(found))
    return _mp3(file)


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
        return Container(format="wav", demuxer="wav", refusal="its header has no format or no audio")
    first, declared = chunks[b"data"].at, chunks[b"data"].size
    fmt = read_at(file, chunks[b"fmt "].at, 40)
    tag, block = (int.from_bytes(fmt[at : at + 2], order) for at in (0, 12))
    mask = int.from_bytes(fmt[20:24], order) if tag == 0xFFFE and chunks[b"fmt "].size >= 40 else 0
    if tag == 0xFFFE:
        tag = int.from_bytes(fmt[24:26], order)
    plain = tag in SAMPLES
    whole = Container(format="wav", demuxer="wav", samples=plain, mask=mask)
    if magic in (b"RF64", b"BW64") and b"ds64" in chunks:
        declared = riff.ds64_audio(file, chunks[b"ds64"])
    elif declared in UNKNOWN or declared >= UNKNOWN_FROM:
        return _streamed(file, size, first, declared, whole)
    unit, name = (block, "frames") if plain and block else (1, "bytes of audio")
    cut = _short((size - first) // unit, declared // unit, name)
    head = b"RF64" if magic == b"BW64" else b""  # the same (ITU-R BS.2088) by a name that libsndfile does not know
    return msgspec.structs.replace(whole, cut=cut, head=head, start=len(head))


def _streamed(file: BinaryIO, size: int, first: int, declared: int, whole: Container) -> Container:
    """A WAV whose writer could not go back and fill in the size. It is read once the size is right, in `head`."""
    riff = int.from_bytes(read_at(file, 4, 4), "little")
    if declared == 0 and riff + 8 == size:
        return whole  # finished, and empty
    if 0 < declared < UNKNOWN_FROM and declared <= size - first:
        return whole  # its true size, which is by chance one of those numbers
    length = min(size - first, UNKNOWN_FROM)
    head = read_at(file, 0, first - 4) + length.to_bytes(4, "little")
    return msgspec.structs.replace(whole, head=head, start=first)


def _aiff(file: BinaryIO, size: int) -> Container:
    audio = _chunks(file, "big").get(b"SSND")
    if audio is None:
        return Container(format="aiff", demuxer="aiff", refusal="it has no audio")
    return Container(
        format="aiff", demuxer="aiff", samples=True, cut=_short(size - audio.at, audio.size, "bytes of audio")
    )


def _short(held: int, declared: int, unit: str) -> str | None:
    return f"it holds {held:,} of {declared:,} {unit}" if held < declared else None


def _flac(file: BinaryIO, size: int) -> Container:
    """A FLAC (RFC 9639, 8) without its tags and pictures: only the first block of metadata says how to decode it."""
    head, at = read_at(file, 4, 38), 4
    if len(head) < 38 or head[0] & 0x7F or head[1:4] != b"\0\0\x22":
        return Container(format="flac", demuxer="flac")
    for _ in range(MOST_BLOCKS):
        block = read_at(file, at, 4)
        at += 4 + int.from_bytes(block[1:], "big")
        if len(block) < 4 or block[0] & 0x80:
            break
    cut = _short(size, at, "bytes of its header")
    return Container(format="flac", demuxer="flac", head=b"fLaC\x80" + head[1:], start=at, cut=cut)


def _ogg(file: BinaryIO) -> Container:
    end, flags, cut = 0, 0, None
    for number, page in enumerate(ogg.pages(file)):
        if number == MOST_PAGES:
            return Container(format="ogg", demuxer="ogg", refusal="it has more pages than any song")
        if page.comments > MOST_COMMENTS:
            return Container(format="ogg", demuxer="ogg", refusal=f"it has {page.comments:,} comments; take them out")
        if not page.intact:
            cut = f"the Ogg page at byte {page.at:,} is damaged"
            break
        flags, end = page.flags, page.at + len(page.data)
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
        demuxer="ogg",
        cut=cut,
        warnings=("The song has no end-of-stream mark; it may be a part of a longer one.",) if endless else (),
    )


def _mp3(file: BinaryIO) -> Container | None:
    first = mpeg.first_frame(file)
    if first is None:
        return None
    skipped = (f"{first:,} bytes in the song are no audio and were skipped.",) if first else ()
    told = mpeg.announced(file, first)
    # FFmpeg looks for the Info frame at the first byte only.
    return Container(format="mp3", demuxer="mp3", start=first, announced=told, warnings=skipped)
