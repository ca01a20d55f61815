"""failed/Song.mp3.txt: why a song lies in failed/, for whoever has nothing but the folder (`[inbox] reasons`).

The file goes when its song does: hourly, and at once where the song is dropped again.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from demixd.protocol.job import Job
from demixd.spool import nofollow
from demixd.spool.files import write_whole
from demixd.spool.tree import Spool, companion

log = logging.getLogger(__name__)

REASON = ".txt"
"""Suffix of a reason, behind the song's whole name."""

OURS = b"demixd: "
"""How each begins: a file that does not is somebody else's, and is neither replaced nor removed."""


def write(job: Job, stored: Path, spool: Spool) -> None:
    """Say beside the original, which lies at `stored` below failed/, why it is there and what to do."""
    path = stored.with_name(companion(stored.name, REASON))
    code = f" ({job.error.code})" if job.error else ""
    again = "To have the song separated after all, move it back into the inbox."
    text = f"{OURS.decode()}{job.state}{code}. {job.message.rstrip('.')}.\n{again}\n"
    try:
        if not os.path.lexists(path) or _is_ours(path, spool):
            write_whole(path, text.encode(), root=spool.failed, durable=False)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)


def remove_of(name: str, spool: Spool) -> None:
    """Remove the reason of the song `name`, unless it lies in failed/."""
    song = spool.failed / name
    path = song.with_name(companion(song.name, REASON))
    with contextlib.suppress(OSError):  # it is not there, or failed/ is not
        if not os.path.lexists(song) and _is_ours(path, spool):
            nofollow.remove_file(spool.failed, path)


def sweep(spool: Spool) -> None:
    """Remove every reason whose song is gone."""
    for folder, leaves in _folders(spool.failed):
        songs = {companion(leaf, REASON) for leaf in leaves if not leaf.endswith(REASON)}
        for leaf in leaves:
            path = Path(folder, leaf)
            with contextlib.suppress(OSError):
                if leaf.endswith(REASON) and leaf not in songs and _is_ours(path, spool):
                    nofollow.remove_file(spool.failed, path)


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below `root`, however deep, and the names of its files. No link is followed."""
    waiting = [os.fspath(root)]
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            listed = list(entries)
            waiting += [entry.path for entry in listed if entry.is_dir(follow_symlinks=False)]
            yield folder, [entry.name for entry in listed if not entry.is_dir(follow_symlinks=False)]


def _is_ours(path: Path, spool: Spool) -> bool:
    """Whether the file is one that `write` has made. Raises OSError."""
    with os.fdopen(nofollow.read_file(spool.failed, path), "rb") as file:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(len(OURS)) == OURS
