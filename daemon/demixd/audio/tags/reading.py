# mypy: disallow-untyped-calls=False
# mutagen says that it is typed, and most of its functions are not.
"""Reading a song's tags with mutagen, in the child process that `sandbox` starts and limits.

A song's first bytes tell where its tags are: FLAC, Ogg, WAV, AIFF, MP4, ASF, DSF, DSDIFF and Matroska have a place for
them. Anything else (MP3, AAC, TTA, WavPack, Monkey's Audio, Musepack) has an ID3v2 in front, then an APEv2 or an ID3v1 at the
end. mutagen has no Matroska, CAF, W64, AU and RealMedia; FFmpeg reads those.
"""

import base64
import binascii
import io
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Any, BinaryIO

from mutagen.aiff import AIFF
from mutagen.apev2 import APEBinaryValue, APENoHeaderError, APETextValue, APEv2
from mutagen.asf import ASF, BYTEARRAY, DWORD, UNICODE
from mutagen.dsdiff import DSDIFF
from mutagen.dsf import DSF
from mutagen.flac import FLAC, Picture
from mutagen.id3 import ID3, ID3NoHeaderError, ParseID3v1
from mutagen.mp4 import MP4, AtomDataType, MP4FreeForm
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggvorbis import OggVorbis

from demixd.audio.containers import riff
from demixd.audio.containers.edges import id3_length
from demixd.audio.tags import keys, lrc
from demixd.audio.tags.sandbox import TOO_LARGE
from demixd.audio.tags.values import FRONT, Cover, Found, Tags, merged, picture

Place = Callable[[BinaryIO], Found]

OGG = {b"\x01vorbis": OggVorbis, b"OpusHead": OggOpus, b"\x7fFLAC": OggFLAC, b"Speex   ": OggSpeex}

ID3_KEYS = {frame: key for key, frame in keys.ID3.items()} | {
    "TDRC": "date",
    "TRCK": "tracknumber",
    "TPOS": "discnumber",
}
MP4_KEYS = {atom: key for key, atom in keys.MP4.items()} | {"desc": "comment"}
INFO_KEYS = {name: key for key, name in keys.INFO.items()} | {"IPRT": "tracknumber"}
ASF_KEYS = {name: key for key, name in keys.ASF.items()}

APE_COVERS = {"cover art (front)": 3, "cover art (back)": 4}
"""APEv2's keys of pictures -> ID3's picture type. The value is a file's name, a zero, and the picture."""

ID3_LEFT_OUT = re.compile(
    "TSRC|UFID|MCDI|TSSE|TENC|TLEN|TFLT|TSIZ|TDLY|TDEN|TDTG|TDRL|TDES|TKWD|TCAT|TGID|TOFN|TYER|TDAT|TIME|TRDA|PRIV|PCNT|POPM"
    "|RVA[2D]|EQU[2A]|ETCO|MLLT|SYTC|SEEK|ASPI|POSS|RBUF|RVRB|CHAP|CTOC|GRP1|PCST|WFED|NCON|ENCR|GRID|SIGN"
)
"""Frames of ID3 that no stem gets, since they are true of the song alone, or count what somebody has done with it."""

NOT_COMMENTS = ("iTun", "ID3v1 Comment", "MusicMatch", "Songs-DB")
"""What the descriptions of comments begin with that programs write for themselves."""

MILLISECONDS = 2
"""SYLT's unit of time; the other one is frames of the MP3."""

MOST_SAID = 200
"""Characters of mutagen's reason in a warning."""

FREEFORM = "----:com.apple.iTunes:"


def tags_of(song: BinaryIO) -> Tags:
    """The tags of `song`; of damaged ones, those that can be read, with a warning. Does not raise."""
    return merged([_read_place(place, song) for place in _places(song)])


def _places(song: BinaryIO) -> tuple[Place, ...]:
    head = song.read(64)
    song.seek(id3_length(head))
    if song.read(4) == b"fLaC":
        return _flac, _id3
    for at, magic, place in PLACES:
        if head[at:].startswith(magic):
            return (place,)
    return _id3, _ape, _id3v1


def _read_place(place: Place, song: BinaryIO) -> Found:
    song.seek(0)
    try:
        return place(song)
    except (ID3NoHeaderError, APENoHeaderError):
        return Found()
    except Exception as error:  # noqa: BLE001 - mutagen lets any exception out that damage causes in it
        return Found(problem=_damage(error))


