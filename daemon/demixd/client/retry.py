"""A song that has failed, or was cancelled, comes back into the inbox with its options, by files alone.

failed/Song.flac.job.json  -->  inbox/Song.flac.job.json      first: options have to be there before their song
failed/Song.flac           -->  inbox/Song.flac
inbox/Song.flac            a song that policy has left in the inbox gets another time, which makes it a new drop
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

from demixd.client import actions, names
from demixd.errors import RefusedError
from demixd.protocol.job import State
from demixd.protocol.options import LONGEST
from demixd.protocol.result_names import numbered
from demixd.protocol.status import Sidecar
from demixd.spool import nofollow
from demixd.spool.files import rename_new
from demixd.spool.tree import OPTIONS, Spool, companion

AGAIN = (State.FAILED, State.CANCELLED)
"""The states from which a song comes back."""

NUMBERS = 100
"""How many songs of one name are looked through in failed/."""

NO_RENAME = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EINVAL)
"""What filesystems say that cannot rename from failed/ into the inbox, or not without replacing."""


def bring_back(spool: Spool, name: str, song: Sidecar) -> str:
    """Bring the song `name`, a path below the inbox, back; what was done, in words. Raises RefusedError, OSError."""
    target = spool.song(name)
    if os.path.lexists(target):
        if not _is_it(target, song):
            raise RefusedError("the inbox has another file of that name, which is tried in its turn")
        with nofollow.reach(spool.inbox, target.parent) as folder:
            os.utime(target.name, dir_fd=folder, follow_symlinks=False)
        return "tried again, where it lies in the inbox"
    stored = next((path for path in _places(spool, name) if _is_it(path, song)), None)
    if stored is None:
        raise RefusedError(f"it does not lie in {spool.named['failed']} any more: drop it again")
    options, own = stored.with_name(companion(stored.name, OPTIONS)), spool.options(name)
    has_options = options.is_file() and not options.is_symlink()
    with (
        nofollow.reach(spool.failed, stored.parent) as there,
        nofollow.reach(spool.inbox, target.parent, make=spool.inbox) as here,
    ):
        try:
            if has_options:
                rename_new(options.name, own.name, within=there, into=here)
            rename_new(stored.name, target.name, within=there, into=here)
        except OSError as error:
            if has_options and nofollow.is_in(here, own.name) and not nofollow.is_in(there, options.name):
                with contextlib.suppress(OSError):  # it is left with the song that it may belong to next
                    rename_new(own.name, options.name, within=here, into=there)
            if error.errno not in NO_RENAME:
                raise
            actions.drop(spool, stored, name, options=_read(spool.failed, options) if has_options else None)
            for leaf in (stored.name, options.name) if has_options else (stored.name,):
                os.unlink(leaf, dir_fd=there)
    return f"back in the inbox{', with its options' if has_options else ''}"


def _places(spool: Spool, name: str) -> list[Path]:
    """Where the original may lie in failed/: under its own name, or numbered where that was taken."""
    first = spool.failed / name
    return [first.with_name(numbered(first.name, number)) for number in range(1, NUMBERS + 1)]


def _is_it(path: Path, song: Sidecar) -> bool:
    """Whether the file is the one that the sidecar tells of: by size and time, for a share may give it another inode."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and names.is_file_of(song, status)


def _read(root: Path, path: Path) -> bytes:
    with os.fdopen(nofollow.read_file(root, path), "rb") as file:
        return file.read(LONGEST)
