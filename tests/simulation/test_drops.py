"""New drops and originals, each in one story; the matrix of cells has them at every point."""

import os
import re
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from demixd.protocol.job import Job
from demixd.protocol.status import WatchStatus
from demixd.supervisor.inbox.poller import WHOLE_LOOKS
from demixd.supervisor.inbox.watch import InboxWatch
from demixd.supervisor.jobs.table import JobTable
from simulated import Killed, Simulated, simulated
from simulated_songs import make_song


def test_a_new_drop_that_ended_first_when_the_daemon_died(tmp_path: Path) -> None:
    """It was no song, and failed while the old one ran: at the next start the sidecar is its own, and stays so."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().ready()
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.3)
        old = daemon.until(lambda: (s := daemon.song("song.wav")).get("step") == "separate" and s, "it runs")
        (daemon.inbox / "song.wav.job.json").write_text('{"what": 1}')
        make_song(tmp_path / "new.wav", 0.5).rename(daemon.inbox / "song.wav")
        daemon.until(lambda: (daemon.spool / "failed" / "song.wav").exists(), "the new drop has failed")
        beat = daemon.read("_daemon.json")["seq"]
        daemon.until(lambda: daemon.read("_daemon.json")["seq"] > beat, "that is written down")
        assert daemon.song("song.wav")["job_id"] == old["job_id"]
        daemon.kill()
        daemon.hold.unlink()
        daemon.start().ready().quiet()
        sidecar = daemon.song("song.wav")
        assert (sidecar["state"], sidecar["error"]["code"]) == ("failed", "bad-options")
        assert sidecar["previous"] == {"job_id": old["job_id"], "state": "cancelled", "output": None}
        assert daemon.works() == []
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_crash_while_a_new_drop_takes_the_place_of_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    """The old job's end is not lost with it, also where the new drop is gone before the next start."""
    daemon, add = Simulated(tmp_path), JobTable.add
    song = daemon.inbox / "song.wav"

    def killed(table: JobTable, jobs: Iterable[Job]) -> None:
        raise Killed

    try:
        daemon.start().ready()
        song.touch()
        old = daemon.until(lambda: (s := daemon.song("song.wav")).get("reason") == "empty" and s, "it waits")
        monkeypatch.setattr(JobTable, "add", killed)
        make_song(tmp_path / "new.wav", 0.3).rename(song)
        daemon.until_dead()
        monkeypatch.setattr(JobTable, "add", add)
        if is_deleted:
            song.unlink()
        daemon.start().ready()
        sidecar = daemon.final("song.wav")
        assert (sidecar["state"], sidecar["job_id"] == old["job_id"]) == (
            ("cancelled", True) if is_deleted else ("done", False)
        )
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_done_is_full_of_the_name(tmp_path: Path) -> None:
    """Originals of the same name in done/ are never replaced: the next number is taken."""
    done = tmp_path / "spool" / "done"
    done.mkdir(parents=True)
    for name in ("song.wav", "song (2).wav"):
        (done / name).write_text(name)
    with simulated(tmp_path) as daemon:
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.final("song.wav")
        daemon.quiet()
    assert sorted(path.name for path in done.iterdir()) == ["song (2).wav", "song (3).wav", "song.wav"]
    assert (done / "song.wav").read_text() == "song.wav"


