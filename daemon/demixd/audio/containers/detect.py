"""What a file declares about itself, read from its own bytes before anything is decoded.

libsndfile shortens a cut WAV to what is there, takes an Ogg's length from its last whole page, plays one of several
chained Ogg streams, and reads nothing from a WAV whose header was never finished. None of that is an error to it, so
the few numbers that tell are read here:

    RIFF, RF64, FORM    the size of the audio chunk against the size of the file
    OggS                intact pages to the end, one stream
    fLaC                nothing: the decoder notices
    FFmpeg's            signatures.py
    anything else       MP3, if frames follow each other (mpeg.py)
"""

from typing import BinaryIO, Literal

import msgspec

from demixd.audio.containers import mpeg, ogg, signatures
from demixd.audio.containers.mpeg import behind_tags, take
from demixd.audio.downmix import OGG, WAVE, masked

Order = Literal["big", "little"]

UNKNOWN = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000)
"""Sizes that mean "until the end" in streamed WAVs: GStreamer's, SoX's, and two that recorders use."""

UNKNOWN_FROM = 0xFFFFFFFF - 4096
"""FFmpeg's 0xFFFFFFFF, and programs that take their header's size off it."""

REST = 1 << 17
"""Bytes to look at behind the last good Ogg page; a page has at most 65,307."""

MOST_CHUNKS = 10_000
"""A WAV has a dozen. In a file of 4 GiB there is room for 500 million, which nobody waits for."""

MOST_PAGES = 5_000_000
"""Pages of an Ogg: 28 hours at one for every packet of 20 ms. They are gone through in 20 s; a file of nothing but headers
would take minutes."""

SAMPLES = (1, 3, 6, 7)
"""Format tags whose block is one frame: PCM, float, A-law, mu-law."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    """`wav`, `aiff`, `flac`, `ogg`, `mp3`, or one of those in signatures.py."""
    demuxer: str = ""
    """FFmpeg's name of what is to read it; empty where libsndfile does."""
    head: bytes = b""
    """What the decoder is to read instead of the first `start` bytes."""
    start: int = 0
    cut: str | None = None
    """How one can tell that the file is cut short, as the end of a sentence."""
    refusal: str | None = None
    """Why it cannot be decoded although it is what it says."""
    bitrate: int | None = None
    """kbit/s, where the container tells."""
    mask: int = 0
    """A WAV's channel mask, 0 without one."""
    ordered: bool = True
    """Whether the order of more than two channels is known at all."""
    warnings: tuple[str, ...] = ()

    def layout(self, channels: int) -> tuple[str, ...] | None:
        """The speaker positions of the channels; None if nobody knows."""
        if self.mask:
            return masked(self.mask, channels)
        return (OGG if self.format == "ogg" else WAVE).get(channels) if self.ordered else None


def look(file: BinaryIO) -> Container | None:
    """What `file` is by its content; None if it is nothing that we read. Its position is lost."""
    size = file.seek(0, 2)
    magic = take(file, 0, 12)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64") and magic[8:] == b"WAVE":
        return _wave(file, size, magic[:4])
    if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        return _aiff(file, size)
    if magic[:4] == b"OggS":
        return _ogg(file)
    if take(file, behind_tags(file), 4) == b"fLaC":
        return Container(format="flac")
    if found := signatures.look(file, size):
        return Container(format=found.format, demuxer=found.demuxer, cut=found.cut)
    return _mp3(file, size)


def _chunks(file: BinaryIO, size: int, order: Order) -> dict[bytes, tuple[int, int]]:
    """Chunk name -> (first byte of its content, declared size), up to the audio or the end of the file."""
    found: dict[bytes, tuple[int, int]] = {}
    at = 12
    for _ in range(MOST_CHUNKS):
        if at + 8 > size or {b"data", b"SSND"} & found.keys():
            break
        head = take(file, at, 8)
        length = int.from_bytes(head[4:], order)
        found.setdefault(head[:4], (at + 8, length))
        at += 8 + length + (length & 1)
    return found


