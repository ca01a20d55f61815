"""`demixd retry` brings songs back that failed or were cancelled, by files alone."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import Daemon, running

MEMORY = Path("/dev/shm")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path, fake=True) as daemon:
        yield daemon


def cancelled(daemon: Daemon, name: str, **options: object) -> Path:
    """A song that is cancelled while it runs; where it lies then."""
    daemon.hold.touch()
    (daemon.inbox / name).parent.mkdir(parents=True, exist_ok=True)
    if options:
        (daemon.inbox / f"{name}.job.json").write_text(json.dumps(options))
    daemon.make_song(daemon.folder / "song.wav", 0.3)
    shutil.copy(daemon.folder / "song.wav", daemon.inbox / name)
    daemon.until(lambda: daemon.song(name).get("step") == "separate", "it runs")
    (daemon.inbox / f"{name}.cancel").touch()
    assert daemon.final(name)["state"] == "cancelled"
    daemon.quiet()
    daemon.hold.unlink()
    return daemon.spool / "failed" / name


def test_a_cancelled_song(daemon: Daemon) -> None:
    """It comes back with its options, and is a new job that knows the one before."""
    stored = cancelled(daemon, "box/a.wav", tag="mine", format="flac")
    assert stored.exists()
    before = daemon.song("box/a.wav")["job_id"]
    done = daemon.command("retry", "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, "box/a.wav: back in the inbox, with its options\n", "")
    song = daemon.until(lambda: (s := daemon.song("box/a.wav"))["state"] == "done" and s, "done")
    assert (song["tag"], song["options"]["format"], song["previous"]["job_id"]) == ("mine", "flac", before)
    assert not stored.exists()
    assert not stored.with_name("a.wav.job.json").exists()


def test_a_failed_song_with_other_options(daemon: Daemon) -> None:
    """Options that were wrong can be corrected where they lie, and come back with the song."""
    daemon.make_song(daemon.folder / "song.wav", 0.3)
    (daemon.inbox / "a.wav.job.json").write_text('{"format": "none"}')
    shutil.copy(daemon.folder / "song.wav", daemon.inbox / "a.wav")
    assert daemon.final("a.wav")["error"]["code"] == "bad-options"
    daemon.quiet()
    (daemon.spool / "failed/a.wav.job.json").write_text('{"format": "flac"}')
    assert daemon.command("retry", "a.wav").returncode == 0
    daemon.until(lambda: daemon.song("a.wav")["state"] == "done", "done")
    assert daemon.song("a.wav")["options"]["format"] == "flac"


def test_one_that_had_to_be_numbered(daemon: Daemon) -> None:
    """In failed/ another file has its name; the song is known by its size and time."""
    other = daemon.spool / "failed/a.wav"
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"another song")
    cancelled(daemon, "a.wav")
    assert (daemon.spool / "failed/a (2).wav").exists()
    assert daemon.command("retry", "a.wav").returncode == 0
    daemon.until(lambda: daemon.song("a.wav")["state"] == "done", "done")
    assert other.read_bytes() == b"another song"


def test_one_that_was_kept(tmp_path: Path) -> None:
    """Where policy leaves songs in the inbox, it gets another time there."""
    with running(tmp_path, fake=True, inbox={"after": "keep"}) as daemon:
        cancelled(daemon, "a.wav")
        done = daemon.command("retry", "a.wav")
        assert done.stdout == "a.wav: tried again, where it lies in the inbox\n"
        daemon.until(lambda: daemon.song("a.wav")["state"] == "done", "done")


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="no other filesystem: mount /dev/shm")
def test_from_another_filesystem(tmp_path: Path) -> None:
    """Where it cannot be renamed it is copied, under a dot name, and removed then."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        running(tmp_path, fake=True, paths={"failed": folder}) as daemon,
    ):
        cancelled(daemon, "a.wav", tag="mine")
        assert Path(folder, "a.wav").exists()
        assert daemon.command("retry", "a.wav").returncode == 0
        assert daemon.until(lambda: (s := daemon.song("a.wav"))["state"] == "done" and s, "done")["tag"] == "mine"
        assert list(Path(folder).iterdir()) == []


def test_what_cannot_come_back(daemon: Daemon) -> None:
    """Each is told why, with status 1, and the others come back all the same."""
    daemon.make_song(daemon.inbox / "done.wav", 0.3)
    assert daemon.final("done.wav")["state"] == "done"
    gone = cancelled(daemon, "gone.wav")
    gone.unlink()
    linked = cancelled(daemon, "linked.wav")
    linked.rename(linked.with_name("elsewhere"))
    linked.symlink_to("elsewhere")
    cancelled(daemon, "good.wav")
    done = daemon.command("retry", "done.wav", "gone.wav", "linked.wav", "good.wav", "none")
    assert done.returncode == 1
    assert "done.wav: no song of that name is failed or cancelled" in done.stderr
    assert "none: no song of that name is failed or cancelled" in done.stderr
    for name in ("gone.wav", "linked.wav"):
        assert f"{name}: it does not lie in {daemon.spool}/failed any more: drop it again" in done.stderr
    assert done.stdout == "good.wav: back in the inbox\n"
    daemon.until(lambda: daemon.song("good.wav")["state"] == "done", "done")
    assert linked.is_symlink()


def test_another_file_has_the_name(daemon: Daemon) -> None:
    """A song that was dropped since is not replaced, and neither are its options."""
    stored = cancelled(daemon, "a.wav", tag="old")
    assert daemon.stop() == 0
    (daemon.inbox / "a.wav.job.json").write_text('{"tag": "new"}')
    refused = daemon.command("retry", "a.wav")
    assert refused.returncode == 1
    assert "a.wav: it cannot come back" in refused.stderr
    assert (daemon.inbox / "a.wav.job.json").read_text() == '{"tag": "new"}'
    assert stored.exists()
    assert stored.with_name("a.wav.job.json").exists()
    (daemon.inbox / "a.wav").write_bytes(b"another")
    refused = daemon.command("retry", "a.wav")
    assert "the inbox has another file of that name" in refused.stderr
    assert stored.exists()


def test_without_a_daemon(tmp_path: Path) -> None:
    """It says that none runs, and that the song waits for it."""
    with running(tmp_path, fake=True) as daemon:
        cancelled(daemon, "a.wav")
    done = daemon.command("retry", "a*")
    assert done.returncode == 0
    assert "No daemon runs on this spool" in done.stderr
    assert (daemon.inbox / "a.wav").exists()


def test_a_word_that_is_none(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    assert daemon.command("retry", "../a.wav").returncode == 2
    assert daemon.command("retry").returncode == 2