def _damage(error: Exception) -> str:
    """A sentence's end on damage. mutagen may put a whole frame into its message, so that is cut."""
    if isinstance(error, MemoryError):
        return TOO_LARGE
    return f"they are damaged ({(str(error) or type(error).__name__)[:MOST_SAID]})"


def _read_partly(kind: Any, song: BinaryIO) -> tuple[Any, str | None]:
    """A file read by mutagen as far as it could, and why it stopped where it did not read all of it."""
    found = kind.__new__(kind)
    try:
        found.load(song)
    except Exception as error:
        if found.tags is None:
            raise
        return found, _damage(error)
    return found, None


def _flac(song: BinaryIO) -> Found:
    flac, problem = _read_partly(FLAC, song)
    covers = [cover for each in flac.pictures for cover in _picture(each)]
    return Found(texts=list(flac.tags or ()), covers=covers, problem=problem)


def _ogg(song: BinaryIO) -> Found:
    head = song.read(64)[28:]
    song.seek(0)
    kind = next((kind for magic, kind in OGG.items() if head.startswith(magic)), None)
    if kind is None:
        return Found()
    texts = list(
        _read_partly(kind, song)[0].tags
    )  # the tags are whole: mutagen looks for the stream's end after it has read them
    return Found(texts=texts, covers=list(_vorbis_covers(texts)))


def _vorbis_covers(texts: Iterable[tuple[str, str]]) -> Iterator[Cover]:
    """The pictures among Vorbis comments, which hold them in base64."""
    for key, text in texts:
        try:
            if key.lower() == "metadata_block_picture":
                yield from _picture(Picture(base64.b64decode(text)))
            elif key.lower() == "coverart":
                yield from picture(base64.b64decode(text))
        except (binascii.Error, ValueError, OSError):
            continue
        except Exception:  # noqa: BLE001 - as in `_read_place`, but other pictures may be readable
            continue


def _picture(found: Picture) -> list[Cover]:
    return picture(found.data, found.mime, found.type, found.desc)


def _id3(song: BinaryIO) -> Found:
    return _frames(ID3(song, load_v1=False))


def _id3v1(song: BinaryIO) -> Found:
    song.seek(max(0, song.seek(0, 2) - 128))
    found: Any = ParseID3v1(song.read()) or {}
    for frame in found.values():
        if frame.FrameID == "COMM":
            frame.desc = ""
    return _frames(found)


def _frames(tag: Any) -> Found:
    """The texts and pictures of an ID3 tag, by ID3v2.4's names of frames. A comment without a description comes first."""
    found, strange = Found(), set[str]()
    for frame in sorted(tag.values(), key=lambda each: each.desc if each.FrameID in ("COMM", "USLT") else ""):
        if frame.FrameID == "APIC":
            found.covers += picture(frame.data, frame.mime, int(frame.type), frame.desc)
        elif (texts := _texts_of(frame)) is not None:
            found.texts += texts
        elif not ID3_LEFT_OUT.fullmatch(frame.FrameID):
            strange.add(frame.FrameID)
    if strange:
        found.problem = f"there is no place for ID3's {', '.join(sorted(strange))}"
    return found


def _texts_of(frame: Any) -> list[tuple[str, str]] | None:
    """The texts of a frame with our keys; None for a frame of another kind."""
    name = frame.FrameID
    if name == "TCON":
        return [("genre", text) for text in frame.genres]
    if name in ID3_KEYS:
        return [(ID3_KEYS[name], str(text)) for text in frame.text]
    if name == "TXXX":
        return [(frame.desc, text) for text in frame.text]
    if name == "COMM":
        return [] if frame.desc.startswith(NOT_COMMENTS) else [("comment", text) for text in frame.text]
    if name == "USLT":
        return [("lyrics", frame.text)]
    if name == "SYLT" and frame.format == MILLISECONDS:
        return [("syncedlyrics", lrc.of(frame.text))]
    return None


def _ape(song: BinaryIO) -> Found:
    found = Found()
    for name, value in APEv2(song).items():
        if isinstance(value, APETextValue):
            found.texts += [(name, text) for text in value]
        elif isinstance(value, APEBinaryValue) and name.lower() in APE_COVERS:
            found.covers += picture(bytes(value).partition(b"\0")[2], kind=APE_COVERS[name.lower()])
    return found


