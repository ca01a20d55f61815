"""`demixd pause` and `demixd resume` hold all songs up and let them go on, by one file."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import Daemon, running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path, fake=True) as daemon:
        yield daemon


def said(daemon: Daemon, *words: str) -> str:
    """What a command prints that succeeds and has nothing to complain of."""
    done = daemon.command(*words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_songs_wait_until_the_pause_is_over(daemon: Daemon) -> None:
    """A song that is dropped meanwhile is `paused`, and is done once the pause is over."""
    assert said(daemon, "pause") == (
        "Paused: nothing new is begun, and the running songs go on to their end. `demixd resume` ends it.\n"
    )
    daemon.make_song(daemon.inbox / "a.wav", 0.3)
    daemon.until(lambda: daemon.song("a.wav").get("reason") == "paused", "paused")
    assert said(daemon, "resume") == "The pause is over: songs are begun again.\n"
    daemon.until(lambda: daemon.song("a.wav")["state"] == "done", "done")


def test_now(daemon: Daemon) -> None:
    """With --now the running song waits, too."""
    daemon.hold.touch()
    daemon.make_song(daemon.inbox / "a.wav", 0.3)
    daemon.until(lambda: daemon.song("a.wav").get("step") == "separate", "it runs")
    assert said(daemon, "pause", "--now") == (
        "Paused: nothing new is begun, and the running songs wait, too. `demixd resume` ends it.\n"
    )
    daemon.until(lambda: daemon.song("a.wav").get("reason") == "paused", "paused")
    daemon.hold.unlink()
    said(daemon, "resume")
    assert daemon.until(lambda: (s := daemon.song("a.wav"))["state"] == "done" and s, "done")["attempt"] == 1


def test_twice(daemon: Daemon) -> None:
    """Either command can be given again; the last word counts."""
    file = daemon.inbox / ".pause"
    said(daemon, "pause", "--now")
    assert file.read_text() == "now\n"
    assert said(daemon, "pause").startswith("Still paused: nothing new is begun, and the running songs go on")
    assert file.read_text() == ""
    said(daemon, "resume")
    assert not file.exists()
    assert said(daemon, "resume") == "There is no pause to end: no .pause in the inbox.\n"


def test_hours_go_on(tmp_path: Path) -> None:
    """A pause by the clock is not ended, with or without a file, and that is said."""
    hour = time.localtime().tm_hour
    hours = f"{(hour + 10) % 24}:00-{(hour + 12) % 24}:00"
    with running(tmp_path, fake=True, schedule={"hours": hours}) as daemon:
        daemon.until(lambda: (daemon.read("_daemon.json").get("paused") or {}).get("by") == "schedule", "paused")
        told = "Outside [schedule] hours only urgent songs are begun, all the same: `demixd status` says until when.\n"
        assert said(daemon, "resume") == f"There is no pause to end: no .pause in the inbox.\n{told}"
        said(daemon, "pause")
        daemon.until(lambda: daemon.read("_daemon.json")["paused"]["by"] == "file", "paused by the file")
        assert said(daemon, "resume") == f"The pause is over: songs are begun again.\n{told}"


def test_without_a_daemon(tmp_path: Path) -> None:
    """It says that none runs; the pause is there for the next one."""
    daemon = Daemon(tmp_path)
    for words in (("pause",), ("resume",)):
        done = daemon.command(*words)
        assert done.returncode == 0
        assert "No daemon runs on this spool" in done.stderr
    assert not (daemon.inbox / ".pause").exists()


def test_without_an_inbox(tmp_path: Path) -> None:
    """A pause that cannot be made is a sentence, and status 1."""
    daemon = Daemon(tmp_path)
    daemon.inbox.rmdir()
    done = daemon.command("pause")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"{daemon.inbox}" in done.stderr
