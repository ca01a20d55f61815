"""The formats that FFmpeg reads, by a file's first bytes, and whether such a file is whole, as far as its header says.

    ....ftyp            MP4, M4A, MOV      boxes to the end, `moov` among them
    1A 45 DF A3         Matroska, WEBM     its segment's size against the file's (matroska.py)
    30 26 B2 75 8E 66   ASF: WMA           the size that it gives of itself
    .snd, riff          AU, W64            the size of their audio
    G, every 188 bytes  MPEG-TS
    wvpk, "MAC ", "DSD ", FRM8, TTA1, tBaK, MPCK, "MP+", caff, #!AMR, .RMF and so on

FFmpeg gets the name of one demuxer, so it never opens a format that is not listed, a playlist above all. The headers of
the formats without a check here say how many frames there are, or nothing: those are compared after decoding.
"""

from itertools import pairwise
from typing import BinaryIO

import msgspec

from demixd.audio.containers import matroska, mp4
from demixd.audio.containers.edges import before_tags, read_at

FIRST = (
    (b"\x1a\x45\xdf\xa3", "matroska", "matroska"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma", "asf"),
    (b"wvpk", "wavpack", "wv"),
    (b"MAC ", "ape", "ape"),
    (b"DSD ", "dsf", "dsf"),
    (b"FRM8", "dff", "iff"),
    (b"TTA1", "tta", "tta"),
    (b"tBaK", "tak", "tak"),
    (b"MPCK", "musepack", "mpc8"),
    (b"MP+", "musepack", "mpc"),
    (b"caff", "caf", "caf"),
    (b".snd", "au", "au"),
    (b"riff\x2e\x91\xcf\x11", "w64", "w64"),
    (b"#!AMR", "amr", "amr"),
    (b"ADIF", "aac", "aac"),
    (b".RMF", "real", "rm"),
    (b".ra\xfd", "real", "rm"),
    (b"\x0b\x77", "ac3", "ac3"),
    (b"\x7f\xfe\x80\x01", "dts", "dts"),
)
"""First bytes -> our name of the format, FFmpeg's of the demuxer."""

SYNCS = ((b"\xff", "aac", "aac"), (b"\x0b\x77", "ac3", "ac3"), (b"\x7f\xfe\x80\x01", "dts", "dts"))
"""What frames begin with, where there is nothing but frames."""

SHORTEST = 64
"""Bytes of the shortest frame of AC-3 or DTS."""

TAGGED = ("wv", "ape", "tta", "tak", "mpc", "mpc8", "ac3", "dts")
"""Demuxers that take bytes behind the song for a part of it."""

MOST_CHUNKS = 1_000
"""Chunks of a CAF; there are a dozen."""

TS_PACKETS = ((0, 188), (4, 192), (0, 204))
"""Where the first packet of an MPEG-TS begins, and the bytes from one to the next: plain, with times, with checksums."""

BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""What an MP4 or MOV can begin with."""

ON_TOP = {
    *BOXES,
    b"moof",
    b"mfra",
    b"sidx",
    b"ssix",
    b"styp",
    b"prft",
    b"emsg",
    b"pdin",
    b"meta",
    b"udta",
    b"uuid",
    b"junk",
}
"""The boxes of the top level. Another name is no box: some programs put an ID3v1 behind the last one."""

FILE_PROPERTIES = bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")
"""The name of the object of an ASF header that holds the file's size, 40 bytes behind the start of the name."""

W64_DATA = b"data" + bytes.fromhex("F3ACD3118CD100C04F8EDB8A")

HEAD = 1 << 16
"""Bytes that are searched: of an ASF's or W64's header."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A format that FFmpeg reads, and its demuxer for it."""

    format: str
    demuxer: str
    cut: str | None = None
    """The sign that the file is cut short, as the end of a sentence; None where there is none."""
    refusal: str | None = None
    """Why a file of this format cannot be decoded."""
    start: int = 0
    """Bytes before the first frame."""
    stop: int | None = None
    """The first byte behind the song, where its decoder takes what follows for a part of it."""


def signature_of(file: BinaryIO, size: int) -> Signature | None:
    """The format of `file`; None if it is none of the above. Its position is lost."""
    if read_at(file, 4, 4) in BOXES:
        return Signature(format="mp4", demuxer="mov", cut=_boxes(file, size))
    magic = read_at(file, 0, 16)
    for first, name, demuxer in FIRST:
        if magic.startswith(first):
            judge = {"matroska": matroska.cut, "asf": _asf, "w64": _w64, "au": _au, "caf": _caf}.get(demuxer)
            return Signature(
                format=name,
                demuxer=demuxer,
                cut=judge(file, size) if judge else None,
                refusal=matroska.refusal(file, size) if demuxer == "matroska" else None,
                stop=_stop(file, demuxer),
            )
    if any(_is_ts(file, at, step) for at, step in TS_PACKETS):
        return Signature(format="mpegts", demuxer="mpegts")
    return _frames(file, size)


def _frames(file: BinaryIO, size: int) -> Signature | None:
    """A format of frames and nothing else, of which the file has a part: some bytes, then frames that follow each other."""
    region = read_at(file, 0, HEAD)
    for sync, name, demuxer in SYNCS:
        at = region.find(sync)
        while at >= 0:
            if (name == "aac" and _is_adts(file, at, size)) or (name != "aac" and _repeats(region, sync, at)):
                return Signature(format=name, demuxer=demuxer, start=at, stop=_stop(file, demuxer))
            at = region.find(sync, at + 1)
    return None


def _stop(file: BinaryIO, demuxer: str) -> int | None:
    # A frame of AC-3 ends with a checksum; those of others can end with zeros.
    return before_tags(file, zeros=demuxer == "ac3") if demuxer in TAGGED else None


def _repeats(region: bytes, sync: bytes, at: int) -> bool:
    """Whether `sync` comes four times from `at` on, always after as many bytes, or two more or less, as frames have."""
    found = [at]
    for _ in range(3):
        found.append(region.find(sync, found[-1] + SHORTEST))
    gaps = [after - before for before, after in pairwise(found)]
    return min(found) == at and max(gaps) - min(gaps) <= 2


def _boxes(file: BinaryIO, size: int) -> str | None:
    end, kinds = 0, set()
    for box in mp4.walk(file, 0, size):
        if box.kind not in ON_TOP:
            break
        kinds.add(box.kind)
        end = box.stop
    if end > size:
        return f"it holds {size:,} of {end:,} bytes"
    return None if b"moov" in kinds else "its index (moov) is missing"


def _asf(file: BinaryIO, size: int) -> str | None:
    at = read_at(file, 0, HEAD).find(FILE_PROPERTIES)
    declared = int.from_bytes(read_at(file, at + 40, 8), "little") if at >= 0 else 0
    return f"it holds {size:,} of {declared:,} bytes" if declared > size else None


def _w64(file: BinaryIO, size: int) -> str | None:
    """W64: a chunk is a name of 16 bytes, a size of 8 that counts all of the chunk, and content."""
    at = read_at(file, 0, HEAD).find(W64_DATA)
    end = at + int.from_bytes(read_at(file, at + 16, 8), "little") if at >= 0 else 0
    return f"it holds {size:,} of {end:,} bytes" if end > size else None


def _au(file: BinaryIO, size: int) -> str | None:
    """AU: magic, the byte at which the audio begins, and its size, all ones where it is unknown."""
    head = read_at(file, 4, 8)
    first, length = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
    end = 0 if length == 0xFFFFFFFF else first + length
    return f"it holds {size:,} of {end:,} bytes" if end > size else None


def _caf(file: BinaryIO, size: int) -> str | None:
    """CAF: behind 8 bytes, chunks of a name of 4 bytes, a size of 8, -1 where the audio goes on to the end, and content."""
    at = 8
    for _ in range(MOST_CHUNKS):
        head = read_at(file, at, 12)
        at += 12 + max(0, int.from_bytes(head[4:], "big", signed=True))
        if len(head) < 12 or head.startswith(b"data"):
            return f"it holds {size:,} of {at:,} bytes" if at > size else None
    return None


def _is_ts(file: BinaryIO, at: int, step: int) -> bool:
    """Whether packets of MPEG-TS follow each other: each begins with a G (ISO/IEC 13818-1, 2.4.3.2)."""
    return all(read_at(file, at + number * step, 1) == b"G" for number in range(5))


def _is_adts(file: BinaryIO, at: int, size: int) -> bool:
    """Whether three ADTS frames of AAC follow each other: twelve ones, two zeros for the layer, 13 bits of length at bit 30."""
    first = at
    for _ in range(3):
        head = read_at(file, at, 7)
        if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
            return False
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        if length < 7:
            return False
        at += length
        if at >= size:
            return at == size and not first
    return True