def _mp4(song: BinaryIO) -> Found:
    found = Found()
    tags: Any = MP4(song).tags or {}
    for atom, value in tags.items():
        if atom in MP4_KEYS:
            found.texts += [(MP4_KEYS[atom], text) for text in value]
        elif atom in ("trkn", "disk"):
            key = "tracknumber" if atom == "trkn" else "discnumber"
            found.texts += [(key, f"{number}/{total}") for number, total in value]
        elif atom == "tmpo":
            found.texts += [("bpm", str(each)) for each in value]
        elif atom == "cpil":
            found.texts += [("compilation", "1")] if value else []
        elif atom == "covr":
            kinds = chain([FRONT], repeat(0))
            found.covers += [cover for each in value for cover in picture(each, kind=next(kinds))]
        elif atom.startswith(FREEFORM):
            found.texts += [(atom.removeprefix(FREEFORM), text) for text in _freeform(value)]
    return found


def _freeform(values: Iterable[MP4FreeForm]) -> Iterator[str]:
    for value in values:
        if value.dataformat in (AtomDataType.UTF8, AtomDataType.IMPLICIT):
            yield bytes(value).decode(errors="replace")


def _asf(song: BinaryIO) -> Found:
    found = Found()
    for name, value in ASF(song).tags or ():
        if name == "WM/Picture" and value.TYPE == BYTEARRAY:
            found.covers += _asf_picture(value.value)
        elif name in ASF_KEYS and value.TYPE in (UNICODE, DWORD):
            found.texts.append((ASF_KEYS[name], str(value)))
        elif value.TYPE == UNICODE and not name.startswith("WM/"):
            found.texts.append((name, str(value)))
    return found


def _asf_picture(raw: bytes) -> list[Cover]:
    """ASF's WM/Picture: kind(1), size(4), MIME type, description, data; both texts in UTF-16, ended by a zero."""
    words, at = [], 5
    for _ in range(2):
        end = next((end for end in range(at, len(raw) - 1, 2) if raw[end : end + 2] == b"\0\0"), len(raw))
        words.append(raw[at:end].decode("utf-16-le", "replace"))
        at = end + 2
    return picture(raw[at : at + int.from_bytes(raw[1:5], "little")], words[0], raw[0], words[1]) if raw else []


def _wav(song: BinaryIO) -> Found:
    info, id3 = riff.tag_chunks(song)
    texts = [(INFO_KEYS[name], text) for name, text in riff.texts(info) if name in INFO_KEYS]
    found = _read_place(_id3, io.BytesIO(id3))
    return Found(texts=found.texts or texts, covers=found.covers, problem=found.problem)


def _by_ffmpeg(demuxer: str) -> Place:
    """FFmpeg's own names of tags are ours but for some, as those of Vorbis comments. A front cover's file is `cover.jpg`."""

    def read(song: BinaryIO) -> Found:
        from demixd.audio.ffmpeg.metadata import metadata_of  # its libraries are loaded for such a song alone

        texts, attached = metadata_of(song, demuxer)
        found = Found(texts=list(texts.items()))
        kinds = chain([FRONT], repeat(0))
        for each in sorted(attached, key=lambda each: not each.name.lower().startswith("cover.")):
            found.covers += picture(each.data, each.mime, next(kinds), each.description)
        return found

    return read


def _inside(kind: Any) -> Place:
    """The reader of a format that holds an ID3 tag in a chunk."""
    return lambda song: _frames(kind(song).tags or {})


PLACES: tuple[tuple[int, bytes, Place], ...] = (
    (0, b"OggS", _ogg),
    (0, b"RIFF", _wav),
    (0, b"RF64", _wav),
    (0, b"FORM", _inside(AIFF)),
    (0, b"\x1aE\xdf\xa3", _by_ffmpeg("matroska")),
    (0, b"caff", _by_ffmpeg("caf")),
    (0, b"riff\x2e\x91\xcf\x11", _by_ffmpeg("w64")),
    (0, b".snd", _by_ffmpeg("au")),
    (0, b".RMF", _by_ffmpeg("rm")),
    (0, b"DSD ", _inside(DSF)),
    (0, b"FRM8", _inside(DSDIFF)),
    (0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), _asf),
    *((4, atom, _mp4) for atom in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")),
)
"""Offset in the file, the bytes there, and the reader of its tags."""
