"""Races, forced, beside those of the matrix (test_matrix.py): what was seen of a job across a crash, and whose name it is."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from daemons import PATIENCE_S, Daemon, make_song
from walk_watch import Eyes
from watching import again_and_again, needs_strace


def played(tmp_path: Path, at: dict[str, str], **sections: dict[str, Any]) -> Daemon:
    """A daemon that has done all that there was to do with `song.wav`, and is stopped."""
    daemon = Daemon(tmp_path, fake=True, **sections)
    make_song(daemon.inbox / "song.wav", 0.3)
    make_song(tmp_path / "again.wav", 0.5).rename(tmp_path / "again")
    try:
        daemon.start(at)
        if any("kill" in action for action in at.values()):
            assert daemon.process is not None
            assert daemon.process.wait(timeout=60) == -signal.SIGKILL
            daemon.start()
        daemon.ready().quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()
    return daemon


@needs_strace
def test_a_song_that_ran_when_the_daemon_died(tmp_path: Path) -> None:
    """The next daemon shows it waiting at once: never as running, with less progress than it had. On a slow disk too."""
    daemon = Daemon(tmp_path, fake=True)
    eyes = Eyes(daemon.spool / "status", daemon.outbox)
    slow = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=50000")
    try:
        daemon.start().ready()
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.until(lambda: daemon.song("song.wav").get("progress", {}).get("fraction", 0) > 0.1, "some progress")
        with again_and_again(eyes.look) as raised:
            daemon.end()
            daemon.start(under=("strace", "-f", "-qq", *slow, "-o", "/dev/null"))
            daemon.until(lambda: daemon.song("song.wav")["reason"] == "retry", "it waits again")
        os.kill(daemon.read("_daemon.json")["pid"], signal.SIGTERM)  # not strace, which is our child
        assert daemon.process is not None
        daemon.process.wait(timeout=PATIENCE_S)
    finally:
        daemon.end()
    assert (raised, eyes.wrong) == ([], [])


def test_a_new_drop_that_ended_first_when_the_daemon_died(tmp_path: Path) -> None:
    """It was no song, and failed while the old one ran: at the next start the sidecar is its own, and stays so."""
    daemon = Daemon(tmp_path, fake=True)
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
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait()
        daemon.hold.unlink()
        daemon.start().ready().quiet()
        sidecar = daemon.song("song.wav")
        assert (sidecar["state"], sidecar["error"]["code"]) == ("failed", "bad-options")
        assert sidecar["previous"] == {"job_id": old["job_id"], "state": "cancelled", "output": None}
        assert daemon.works() == []
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_stopped_as_it_begins(tmp_path: Path) -> None:
    """SIGTERM stops the daemon within 5 s also where it comes before the first look, as soon as there is a worker."""
    daemon = Daemon(tmp_path, fake=True)
    try:
        daemon.start()
        assert daemon.process is not None
        children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
        while not children.read_text():
            time.sleep(0.001)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=5) == 0
    finally:
        daemon.end()


def test_a_name_that_is_taken_in_between(tmp_path: Path) -> None:
    """Somebody makes a folder of the result's name just before the rename: it is left alone, the next number is taken."""
    daemon = played(tmp_path, {"6-rename": "folder:song"})
    assert daemon.song("song.wav")["output"]["dir"] == "song (2)"
    assert list((daemon.outbox / "song").iterdir()) == []
    assert (daemon.outbox / "song (2)" / "stems.json").exists()


def test_a_result_that_is_taken_away_at_once(tmp_path: Path) -> None:
    """A consumer moves the result away, and the daemon dies before it has noted it: done once, not again."""
    daemon = played(tmp_path, {"7-final": "take:song kill"})
    assert daemon.song("song.wav")["state"] == "done"
    assert (tmp_path / "taken" / "stems.json").exists()
    assert [path.name for path in daemon.outbox.iterdir()] == [".demixd"]


def test_done_is_full_of_the_name(tmp_path: Path) -> None:
    """Originals of the same name in done/ are never replaced: the next number is taken."""
    done = tmp_path / "spool" / "done"
    done.mkdir(parents=True)
    for name in ("song.wav", "song (2).wav"):
        (done / name).write_text(name)
    played(tmp_path, {})
    assert sorted(path.name for path in done.iterdir()) == ["song (2).wav", "song (3).wav", "song.wav"]
    assert (done / "song.wav").read_text() == "song.wav"


def test_a_kept_song_under_another_inode(tmp_path: Path) -> None:
    """Under `keep`, where only the inode differs the content decides: the same is not done again, another is."""
    daemon = Daemon(tmp_path, fake=True, inbox={"after": "keep"})
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
        data[-1] ^= 1
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