def test_a_kept_song_under_another_inode(tmp_path: Path) -> None:
    """Under `keep`, where only the inode differs the content decides: the same is not done again, another is."""
    daemon = Simulated(tmp_path, inbox={"after": "keep"})
    song = make_song(daemon.inbox / "song.wav", 0.3)
    try:
        daemon.start().ready()
        first = daemon.final("song.wav")
        shutil.copy2(song, tmp_path / "copy")
        (tmp_path / "copy").rename(song)
        daemon.quiet()
        assert daemon.song("song.wav")["job_id"] == first["job_id"]
        status = song.stat()
        data = bytearray(song.read_bytes())
        data[-10] ^= 1
        (tmp_path / "other").write_bytes(data)
        shutil.copystat(song, tmp_path / "other")
        (tmp_path / "other").rename(song)
        assert (song.stat().st_size, song.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
        second = daemon.until(
            lambda: (s := daemon.song("song.wav"))["job_id"] != first["job_id"] and s["state"] == "done" and s, "again"
        )
        assert second["previous"]["job_id"] == first["job_id"]
        song.touch()
        third = daemon.until(
            lambda: (s := daemon.song("song.wav"))["job_id"] != second["job_id"] and s["state"] == "done" and s, "touch"
        )
        assert third["duplicate_of"] == second["job_id"]
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.mark.parametrize("options", ['{"tag": "table 4", "stems": 1}', '{"tag": "table 4", "profile": "nobody\'s"}'])
def test_refused_options_keep_their_tag(tmp_path: Path, options: str) -> None:
    """Whoever finds songs by their tag finds one that is `bad-options`."""
    with simulated(tmp_path) as daemon:
        (daemon.inbox / "song.wav.job.json").write_text(options)
        make_song(daemon.inbox / "song.wav", 0.2)
        sidecar = daemon.final("song.wav")
        assert (sidecar["error"]["code"], sidecar["tag"]) == ("bad-options", "table 4")


def test_the_log_says_why_a_song_waits(tmp_path: Path) -> None:
    """Behind the reason stands its sentence."""
    with simulated(tmp_path) as daemon:
        (daemon.inbox / "cut.wav.job.json").write_text(f'{{"wait_for_sha256": "{"0" * 64}"}}')
        make_song(daemon.inbox / "cut.wav", 0.3)
        daemon.until(lambda: daemon.song("cut.wav").get("reason") == "truncated", "it waits")
        assert "\ncut.wav: waiting (truncated): The song's sha256 is " in daemon.log.read_text()


def test_what_is_cut_short_is_waited_for_until_a_time_that_is_told(tmp_path: Path) -> None:
    """The sidecar says until when; a start begins the grace anew, and says so too, also where a hash is waited for."""
    daemon = Simulated(tmp_path, limits={"truncated_grace_s": 300.0})
    try:
        daemon.start().ready()
        (daemon.inbox / "cut.wav.job.json").write_text(f'{{"wait_for_sha256": "{"0" * 64}"}}')
        make_song(daemon.inbox / "cut.wav", 0.3)

        def left_s() -> float:
            told = daemon.until(lambda: (s := daemon.song("cut.wav")).get("reason") == "truncated" and s, "it waits")
            until = re.search(r"The rest is waited for until (.*) UTC\.", told["message"])
            assert until is not None, told["message"]
            return datetime.fromisoformat(f"{until[1]}+00:00").timestamp() - daemon.clock.wall()

        assert 280 < left_s() <= 300
        daemon.sleep(200)
        assert 80 < left_s() <= 100
        daemon.stop()
        daemon.start().ready()
        daemon.sleep(10)
        assert 280 < left_s() <= 300
        assert daemon.final("cut.wav")["error"]["code"] == "truncated"
    finally:
        daemon.end()


@pytest.mark.parametrize("mode", ["events", "poll"])
def test_a_change_of_which_the_kernel_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """A song that was answered and stays is written anew in its place: the next scan sees it, and where the kernel tells of
    changes, and has not told of this one, the sixth at the latest."""
    status = WatchStatus(mode=mode, why="")
    monkeypatch.setattr(InboxWatch, "check", lambda watch, *_: setattr(watch, "status", status))
    most = (WHOLE_LOOKS if mode == "events" else 1) * 5.0
    with simulated(tmp_path, inbox={"after": "keep", "scan_interval": 5.0}) as daemon:
        song = daemon.make_song(daemon.inbox / "a.wav", 0.3)
        for seconds in (0.7, 0.2):
            last = daemon.final("a.wav")["job_id"]
            daemon.quiet()
            song.write_bytes(daemon.make_song(tmp_path / f"{seconds}.wav", seconds).read_bytes())
            began = daemon.clock.now()
            daemon.until(lambda last=last: daemon.song("a.wav")["job_id"] != last, "a new job")
            assert daemon.clock.now() - began <= most + 0.5
        daemon.final("a.wav")


@pytest.mark.parametrize(
    ("size_mb", "end", "told"),
    [
        (10, ("failed", "too-large"), "needs 12 MB, and the whole disk of {} has 10 MB for it; cut the song,"),
        (100, ("waiting", "no-space"), "needs 12 MB, and 5 MB are free for it on the disk of {}; make room there."),
    ],
)
def test_a_song_whose_copy_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_mb: int, end: tuple[str, str], told: str
) -> None:
    """It fails where the whole disk could not hold its copy, and else waits; how much is needed, and there, is said."""
    disk, ask = SimpleNamespace(f_frsize=1_000_000, f_blocks=size_mb, f_bavail=10), os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda place: disk if isinstance(place, int) else ask(place))
    with simulated(tmp_path) as daemon:
        make_song(daemon.inbox / "song.wav", size=12_000_000)

        def at() -> tuple[str | None, str | None]:
            song = daemon.song("song.wav")
            return song.get("state"), song.get("reason") or (song.get("error") or {}).get("code")

        daemon.until(lambda: at() == end, f"it is {end}")
        assert told.format(daemon.outbox) in daemon.song("song.wav")["message"]
