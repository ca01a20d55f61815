# mypy: disallow-untyped-calls=False
# mutagen says that it is typed, and most of its functions are not.
"""Writing tags into a finished stem. The audio is not changed, and the same tags give the same bytes: there is no padding.

mutagen encodes all tags, and writes those of FLAC and MP4. Into MP3, WAV and Ogg they are written here: mutagen cuts the
last bytes of an MP3 off where its audio happens to spell an ID3v1, has no INFO, and is slow with large pictures in Ogg.
"""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mutagen.flac import FLAC, Picture
from mutagen.mp4 import MP4, MP4Cover
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis

from demixd.audio.containers import riff
from demixd.audio.containers.edges import ID3_HEADER, id3_length
from demixd.audio.tags import id3, keys, ogg_comment
from demixd.audio.tags.splice import splice
from demixd.audio.tags.values import Cover, Tags, TagsError, Texts
from demixd.spool.files import open_own

MP4_PICTURES = {"image/jpeg": MP4Cover.FORMAT_JPEG, "image/png": MP4Cover.FORMAT_PNG}


def write(path: Path, tags: Tags, format: str) -> str | None:
    """Write `tags` into a finished stem. `format` is wav, flac, mp3, ogg (Vorbis), opus, m4a or alac (both MP4).

    A sentence where the format has no place for a picture, which is left out then, else None. Raises OSError where the disk
    fails, after which the file is not to be used, and `TagsError` where the file cannot have these tags and is unchanged.
    """
    if not tags.texts and not tags.covers:
        return None
    with _with_disk_errors(path), open_own(path, "r+b") as file:
        WRITERS[format](file, tags)
    strange = (
        {cover.mime for cover in tags.covers if cover.mime not in MP4_PICTURES} if WRITERS[format] is _mp4 else set()
    )
    if not strange:
        return None
    return (
        f"The song's {' and '.join(sorted(strange))} is not in its stems: an MP4 holds pictures as JPEG and PNG alone."
    )


@contextmanager
def _with_disk_errors(path: Path) -> Iterator[None]:
    """Raise the OSError that is inside an error of mutagen's, or else `TagsError`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            hidden = next((each for each in (cause, *cause.args) if isinstance(each, OSError)), None)
            if hidden:
                raise hidden from error
            cause = cause.__cause__ or cause.__context__
        raise TagsError(f"{path.name} stays without tags: {error or type(error).__name__}.") from error


def _none(_: object) -> int:
    """Bytes of padding, as mutagen asks for it."""
    return 0


def _wav(file: BinaryIO, tags: Tags) -> None:
    head = file.read(12)
    if not (head.startswith(b"RIFF") and head.endswith(b"WAVE")):
        raise TagsError("an RF64 has none" if head.startswith(b"RF64") else "it is no WAV")
    texts = [(name, "; ".join(tags.texts[key])) for key, name in keys.INFO.items() if key in tags.texts]
    end = file.seek(0, 2)
    data = bytes(end & 1) + riff.info_chunk(texts) + riff.chunk(b"id3 ", id3.tag(tags))
    if end + len(data) > riff.LARGEST:
        raise TagsError("they would make it an RF64, which has none")
    file.write(data)
    file.seek(4)
    file.write((end + len(data) - 8).to_bytes(4, "little"))


def _mp3(file: BinaryIO, tags: Tags) -> None:
    """In front of the first frame, which is the Info frame and must stay the first."""
    splice(file, 0, id3_length(file.read(ID3_HEADER)), id3.tag(tags))


def _flac(file: BinaryIO, tags: Tags) -> None:
    flac: Any = FLAC(file)
    if flac.tags is None:
        flac.add_tags()
    flac.tags[:] = list(_comments(tags.texts))
    flac.clear_pictures()
    for cover in tags.covers:
        flac.add_picture(_block(cover))
    file.seek(0)
    flac.save(file, padding=_none)


def _vorbis(file: BinaryIO, tags: Tags) -> None:
    ogg_comment.comment(file, b"\x03vorbis" + _comment(OggVorbis(file), tags).write(), headers=3)


def _opus(file: BinaryIO, tags: Tags) -> None:
    ogg_comment.comment(file, b"OpusTags" + _comment(OggOpus(file), tags).write(framing=False), headers=2)


def _comment(stream: Any, tags: Tags) -> Any:
    """The stream's comment with these texts and pictures; its encoder's name stays."""
    pictures = [base64.b64encode(_block(cover).write()).decode() for cover in tags.covers]
    stream.tags[:] = [*_comments(tags.texts), *(("METADATA_BLOCK_PICTURE", each) for each in pictures)]
    return stream.tags


def _comments(texts: Texts) -> Iterator[tuple[str, str]]:
    yield from ((key.upper(), text) for key, values in texts.items() for text in values)


def _block(cover: Cover) -> Picture:
    block = Picture()
    block.type, block.mime, block.desc, block.data = cover.kind, cover.mime, cover.description, cover.data
    return block


def _mp4(file: BinaryIO, tags: Tags) -> None:
    mp4: Any = MP4(file)
    if mp4.tags is None:
        mp4.add_tags()
    mp4.tags.clear()
    for key, values in _atoms(tags.texts):
        mp4.tags[key] = values
    covers = [MP4Cover(each.data, MP4_PICTURES[each.mime]) for each in tags.covers if each.mime in MP4_PICTURES]
    if covers:
        mp4.tags["covr"] = covers
    file.seek(0)
    mp4.save(file, padding=_none)


def _atoms(texts: Texts) -> Iterator[tuple[str, Any]]:
    """MP4's atoms and their values, as mutagen takes them."""
    free = dict(texts)
    for key, atom in (("tracknumber", "trkn"), ("discnumber", "disk")):
        pair = [free.get(each, ("0",))[0] for each in (key, keys.TOTALS[key])]
        if pair != ["0", "0"] and all(part.isdecimal() and int(part) < 1 << 16 for part in pair):
            yield atom, [(int(pair[0]), int(pair[1]))]
            free.pop(key, None)
            free.pop(keys.TOTALS[key], None)
    for key, values in free.items():
        if key in keys.MP4:
            yield keys.MP4[key], list(values)
        elif key == "bpm" and values[0].isdecimal() and int(values[0]) < 1 << 15:
            yield "tmpo", [int(values[0])]
        elif key == "compilation" and values[0] == "1":
            yield "cpil", True
        else:
            yield f"----:com.apple.iTunes:{keys.FREE.get(key, key.upper())}", [text.encode() for text in values]


WRITERS: dict[str, Callable[[BinaryIO, Tags], None]] = {
    "wav": _wav,
    "flac": _flac,
    "mp3": _mp3,
    "ogg": _vorbis,
    "opus": _opus,
    "m4a": _mp4,
    "alac": _mp4,
}
