"""Small parts of what goes to another machine and back."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from demixd.worker.ray import freight
from demixd.worker.ray.scratch import NEW_S, Scratch


def test_pieces_come_in_any_order(tmp_path: Path) -> None:
    stem = tmp_path / "stem"
    stem.touch()
    for at, piece in ((5, b"56789"), (0, b"01234")):
        freight._write(stem, piece, at)
    assert stem.read_bytes() == b"0123456789"


def test_a_song_that_has_become_shorter_is_not_sent(tmp_path: Path) -> None:
    """The machine would take zeros for the rest."""
    song = tmp_path / "job" / "tmp" / "song"
    song.parent.mkdir(parents=True)
    song.write_bytes(bytes(2 * freight.PIECE))
    stored: list[int] = []

    async def call(method: str, *given: Any) -> Any:
        if method == "store":
            stored.append(given[1])
            os.truncate(song, freight.PIECE + 1)
        return False

    async def bring() -> None:
        attempt = freight.Attempt(call, tmp_path / ".demixd" / "job" / "tmp", tmp_path / ".demixd" / "job" / "out")
        attempt._is_shared = call_nothing  # type: ignore[method-assign,assignment]
        await attempt.bring(song, "/box", str, told)

    with pytest.raises(OSError, match="shorter"):
        asyncio.run(bring())
    assert stored == [0]


async def call_nothing(_: object) -> bool:
    return False


async def told(_: float) -> None:
    return


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
