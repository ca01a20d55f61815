"""Headers of MPEG audio, layers I to III, and the Info frame of an MP3: how many frames it announces.

    [junk] [INFO] FRAME FRAME FRAME ...

FFmpeg finds the frames and decodes them. It does not say whether there are as many as the Info (or Xing, or VBRI) frame
has announced, a silent first one: an MP3 that is cut short plays without an error. And it notes the end of an MP3 that it
writes only roughly.

A frame begins with 32 bits, AAAAAAAA AAABBCCD EEEEFFGH IIJJKLMM: A sync, B version, C layer, D no checksum, E bitrate,
F rate, G padding, I mode (ISO/IEC 11172-3, 2.4.1.3).
"""

from typing import BinaryIO

import msgspec

from demixd.audio.containers.edges import read_at
from demixd.audio.formats import MPEG_1, MPEG_2

BITRATES = {
    (3, 1): tuple(range(32, 449, 32)),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 3): MPEG_1,
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): MPEG_2,
    (2, 3): MPEG_2,
}
"""Version bits, of which MPEG-2.5 has those of MPEG-2, and layer -> kbit/s."""

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Version bits (MPEG-1, -2, -2.5) -> rates."""

REACH = 1 << 16
"""Bytes that are searched for the first frame, as FFmpeg does."""

TAG = 156
"""Bytes of a LAME tag, from the word Info to its CRC."""

VBRI = 4 + 32
"""The byte in a frame at which Fraunhofer's tag lies, whatever the mode."""


class Header(msgspec.Struct, frozen=True):
    """A frame's header. `samples`: frames of audio in it."""

    kind: tuple[int, int, int]
    """Version, layer and rate: the same in every frame of a song."""
    samples: int
    size: int
    """Bytes, header included."""
    info: int
    """The byte in the frame at which an Info tag lies: behind the side information, also where a checksum is announced."""


def header(raw: bytes) -> Header | None:
    """A frame's header from its first four bytes; None if they are none."""
    if len(raw) < 4 or raw[0] != 0xFF or raw[1] & 0xE0 != 0xE0:
        return None
    version, layer = raw[1] >> 3 & 3, 4 - (raw[1] >> 1 & 3)
    rate_at, bitrate_at = raw[2] >> 2 & 3, raw[2] >> 4
    if version == 1 or layer == 4 or rate_at == 3 or bitrate_at in (0, 15):
        return None
    rate = RATES[version][rate_at]
    bitrate = BITRATES[version or 2, layer][bitrate_at - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    mono = raw[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    slot = 4 if layer == 1 else 1
    size = (samples * bitrate * 125 // (rate * slot) + (raw[2] >> 1 & 1)) * slot
    return Header(kind=(version, layer, rate), samples=samples, size=size, info=4 + side)


def first_frame(file: BinaryIO) -> int | None:
    """The byte at which two frames begin that follow each other; None where none do within REACH."""
    region = read_at(file, 0, REACH)
    at = region.find(0xFF)
    while at >= 0:
        head = header(region[at : at + 4])
        behind = head and header(read_at(file, at + head.size, 4))
        if head and behind and behind.kind == head.kind:
            return at
        at = region.find(0xFF, at + 1)
    return None


def announced(file: BinaryIO, at: int) -> int | None:
    """How many frames the Info frame at `at` says follow it; None where none is there, or it does not say."""
    head = header(read_at(file, at, 4))
    if head is None:
        return None
    if read_at(file, at + VBRI, 4) == b"VBRI":
        return int.from_bytes(read_at(file, at + VBRI + 14, 4), "big") or None
    tag = read_at(file, at + head.info, 12)
    if tag[:4] not in (b"Info", b"Xing") or len(tag) < 12 or not tag[7] & 1:
        return None
    return int.from_bytes(tag[8:12], "big") or None


def note_length(file: BinaryIO, frames: int) -> None:
    """Write into the LAME tag of a finished MP3 how many samples at its end are padding, so that it has `frames` frames.

    FFmpeg notes at most one MP3 frame of padding, and players would play up to 46 samples more than the song. The tag
    (LAME's "Info tag" rev 1) has delay and padding at its byte 141, 12 bits each, and at byte 154 the CRC-16 of all before
    it, the frame's header included.
    """
    head, told = header(read_at(file, 0, 4)), announced(file, 0)
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
