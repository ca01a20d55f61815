"""Hundreds of jobs in one daemon: at their end it holds what it held after the first ten."""

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from daemons import Daemon, make_song
from processes import handles, resident, watched
from queues import running
from watching import holds

ROUND = ("done", "failed", "duplicate", "album", "waiting cancelled", "running cancelled")
"""What becomes of the songs of one round, one each."""

EACH_BYTES = 4096
"""For each job: what is over is in the ledger alone, and no table grows with it. But freed memory comes back in pieces, and
SQLite, libsndfile and the allocator take some the first times that they did not take for the first ten."""

FIXED_BYTES = 4 << 20


def play(daemon: Daemon, number: int) -> None:
    """One round of songs to their ends."""
    names = {what: f"{number} {what}.wav" for what in ROUND}
    names["album"] = f"album {number}/disc/song.wav"
    rate = random.Random(number).randrange(8000, 48000)
    song = make_song(daemon.folder / "song.wav", 0.1, rate).read_bytes()
    daemon.hold.touch()
    (daemon.inbox / names["running cancelled"]).write_bytes(song + b"1")
    running(daemon, names["running cancelled"])
    (daemon.inbox / names["album"]).parent.mkdir(parents=True)
    for what in ("done", "album", "waiting cancelled"):
        (daemon.inbox / names[what]).write_bytes(song + what.encode())
    (daemon.inbox / names["failed"]).write_bytes(b"RIFF no song " + bytes(number))
    daemon.until(lambda: daemon.song(names["waiting cancelled"]).get("reason") == "queued", "it waits")
    for what in ("waiting cancelled", "running cancelled"):
        (daemon.inbox / f"{names[what]}.cancel").touch()
    for what in ("waiting cancelled", "running cancelled"):
        assert daemon.final(names[what])["state"] == "cancelled"
    daemon.hold.unlink()
    assert daemon.final(names["done"])["state"] == "done"
    (daemon.inbox / names["duplicate"]).write_bytes(song + b"done")
    assert daemon.final(names["duplicate"])["duplicate_of"]
    assert daemon.final(names["failed"])["state"] == "failed"
    assert daemon.final(names["album"])["state"] == "done"
    daemon.until(lambda: not (daemon.inbox / names["album"]).exists(), "its original is put away")
    shutil.rmtree(daemon.inbox / f"album {number}")


def worker_holds(daemon: Daemon) -> tuple[int, int]:
    """Its descriptors and threads."""
    return holds(daemon.read("_daemon.json")["worker"]["pid"])


def held(daemon: Daemon) -> tuple[object, ...]:
    daemon.quiet()
    daemon.until(lambda: watched(daemon) == {daemon.inbox.stat().st_ino}, "only the inbox is watched")
    return handles(daemon), worker_holds(daemon), daemon.works(), list(daemon.inbox.iterdir())


@pytest.mark.parametrize("jobs", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_many_jobs_in_one_daemon(tmp_path: Path, jobs: int, record_property: Callable[[str, object], None]) -> None:
    """Done, failed, cancelled, duplicate, in folders that go: no descriptor, thread, watch, folder or memory is left behind."""
    daemon = Daemon(tmp_path, fake=True)
    rounds = -(-jobs // len(ROUND))
    try:
        daemon.start().ready()
        for number in range(2):
            play(daemon, number)
        before, memory = held(daemon), resident(daemon)
        for number in range(2, rounds):
            play(daemon, number)
        assert held(daemon) == before
        grown = resident(daemon) - memory
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert grown <= FIXED_BYTES + EACH_BYTES * jobs, f"{grown} bytes more after {jobs} jobs"
    record_property("jobs in one daemon that left nothing behind", rounds * len(ROUND))
    record_property(f"bytes that the supervisor grew by over {jobs} jobs", grown)


def held_by_worker(daemon: Daemon) -> list[str]:
    """What it has open below the spool."""
    folder, found = Path(f"/proc/{daemon.read('_daemon.json')['worker']['pid']}/fd"), []
    for handle in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(handle.readlink()))
    return [each for each in found if each.startswith(str(daemon.spool))]


def test_a_song_that_is_over_is_let_go(tmp_path: Path) -> None:
    """Done, damaged or cancelled: the real worker holds no folder of it open any more, which would keep its share busy."""
    daemon = Daemon(tmp_path)
    try:
        daemon.start().ready()
        make_song(daemon.inbox / "done.wav", 1.0)
        (daemon.inbox / "failed.wav").write_bytes(b"RIFF no song" + bytes(500))
        make_song(daemon.inbox / "cancelled.wav", 60.0)
        daemon.until(lambda: daemon.song("cancelled.wav").get("step") == "separate", "it is being separated")
        assert held_by_worker(daemon)
        (daemon.inbox / "cancelled.wav.cancel").touch()
        for state in ("cancelled", "done", "failed"):
            assert daemon.final(f"{state}.wav")["state"] == state
        daemon.until(lambda: not held_by_worker(daemon), "nothing of the spool is open")
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.mark.slow
def test_many_songs_in_one_real_worker(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """The warm model: after 60 songs it holds the descriptors, threads and (within 64 MB) memory that it held after ten."""
    daemon, after = Daemon(tmp_path), []
    try:
        daemon.start().ready()
        for number in range(60):
            make_song(daemon.inbox / f"{number}.wav", 1.0)
            assert daemon.final(f"{number}.wav")["state"] == "done"
            if number in (9, 59):
                daemon.quiet()
                worker = daemon.read("_daemon.json")["worker"]
                after.append((worker_holds(daemon), worker["pid"], worker["memory_bytes"]))
        assert daemon.stop() == 0
    finally:
        daemon.end()
    (first, pid, memory), (last, same_pid, grown) = after
    assert (first, pid) == (last, same_pid)
    assert grown - memory < 64 << 20
    record_property("bytes that the real worker grew by over 50 songs", grown - memory)