def _wave(file: BinaryIO, size: int, magic: bytes) -> Container:
    order: Order = "big" if magic == b"RIFX" else "little"
    chunks = _chunks(file, size, order)
    if b"data" not in chunks or b"fmt " not in chunks:
        return Container(format="wav", refusal="its header has no format or no audio")
    first, declared = chunks[b"data"]
    fmt = take(file, chunks[b"fmt "][0], 40)
    tag, block = (int.from_bytes(fmt[at : at + 2], order) for at in (0, 12))
    mask = int.from_bytes(fmt[20:24], order) if tag == 0xFFFE and chunks[b"fmt "][1] >= 40 else 0
    if tag == 0xFFFE:
        tag = int.from_bytes(fmt[24:26], order)
    if magic == b"RF64" and b"ds64" in chunks:
        declared = int.from_bytes(take(file, chunks[b"ds64"][0] + 8, 8), "little")
    elif declared in UNKNOWN or declared >= UNKNOWN_FROM:
        return _streamed(file, size, first, declared, mask)
    unit, name = (block, "frames") if tag in SAMPLES and block else (1, "bytes of audio")
    return Container(format="wav", mask=mask, cut=_short((size - first) // unit, declared // unit, name))


def _streamed(file: BinaryIO, size: int, first: int, declared: int, mask: int) -> Container:
    """A WAV whose writer could not go back to fill in the size. Given the right one, libsndfile reads it."""
    riff = int.from_bytes(take(file, 4, 4), "little")
    if declared == 0 and riff + 8 == size:
        return Container(format="wav", mask=mask)  # finished, and really empty
    if 0 < declared < UNKNOWN_FROM and declared <= size - first:
        return Container(format="wav", mask=mask)  # as long as it says, by chance one of those numbers
    length = min(size - first, UNKNOWN_FROM)
    head = take(file, 0, first - 4) + length.to_bytes(4, "little")
    return Container(format="wav", mask=mask, head=head, start=first)


def _aiff(file: BinaryIO, size: int) -> Container:
    chunks = _chunks(file, size, "big")
    if b"SSND" not in chunks:
        return Container(format="aiff", refusal="it has no audio")
    first, declared = chunks[b"SSND"]
    return Container(format="aiff", cut=_short(size - first, declared, "bytes of audio"))


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
    rest = take(file, end, REST)
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
        ordered=take(file, 28, 8) != b"OpusHead" or take(file, 28 + 18, 1) != b"\xff",
        warnings=("The song has no end-of-stream mark; it may be a part of a longer one.",) if endless else (),
    )


def _mp3(file: BinaryIO, size: int) -> Container | None:
    walk = mpeg.walk(file, size)
    if walk is None:
        return None
    if walk.count == mpeg.MOST_FRAMES:
        return Container(format="mp3", refusal="it has more frames than any song")
    told = mpeg.announced(file, walk.first, walk.head)
    held = walk.count - (told is not None)
    warnings: tuple[str, ...] = ()
    if walk.skipped:
        warnings += (f"{walk.skipped:,} bytes in the song are no audio and were skipped.",)
    cut, own = None, False
    if told and (held < told - 1 or (walk.partial and held < told)):  # some writers count the Info frame too
        cut = f"it holds {held * walk.head.samples:,} of {told * walk.head.samples:,} frames"
    elif not told or held > told + 1:
        own = True
        if told:
            warnings += ("The song is longer than its header says; all of it is used.",)
        elif walk.partial:
            warnings += ("The song ends in the middle of an MP3 frame; its end may be missing.",)
    first = walk.first + (walk.head.size if own and told is not None else 0)
    size = walk.size - (walk.head.size if told is not None else 0)
    mean = round(size * 8 * walk.head.kind[1] / (walk.head.samples * max(held, 1)) / 1000)
    return Container(
        format="mp3",
        head=mpeg.info_frame(take(file, first, 4), held) if own else b"",
        start=first,
        cut=cut,
        bitrate=min(walk.bitrates) if len(walk.bitrates) == 1 else mean,
        warnings=warnings,
    )
