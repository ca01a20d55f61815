"""Decoded sound on disks: none within `[limits] memory_bytes`, and beyond it where there is room, with no name."""

import os
from pathlib import Path

import pytest

from daemons import make_song, running
from mounts import disk, mounts, needs_mounts, tmpfs
from processes import written

pytestmark = needs_mounts


def free(folder: Path) -> int:
    return os.statvfs(folder).f_bfree


def test_a_song_within_the_budget_writes_no_sound(tmp_path: Path) -> None:
    """[paths] work has room for a tenth of a second, and the outbox's disk, which would be told of, takes nothing either."""
    work = tmpfs(tmp_path / "work", 100 << 10)
    with mounts(work), running(tmp_path / "d", paths={"work": str(work.at)}) as daemon:
        make_song(daemon.inbox / "song.wav", 10.0)
        sidecar = daemon.final("song.wav")
    assert (sidecar["state"], sidecar["warnings"]) == ("done", [])


def test_a_song_within_the_budget_writes_its_stems_alone(tmp_path: Path) -> None:
    """With everything on a disk, the worker and its children write the bytes of the stems there, and no sound beside them.

    Sound would be 7 MB for the song, and as much for each stem.
    """
    with mounts(disk(tmp_path / "image", tmp_path / "d", 256)), running(tmp_path / "d") as daemon:
        worker = daemon.read("_daemon.json")["worker"]["pid"]
        before = written(worker)
        make_song(daemon.inbox / "song.wav", 20.0)
        assert daemon.final("song.wav")["state"] == "done"
        beyond = written(worker) - before - sum(path.stat().st_size for path in daemon.outbox.glob("song/*.wav"))
    assert 0 <= beyond < 1 << 20


def test_a_song_beyond_it_goes_to_the_outbox_where_work_is_too_small(tmp_path: Path) -> None:
    """It is done, its status says where its sound was, and the file without a name is gone."""
    work = tmpfs(tmp_path / "work", 100 << 10)
    with mounts(work), running(tmp_path / "d", paths={"work": str(work.at)}, limits={"memory_bytes": 0}) as daemon:
        make_song(daemon.inbox / "song.wav", 10.0)
        sidecar = daemon.final("song.wav")
        told = f"work-elsewhere: {work.at} has no room for this song's sound; the outbox's disk took it."
        assert (sidecar["state"], sidecar["warnings"]) == ("done", [told])
        daemon.until(lambda: not daemon.works(), "nothing is left behind")


def test_a_worker_that_is_killed_leaves_no_sound(tmp_path: Path) -> None:
    """What it had in [paths] work goes with it: nothing there has to be found and removed."""
    work = tmpfs(tmp_path / "work", 256 << 20)
    with mounts(work), running(tmp_path / "d", paths={"work": str(work.at)}, limits={"memory_bytes": 0}) as daemon:
        empty = free(work.at)
        make_song(daemon.inbox / "song.wav", 120.0)
        daemon.until(lambda: daemon.song("song.wav").get("step") == "separate", "it is being separated")
        assert free(work.at) < empty
        assert list(work.at.iterdir()) == []
        daemon.kill_worker()
        (daemon.inbox / "song.wav.cancel").touch()
        assert daemon.final("song.wav")["state"] == "cancelled"
        daemon.until(lambda: free(work.at) == empty, "nothing is left behind")


@pytest.mark.daily
def test_songs_of_which_the_disk_holds_one(tmp_path: Path) -> None:
    """What is decoded ahead takes none of the room that the running song's stems need: none has to begin again."""
    work = tmpfs(tmp_path / "work", 25 << 20)
    names = [f"{number}.wav" for number in range(3)]
    with mounts(work), running(tmp_path / "d", paths={"work": str(work.at)}, limits={"memory_bytes": 0}) as daemon:
        for name in names:
            make_song(daemon.folder / name, 20.0).rename(daemon.inbox / name)
        ends = [daemon.final(name) for name in names]
    assert [end["state"] for end in ends] == ["done"] * 3
    assert "no-space" not in daemon.log.read_text()
