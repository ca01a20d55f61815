"""Names in the inbox: whether an entry is a song, its options, a cancel file, or is ignored, by its name alone. Pure."""

import fnmatch
import re
from collections.abc import Iterable
from enum import StrEnum

from demixd.protocol.result_names import PAGE

LIBSNDFILE = "wav wave bwf flac mp3 mpga ogg oga opus aif aiff aifc"
FFMPEG = (
    "aac adts ac3 alac amr awb ape au caf dff dsf dts m4a m4b m4r mka mp2 mpa m2a mpc mpp ra snd spx tak tta w64 wma wv "
    "3g2 3ga 3gp asf f4a f4v m4v mkv mov mp4 qt rm weba webm wmv"
)
NOBODY = "aa aax it kar m4p mid midi mod s3m shn vqf xm"
"""Extensions by the library that reads them; of a video FFmpeg reads the first audio stream. NOBODY: none does."""

READABLE = frozenset(f"{LIBSNDFILE} {FFMPEG}".split())
"""Extensions of songs."""

UNREADABLE = frozenset(NOBODY.split())
"""Extensions of music that neither library decodes: notes, trackers, and encrypted files."""

PARTS = ("part", "partial", "crdownload", "download", "filepart", "tmp", "aria2", "!qb", "ytdl")
"""Suffixes of files that other programs have not completed."""

_UNFINISHED = tuple(f".{part}" for part in PARTS)

_DOTTED = re.compile(r"\.{2,}[^.].*", re.DOTALL)
"""Two dots or more, with which titles begin ("...Baby One More Time.flac"): they hide nothing, as one alone does."""

_PART_OF_DOWNLOAD = re.compile(r"(.*[^/])\.(?:f(?:\d|hls-|dash-|http-)[\w+-]*|temp)\.[^./]+", re.IGNORECASE | re.DOTALL)
"""yt-dlp's names: `Clip.f137.mp4` and `Clip.f251.webm` are to become `Clip.mp4`, by way of `Clip.temp.mp4`."""

_OF_SHARES = (
    *("@eadir", "#recycle", "@recycle", "$recycle.bin", "recycler", "#snapshot", "@recently-snapshot", "~snapshot"),
    *("__macosx", "lost+found", "system volume information", "network trash folder", "temporary items"),
)
"""Folders that NAS systems, Windows and Macs make on shares: what was deleted or is old lies in them."""

_IGNORED = re.compile(
    "|".join(
        [
            r"\.(?!\.).*",
            *(rf".*\.{re.escape(part)}" for part in PARTS),
            r"~\$.*",
            r".*~",
            *(fnmatch.translate(p) for p in ("~syncthing~*", "thumbs.db", "desktop.ini")),
            *(fnmatch.translate(p) for p in _OF_SHARES),
        ]
    ),
    re.IGNORECASE | re.DOTALL,
)


class Kind(StrEnum):
    """What an entry is. The value of one that is no job is its reason in `_inbox.json`."""

    SONG = "song"
    CANCEL = "cancel"
    OPTIONS = "options"
    PAUSE = "pause"
    MISPLACED = "misplaced"
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
    OTHER_VERSION = "other-version"


def kind_of_file(leaf: str, *, at_root: bool = True) -> Kind:
    """What a file called `leaf` (the last part of its path) is; `.cancel` and `.pause` have a meaning in the root alone."""
    if leaf in (".cancel", ".pause"):
        if not at_root:
            return Kind.MISPLACED
        return Kind.CANCEL if leaf == ".cancel" else Kind.PAUSE
    is_dotted = _DOTTED.fullmatch(leaf) is not None
    if leaf.endswith((".cancel", ".job.json")) and (is_dotted or not leaf.startswith(".")):
        return Kind.CANCEL if leaf.endswith(".cancel") else Kind.OPTIONS
    if _IGNORED.fullmatch(leaf):
        return Kind.IGNORED
    extension = leaf.lstrip(".").rpartition(".")[2].lower() if "." in leaf.lstrip(".") else ""
    if extension in READABLE:
        return Kind.SONG
    if leaf.startswith("."):
        return Kind.IGNORED
    return Kind.UNSUPPORTED if extension in UNREADABLE else Kind.NOT_AUDIO


def kind_of_folder(leaf: str) -> Kind | None:
    """Why a folder called `leaf` is not walked; None where it is."""
    if _IGNORED.fullmatch(leaf) or not leaf.strip("."):
        return Kind.IGNORED
    # status/, which mirrors it, has files of such names.
    return Kind.RESERVED if leaf.endswith((".json", ".jsonl", ".cancel")) or leaf == PAGE else None


def being_written(names: Iterable[str]) -> dict[str, str]:
    """The names that are still being written, each with its companion, such as NAME.part, among `names`: those of one folder."""
    return {name.rpartition(".")[0]: name for name in names if name.lower().endswith(_UNFINISHED)}


def is_unfinished(leaf: str) -> bool:
    """Whether an ignored file is one that is still being written, and not a system's own, such as `Thumbs.db` or `.DS_Store`."""
    return leaf.lower().endswith(_UNFINISHED) or (leaf.startswith(".") and not leaf.startswith((".DS_Store", "._")))


def download_of(name: str) -> str | None:
    """The path, without an extension, of the file whose part `name` is while yt-dlp downloads it; None for other names."""
    found = _PART_OF_DOWNLOAD.fullmatch(name)
    return found[1] if found else None


def beginnings(name: str) -> set[str]:
    """The path `name` up to each dot of its last part: `a/b.c.d` begins as `a/b` and `a/b.c`."""
    start = name.rfind("/") + 1
    return {name[:at] for at in range(start + 1, len(name)) if name[at] == "."}
