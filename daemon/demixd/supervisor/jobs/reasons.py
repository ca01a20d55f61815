"""failed/Song.mp3.txt: why a song lies in failed/, for whoever has nothing but the folder (`[inbox] reasons`).

The file goes when its song does: hourly, and at once where the song is dropped again.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from demixd.config.sections import After, Inbox
from demixd.errors import Code
from demixd.protocol.job import Error, Job
from demixd.protocol.terminal import safe
from demixd.protocol.typed import ended
from demixd.spool import nofollow
from demixd.spool.files import write_whole
from demixd.spool.tree import Spool, companion

log = logging.getLogger(__name__)

REASON = ".txt"
"""Suffix of a reason, behind the song's whole name."""

OURS = b"demixd: "
"""How each begins: a file that does not is somebody else's, and is neither replaced nor removed."""

AGAIN = "To have the song separated after all, move {it} back into the inbox."
"""What helps a song that is not at fault. `{it}` is the song, and its option file where there is one."""

OTHER_FILE = "As it is it fails again: drop a better copy of the song, or what an editor or a converter makes of it."
MENDED = "Once that is mended, move {it} back into the inbox."
OURS_TO_MEND = (
    "This is a mistake in demixd: please report it, with the log. To try again, move {it} back into the inbox."
)

REMEDIES = {
    Code.BAD_AUDIO: OTHER_FILE,
    Code.NOT_FINITE: OTHER_FILE,
    Code.TRUNCATED: "The song is not complete: drop the whole of it, or, where there is no other copy, what a converter makes "
    "of the rest. If its options have wait_for_sha256, check that too.",
    Code.TOO_LONG: "Once the limit is raised, move {it} back into the inbox; or cut the song, and drop the parts.",
    Code.TOO_LARGE: "Once the limit is raised or less is asked for, move {it} back into the inbox; or cut the song.",
    Code.BAD_OPTIONS: "Its options come from the configuration: once that is corrected, move {it} back into the inbox.",
    Code.NO_SPACE: MENDED,
    Code.OUTBOX_MISSING: MENDED,
    Code.MODEL_MISSING: MENDED,
    Code.BAD_MODEL: MENDED,
    Code.IO_ERROR: MENDED,
    Code.GAVE_UP: "It may happen again. To try, move {it} back into the inbox.",
    Code.BAD_OUTPUT: OURS_TO_MEND,
    Code.INTERNAL_ERROR: OURS_TO_MEND,
}
"""What helps after each error."""

OWN_OPTIONS = "Correct {file}, which lies here too, then move it back into the inbox, and the song after it."
"""The remedy for bad options that the song has brought itself."""


MEND_OPTIONS = "Correct the song's option file, which lies beside it in {where}, then `demixd retry NAME`, or {back}."
MEND_CONFIGURATION = (
    "These options come from the configuration: once that is corrected, `demixd retry NAME`, or {back}."
)

OPTIONS_REMEDIES = {
    (True, False): MEND_OPTIONS.format(where="failed/", back="move both back into the inbox, the option file first"),
    (True, True): MEND_OPTIONS.format(where="the inbox", back="touch the song"),
    (False, False): MEND_CONFIGURATION.format(back="move the song back into the inbox"),
    (False, True): MEND_CONFIGURATION.format(back="touch the song"),
}
"""The remedies for bad options that a song's status has, by whether it has an option file, and whether it stays in the inbox."""


def with_remedy(error: Error, job: Job, inbox: Inbox) -> Error:
    """The error of a job that ends by it, with what to do where its options are bad."""
    if error.code is not Code.BAD_OPTIONS:
        return error
    remedy = OPTIONS_REMEDIES[job.options_file is not None, inbox.after is After.KEEP]
    return msgspec.structs.replace(error, message=f"{ended(error.message)} {remedy}")


def write(job: Job, stored: Path, options: Path | None, spool: Spool) -> None:
    """Say beside the original, which lies at `stored` below failed/ with its `options`, why it is there and what to do."""
    path = stored.with_name(companion(stored.name, REASON))
    code = f" ({job.error.code})" if job.error else ""
    told = job.message
    for remedy in OPTIONS_REMEDIES.values():
        told = told.removesuffix(f" {remedy}")  # the next line has one that knows the names
    why = "" if told.lower() == job.state else f" {ended(told)}"
    file = options.name if options else ""
    it = f"{file} and it" if options else "it"
    helps = _remedy(job, has_options=options is not None).format(it=it, file=file)
    text = f"{OURS.decode()}{safe(f'{job.state}{code}.{why}')}\n{safe(helps)}\n"
    try:
        if not os.path.lexists(path) or _is_ours(path, spool):
            write_whole(path, text.encode(), root=spool.failed, durable=False)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)


def _remedy(job: Job, *, has_options: bool) -> str:
    if job.error is None:
        return AGAIN
    return OWN_OPTIONS if job.error.code is Code.BAD_OPTIONS and has_options else REMEDIES[job.error.code]


def remove_of(name: str, spool: Spool) -> None:
    """Remove the reason of the song `name`, unless it lies in failed/."""
    song = spool.failed / name
    path = song.with_name(companion(song.name, REASON))
    with contextlib.suppress(OSError):  # it is not there, or failed/ is not
        if not os.path.lexists(song) and _is_ours(path, spool):
            nofollow.remove_file(spool.failed, path)


def sweep(spool: Spool, go_on: Callable[[], None]) -> None:
    """Remove every reason whose song is gone. `go_on` is called with each file."""
    for folder, leaves in _folders(spool.failed):
        go_on()
        songs = {companion(leaf, REASON) for leaf in leaves if not leaf.endswith(REASON)}
        for leaf in leaves:
            go_on()
            path = Path(folder, leaf)
            with contextlib.suppress(OSError):
                if leaf.endswith(REASON) and leaf not in songs and _is_ours(path, spool):
                    nofollow.remove_file(spool.failed, path)


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below `root`, however deep, and the names of its files. No link is followed."""
    waiting = [os.fspath(root)]
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError):
            with os.scandir(folder) as entries:
                listed = list(entries)
            waiting += [entry.path for entry in listed if entry.is_dir(follow_symlinks=False)]
            yield folder, [entry.name for entry in listed if not entry.is_dir(follow_symlinks=False)]


def _is_ours(path: Path, spool: Spool) -> bool:
    """Whether the file is one that `write` has made. Raises OSError."""
    with os.fdopen(nofollow.read_file(spool.failed, path), "rb") as file:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(len(OURS)) == OURS
