"""Names in the inbox: whether an entry is a song, its options, a cancel file, or is ignored, by its name alone. Pure."""

import fnmatch
import re
from collections.abc import Iterable
from enum import StrEnum

LIBSNDFILE = "wav wave flac mp3 ogg oga opus aif aiff aifc"
FFMPEG = "aac ac3 alac amr ape au caf dff dsf dts m4a m4b mka mkv mov mp2 mp4 mpc ra snd spx tak tta w64 webm wma wv"
NOBODY = "aa aax it kar m4p mid midi mod s3m shn vqf xm"
"""Extensions by the library that reads them; of a video FFmpeg reads the first audio stream. NOBODY: none does."""

READABLE = frozenset(f"{LIBSNDFILE} {FFMPEG}".split())
"""Extensions of songs."""

UNREADABLE = frozenset(NOBODY.split())
"""Extensions of music that neither library decodes: notes, trackers, and encrypted files."""

PARTS = ("part", "partial", "crdownload", "download", "filepart", "tmp", "aria2", "!qb", "ytdl")
"""Suffixes of files that other programs have not completed."""

_UNFINISHED = tuple(f".{part}" for part in PARTS)

_IGNORED = re.compile(
    "|".join(
        [
            r"\..*",
            *(rf".*\.{re.escape(part)}" for part in PARTS),
            r"~\$.*",
            r".*~",
            *(fnmatch.translate(p) for p in ("~syncthing~*", "thumbs.db", "desktop.ini")),
            *(fnmatch.translate(p) for p in ("@eadir", "#recycle", "#snapshot", "__macosx", "lost+found")),
        ]
    ),
    re.IGNORECASE | re.DOTALL,
)


class Kind(StrEnum):
    """What an entry is. The value of one that is no job is its reason in `_inbox.json`."""

    SONG = "song"
    CANCEL = "cancel"
    OPTIONS = "options"
    IGNORED = "ignored-name"
    NOT_AUDIO = "not-audio"
    UNSUPPORTED = "unsupported-format"
    NOT_A_FILE = "not-a-regular-file"
    RESERVED = "reserved-name"
    NO_SUCH_JOB = "no-such-job"
    EXPIRED = "expired"
    ANSWERED = "answered-cancel"
    LONELY_OPTIONS = "options-without-song"
    LATE_OPTIONS = "late-options"
    NOT_WALKED = "not-walked"
    UNREADABLE_FOLDER = "permission"


def kind_of_file(leaf: str, *, at_root: bool = True) -> Kind:
    """What a file called `leaf` (the last part of its path) is; `.cancel` alone is a cancel file in the inbox's root only."""
    if leaf == ".cancel" and at_root:
        return Kind.CANCEL
    if leaf.endswith((".cancel", ".job.json")) and not leaf.startswith("."):
        return Kind.CANCEL if leaf.endswith(".cancel") else Kind.OPTIONS
    if _IGNORED.fullmatch(leaf):
        return Kind.IGNORED
    extension = leaf.rpartition(".")[2].lower() if "." in leaf else ""
    if extension in READABLE:
        return Kind.SONG
    return Kind.UNSUPPORTED if extension in UNREADABLE else Kind.NOT_AUDIO


def kind_of_folder(leaf: str) -> Kind | None:
    """Why a folder called `leaf` is not walked; None where it is."""
    if _IGNORED.fullmatch(leaf):
        return Kind.IGNORED
    return Kind.RESERVED if leaf.endswith((".json", ".cancel")) else None


def being_written(names: Iterable[str]) -> set[str]:
    """The names that are still being written: for each, a companion such as NAME.part is among `names`, those of one folder."""
    return {name.rpartition(".")[0] for name in names if name.lower().endswith(_UNFINISHED)}
