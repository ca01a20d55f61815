"""Folders of the inbox that their songs have left: what becomes of them, and of what lay beside the songs."""

from itertools import pairwise
from pathlib import Path

import pytest

from demixd.supervisor.inbox.emptied import AT_ONCE, WAIT_S
from demixd.supervisor.runs.originals import LARGEST_TWIN
from simulated import simulated
from simulated_songs import make_song

MOVE = {"leftovers": "move"}


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.name.startswith(".demixd")}


def album(folder: Path) -> None:
    (folder / "CD 1" / "Scans").mkdir(parents=True)
    make_song(folder / "CD 1" / "a.wav", 0.2)
    make_song(folder / "b.wav", 0.3)
    for name in ("cover.jpg", "CD 1/a.cue", "CD 1/Scans/1.png", "Thumbs.db"):
        (folder / name).write_text(name)


def test_they_stay(tmp_path: Path) -> None:
    """By default folders, and what lies in them, stay as they are."""
    with simulated(tmp_path) as daemon:
        album(daemon.inbox / "Album")
        for name in ("Album/CD 1/a.wav", "Album/b.wav"):
            assert daemon.final(name)["state"] == "done"
        daemon.sleep(2 * WAIT_S)
        assert tree(daemon.inbox) == {
            *("Album", "Album/CD 1", "Album/CD 1/Scans", "Album/cover.jpg", "Album/Thumbs.db"),
            *("Album/CD 1/a.cue", "Album/CD 1/Scans/1.png"),
        }


def test_they_follow(tmp_path: Path) -> None:
    """With `leftovers = "move"` all of it follows the songs, after a minute in which nothing has changed; empty folders go."""
    with simulated(tmp_path, inbox=MOVE) as daemon:
        album(daemon.inbox / "Artist" / "Album")
        before = tree(daemon.inbox)
        daemon.final("Artist/Album/CD 1/a.wav")
        daemon.final("Artist/Album/b.wav")
        daemon.sleep(WAIT_S / 2)
        assert (daemon.inbox / "Artist/Album/cover.jpg").exists()
        (daemon.inbox / "Artist/Album/late.txt").write_text("late")
        daemon.sleep(WAIT_S - 5)
        assert (daemon.inbox / "Artist/Album/cover.jpg").exists()
        daemon.sleep(30)
        assert tree(daemon.inbox) == set()
        assert tree(daemon.spool / "done") == before | {"Artist/Album/late.txt"}
        daemon.quiet()


@pytest.mark.parametrize("what", ["song", "part", "link", "profile", "root"])
def test_what_is_in_use_stays(tmp_path: Path, what: str) -> None:
    """A folder with another song, a file that is being written, or a link stays, and so do a profile's folder and the inbox."""
    folder = {"profile": "karaoke", "root": ""}.get(what, "Album")
    with simulated(tmp_path, inbox=MOVE, **{"profiles.karaoke": {"stems": ["vocals"]}}) as daemon:
        place = daemon.inbox / folder
        place.mkdir(exist_ok=True)
        make_song(place / "a.wav", 0.2)
        (place / "cover.jpg").write_text("cover")
        if what == "song":
            (place / "b.wav").touch()
        if what == "part":
            (place / "b.wav.part").touch()
        if what == "link":
            (place / "link").symlink_to("cover.jpg")
        daemon.final(f"{folder}/a.wav".lstrip("/"))
        daemon.sleep(3 * WAIT_S)
        assert place.is_dir()
        assert (place / "cover.jpg").exists() is (what != "profile")
        if what == "song":
            (place / "b.wav").unlink()
            daemon.sleep(2 * WAIT_S)
            assert not place.exists()


@pytest.mark.parametrize(("at_once", "size"), [(AT_ONCE, 0), (2, LARGEST_TWIN // 2), (1, LARGEST_TWIN + 1)])
def test_many_files_follow_in_portions(tmp_path: Path, at_once: int, size: int) -> None:
    """Of many or large files beside a song few are moved at a time, with the heartbeat between; in the end all have followed."""
    with simulated(tmp_path, inbox={**MOVE, "scan_interval": 20}) as daemon:
        (daemon.inbox / "Album" / "Scans").mkdir(parents=True)
        make_song(daemon.inbox / "Album" / "a.wav", 0.2)
        for number in range(3 * at_once):
            with (daemon.inbox / "Album" / "Scans" / f"{number}.png").open("wb") as file:
                file.truncate(size)
        daemon.final("Album/a.wav")
        scans, moved = daemon.spool / "done" / "Album" / "Scans", [0]
        while (daemon.inbox / "Album").exists():
            daemon.turn()
            moved.append(len(list(scans.iterdir())) if scans.exists() else 0)
        steps = [after - before for before, after in pairwise(moved) if after > before]
        assert steps == 3 * [at_once]
        assert moved.index(3 * at_once) - moved.index(at_once) < 10, "the rest does not wait for the next scan"
