"""What a name in the inbox means. Pure: only the name is looked at."""

import fnmatch
import re
from enum import StrEnum

READABLE = frozenset({"wav", "wave", "flac", "mp3", "ogg", "oga", "opus"})
"""Extensions that a song may have."""

UNREADABLE = frozenset(
    [
        "aac",
        "ac3",
        "aif",
        "aiff",
        "aifc",
        "alac",
        "amr",
        "ape",
        "au",
        "caf",
        "dff",
        "dsf",
        "dts",
        "m4a",
        "m4b",
        "mka",
        "mkv",
        "webm",
        "mp2",
        "mp4",
        "mpc",
        "ra",
        "snd",
        "spx",
        "tak",
        "tta",
        "w64",
        "wma",
        "wv",
    ]
)
"""Extensions of audio that we cannot read yet."""

PARTS = ("part", "partial", "crdownload", "download", "filepart", "tmp", "aria2", "!qb", "ytdl")
"""Suffixes under which other programs keep what is not complete."""

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
    """What an entry is; the values of those that are no job are their reasons in `_inbox.json`."""

    SONG = "song"
    CANCEL = "cancel"
    IGNORED = "ignored-name"
    NOT_AUDIO = "not-audio"
    UNSUPPORTED = "unsupported-format"
    NOT_A_FILE = "not-a-regular-file"
    RESERVED = "reserved-name"
    NO_SUCH_JOB = "no-such-job"
    EXPIRED = "expired"
    UNREADABLE_FOLDER = "permission"


def kind_of_file(leaf: str) -> Kind:
    """What a file called `leaf` (the last part of its path) is for."""
    if leaf.endswith(".cancel") and (leaf == ".cancel" or not leaf.startswith(".")):
        return Kind.CANCEL
    if _IGNORED.fullmatch(leaf):
        return Kind.IGNORED
    extension = leaf.rpartition(".")[2].lower() if "." in leaf else ""
    if extension in READABLE:
        return Kind.SONG
    return Kind.UNSUPPORTED if extension in UNREADABLE else Kind.NOT_AUDIO


def kind_of_folder(leaf: str) -> Kind | None:
    """Why a folder is not walked, or None."""
    if _IGNORED.fullmatch(leaf):
        return Kind.IGNORED
    return Kind.RESERVED if leaf.endswith((".json", ".cancel")) else None


def companions(leaf: str) -> tuple[str, ...]:
    """Names beside a song that say that it is still being written."""
    return tuple(f"{leaf}.{part}" for part in PARTS)
