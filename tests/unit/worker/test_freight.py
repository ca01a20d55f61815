"""Small parts of what goes to another machine and back."""

import errno
import os
import time
from pathlib import Path

import pytest

from demixd.worker.ray import freight
from demixd.worker.ray.scratch import NEW_S, Scratch


def test_a_piece_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes a part of it without an error, and says so at the next call."""
    real, left = os.pwrite, [3, 3, 0]

    def little(handle: int, data: memoryview, at: int) -> int:
        if not (count := left.pop(0)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data[:count], at)

    with (tmp_path / "stem").open("wb") as file:
        freight._write(file.fileno(), b"0123456789", 5)
        monkeypatch.setattr(os, "pwrite", little)
        with pytest.raises(OSError, match="No space left"):
            freight._write(file.fileno(), b"abcdefghij", 5)
    assert (tmp_path / "stem").read_bytes() == bytes(5) + b"abcdef6789"


def test_folders_of_processes_that_were_killed_go(tmp_path: Path) -> None:
    """With the next process; not those that one holds, nor those that have come just now."""
    old, new, bare, held = (tmp_path / f"x-{name}" for name in ("old", "new", "bare", "held"))
    keeper = Scratch(tmp_path, "y-")
    keeper.path.rename(held)
    for folder in (old, new, bare):
        (folder / "song").mkdir(parents=True)
    for folder in (old, new):
        (folder / "lock").touch()
    for folder in (old, bare, held):
        os.utime(folder, (0, time.time() - NEW_S - 1))
    mine = Scratch(tmp_path, "x-")
    assert {path.name for path in tmp_path.iterdir()} == {"x-new", "x-held", mine.path.name}
    assert (mine.path.stat().st_mode & 0o777) == 0o700
    mine.remove()
    assert not mine.path.exists()
    keeper.remove()
