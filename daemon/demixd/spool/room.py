"""Room on a disk. Others live on it too, the ledger perhaps among them: a reserve is left to them."""

import errno
import os
from pathlib import Path

from demixd.errors import AudioProcessingError, Code
from demixd.spool.tree import PRIVATE

RESERVE_BYTES = 256 << 20
RESERVE_SHARE = 20
"""What is left free: the twentieth part of a disk, and no more than so many bytes."""


def beyond_reserve(place: int | Path) -> tuple[int, int]:
    """Bytes that may be used on the disk of an open file or a folder: those that are free, and all that it has.

    Raises OSError.
    """
    found = os.statvfs(place)
    size = found.f_blocks * found.f_frsize
    reserve = min(RESERVE_BYTES, size // RESERVE_SHARE)
    return found.f_bavail * found.f_frsize - reserve, size - reserve


def disk_of(place: int | Path) -> Path:
    """The folder by which people know the disk of an open file or a folder: one of ours that others see, or have set."""
    path = Path(os.path.realpath(f"/proc/self/fd/{place}" if isinstance(place, int) else place))
    folder = path.parent if isinstance(place, int) else path
    return next((each.parent for each in (folder, *folder.parents) if each.name == PRIVATE), folder)


def require(place: int | Path, need: int, *, there: int = 0) -> None:
    """Raise NO_SPACE where `need` bytes are not free on a disk, TOO_LARGE where they would not be if it were empty.

    `there`: bytes of the same work that lie on it already. Raises OSError.
    """
    free, all_of_it = beyond_reserve(place)
    if 0 < all_of_it < need + there:
        disk = f"the whole disk of {disk_of(place)}"
        whole = f"The work needs {(need + there) / 1e6:.0f} MB, and {disk} has {all_of_it / 1e6:.0f} MB for it"
        raise AudioProcessingError(
            Code.TOO_LARGE, f"{whole}; cut the song, ask for less, or give [paths] work and outbox a larger disk."
        )
    if all_of_it and free < need:
        there_is = f"{max(free, 0) / 1e6:.0f} MB are free for it on the disk of {disk_of(place)}"
        message = f"The work needs {need / 1e6:.0f} MB, and {there_is}; make room there."
        raise AudioProcessingError(Code.NO_SPACE, message, str(place) if isinstance(place, Path) else None)


class Watch:
    """Watches a file that is being written: it stops before the reserve is used up."""

    def __init__(self, handle: int) -> None:
        self._handle, self._unwatched = handle, 0
        found = os.fstatvfs(handle)
        self._step = min(RESERVE_BYTES, found.f_blocks * found.f_frsize // RESERVE_SHARE) // 2

    def wrote(self, count: int) -> None:
        """So many bytes more are written. Raises OSError, ENOSPC, where only the reserve is left."""
        self._unwatched += count
        if self._unwatched >= self._step:
            self._unwatched = 0
            free, all_of_it = beyond_reserve(self._handle)
            if all_of_it and free < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(disk_of(self._handle)))
