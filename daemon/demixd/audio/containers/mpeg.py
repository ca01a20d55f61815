"""The frames of an MP3 file, by their headers (ISO/IEC 11172-3, 2.4.1.3).

    [ID3v2]* [junk] FRAME FRAME FRAME ... [APE, ID3v1, junk]

mpg123, by which libsndfile decodes, finds audio in anything (a JPEG, a text). In a file whose first frame is no Info
frame it takes the length from the size of the first frames: half of a song with a variable bitrate was missing, without
an error. So a file is an MP3 only if frames follow each other, they are counted here (20 ms for a song), and a file
whose Info frame is missing or wrong is decoded with one of ours in front.

A header is 32 bits, AAAAAAAA AAABBCCD EEEEFFGH IIJJKLMM: A sync, B version, C layer, D no checksum, E bitrate, F rate,
G padding, I mode. The Info (or Xing) frame is a silent first frame that says how many frames follow.
"""

from typing import BinaryIO

import msgspec

from demixd.audio.formats import MPEG_1, MPEG_2

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Version bits (MPEG-1, -2, -2.5) -> rates."""

RUN = 4
"""Frames in a row that show an MP3: each repeats 17 bits of the first, where the one before ends, which chance does not."""

REACH = 1 << 16
"""Bytes that are searched for the first frame, and for the next one behind damage."""

ID3_HEADER = 10
"""Bytes of an ID3v2 tag's header, and of its footer."""

MOST_TAGS = 100
"""ID3v2 tags in a row; the smallest has 10 bytes, and a file of 4 GiB would hold 400 million."""

MOST_JUNK = 4 << 20
"""Bytes between frames that are searched; each can cost a look for a run of frames."""

MOST_FRAMES = 20_000_000
"""Six days of music, counted in half a minute."""

TAG = 156
"""Bytes of a LAME tag, from the word Info to its CRC."""

TRAILERS = (b"TAG", b"APET", b"LYRI", b"ID3")


class Header(msgspec.Struct, frozen=True):
    """A frame's header. `samples`: frames of audio in it; `bitrate`: kbit/s."""

    kind: tuple[int, int]
    """Version and rate: the same in every frame of a song."""
    samples: int
    bitrate: int
    size: int
    """Bytes, header included."""
    info: int
    """The byte in the frame at which an Info tag lies: behind the header, the checksum and the side information."""


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """All frames of a file. An Info frame counts as the first of them."""

    first: int
    """The byte at which the first frame begins."""
    head: Header
    count: int
    size: int
    """Bytes in frames."""
    skipped: int
    """Bytes before, between and behind the frames that are no tags."""
    partial: bool
    """Whether the file ends inside the last frame; that one is not counted."""
    bitrates: frozenset[int]


def header(raw: bytes) -> Header | None:
    """A frame's header from its first four bytes; None if they are not one of layer III."""
    if len(raw) < 4 or raw[0] != 0xFF or raw[1] & 0xE6 != 0xE2:
        return None
    version, rate_at, bitrate_at = raw[1] >> 3 & 3, raw[2] >> 2 & 3, raw[2] >> 4
    if version == 1 or rate_at == 3 or bitrate_at in (0, 15):
        return None
    rate = RATES[version][rate_at]
    bitrate = (MPEG_1 if version == 3 else MPEG_2)[bitrate_at - 1]
    samples = 1152 if version == 3 else 576
    mono = raw[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return Header(
        kind=(version, rate),
        samples=samples,
        bitrate=bitrate,
        size=samples * bitrate * 125 // rate + (raw[2] >> 1 & 1),
        info=4 + side + (0 if raw[1] & 1 else 2),
    )


def walk(file: BinaryIO, size: int) -> Walk | None:
    """Every frame of a file of `size` bytes; None if it is no MP3."""
    start = behind_tags(file)
    first = _find(file, size, start, None)
    if first is None or (head := header(read_at(file, first, 4))) is None:
        return None
    at, count, used, skipped, partial = first, 0, 0, first - start, False
    bitrates = set()
    while count < MOST_FRAMES:
        frame = header(read_at(file, at, 4))
        if frame is None or frame.kind != head.kind:
            if skipped > MOST_JUNK or (found := _find(file, size, at, head.kind)) is None:
                break
            skipped += found - at
            at = found
        elif partial := at + frame.size > size:
            break
        else:
            bitrates.add(frame.bitrate)
            count, used, at = count + 1, used + frame.size, at + frame.size
    if not partial and not read_at(file, at, 4).startswith(TRAILERS):
        skipped += size - at
    return Walk(
        first=first, head=head, count=count, size=used, skipped=skipped, partial=partial, bitrates=frozenset(bitrates)
    )


def announced(file: BinaryIO, first: int, head: Header) -> int | None:
    """How many frames the Info frame at `first` says follow it; None without one, 0 if it does not say."""
    tag = read_at(file, first + head.info, 12)
    if tag[:4] not in (b"Info", b"Xing"):
        return None
    return int.from_bytes(tag[8:12], "big") if len(tag) == 12 and tag[7] & 1 else 0


def info_frame(like: bytes, frames: int) -> bytes:
    """An Info frame announcing `frames`, for a stream whose frames begin with the four bytes `like`."""
    raw = bytes([like[0], like[1] | 1, like[2] & 0x0D | 0x90, like[3]])  # no checksum, no padding, the ninth bitrate
    head = header(raw)
    assert head is not None
    tag = b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (raw + bytes(head.info - 4) + tag).ljust(head.size, b"\0")


def note_length(file: BinaryIO, frames: int) -> None:
    """Write into the LAME tag of a finished MP3 how many samples at its end are padding, so that it has `frames` frames.

    FFmpeg notes at most one MP3 frame of padding, and players would play up to 46 samples more than the song. The tag
    (LAME's "Info tag" rev 1) has delay and padding at its byte 141, 12 bits each, and at byte 154 the CRC-16 of all before
    it, the frame's header included.
    """
    head = header(read_at(file, 0, 4))
    told = announced(file, 0, head) if head else None
    if head is None or not told:
        return
    frame = bytearray(read_at(file, 0, head.info + TAG))
    delay = int.from_bytes(frame[head.info + 141 : head.info + 144], "big") >> 12
    padding = told * head.samples - delay - frames
    frame[head.info + 141 : head.info + 144] = (delay << 12 | padding & 0xFFF).to_bytes(3, "big")
    frame[-2:] = _crc16(frame[:-2]).to_bytes(2, "big")
    file.seek(0)
    file.write(frame)


def _crc16(data: bytes | bytearray) -> int:
    """CRC-16/ARC."""
    found = 0
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0xA001 if found & 1 else 0)
    return found


def behind_tags(file: BinaryIO) -> int:
    """The first byte behind any ID3v2 tags."""
    at = 0
    for _ in range(MOST_TAGS):
        length = id3_length(read_at(file, at, ID3_HEADER))
        if not length:
            break
        at += length
    return at


def id3_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins with `head`, header and footer included; 0 where none does.

    The header has 10 bytes: "ID3", two of version, flags (0x10: a footer of 10 bytes), and the rest's length in four
    times seven bits (ID3v2.4, 3.1).
    """
    if len(head) < ID3_HEADER or not head.startswith(b"ID3"):
        return 0
    rest = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:ID3_HEADER], (21, 14, 7, 0), strict=True))
    return ID3_HEADER + rest + (ID3_HEADER if head[5] & 0x10 else 0)


def _find(file: BinaryIO, size: int, start: int, kind: tuple[int, int] | None) -> int | None:
    """The first byte, from `start` on, at which frames begin that follow each other; None where none do within REACH."""
    region = read_at(file, start, REACH)
    at = region.find(0xFF)
    while at >= 0:
        head = header(region[at : at + 4])
        if head and kind in (None, head.kind) and _follow(file, size, start + at, head, at == 0 and kind is None):
            return start + at
        at = region.find(0xFF, at + 1)
    return None


def _follow(file: BinaryIO, size: int, at: int, head: Header, short: bool) -> bool:
    """Whether RUN frames stand in a row at `at`; fewer will do if the file ends with, or (`short`) inside, the last."""
    for count in range(RUN):
        raw = read_at(file, at, 4)
        frame = header(raw)
        if frame is None or frame.kind != head.kind:
            return count > 0 and (at == size or raw.startswith(TRAILERS))
        at += frame.size
        if at > size:
            return short and count > 0
    return True


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """Up to `count` bytes of `file` from `at` on. Its position is lost."""
    file.seek(at)
    return file.read(count)
