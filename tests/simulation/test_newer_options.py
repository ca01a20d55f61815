"""A newer option file of a song that has not begun counts as soon as it has settled, also for the song's place in the queue."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from end_lines import lines
from simulated import Simulated
from simulated_songs import make_song

NAMES = ("one.wav", "two.wav", "three.wav")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Simulated]:
    """One that is held with a song, while three more wait in their order."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().ready()
        daemon.hold.touch()
        make_song(daemon.inbox / "first.wav", 0.3)
        daemon.until(lambda: daemon.song("first.wav").get("step") == "separate", "it runs")
        for number, name in enumerate(NAMES):
            make_song(daemon.inbox / name, 0.4 + number / 10)
            daemon.until(lambda name=name: daemon.song(name).get("reason") == "queued", f"{name} waits")
        yield daemon
        assert daemon.stop() == 0
    finally:
        daemon.end()


def choose(daemon: Simulated, name: str, **options: Any) -> None:
    """Put an option file beside the song by a rename, as a program does."""
    new = daemon.folder / "options"
    new.write_text(json.dumps(options))
    new.rename(daemon.inbox / f"{name}.job.json")


def comes_to(daemon: Simulated, *names: str) -> None:
    """Wait until the songs are in the queue in this order."""

    def queue() -> tuple[str, ...]:
        return tuple(each["name"] for each in daemon.read("_daemon.json")["queue"])

    daemon.until(lambda: queue() == names, f"the queue is {names}")


def order(daemon: Simulated) -> list[str]:
    """Let all songs be done; in which order they were."""
    daemon.hold.unlink()
    for name in ("first.wav", *NAMES):
        assert daemon.final(name)["state"] == "done"
    done = [line["input"]["name"] for line in lines(daemon.spool / "status") if line["state"] == "done"]
    return [name for name in done if name in NAMES]


def test_a_priority_counts(daemon: Simulated) -> None:
    """The last song comes first, and another priority brings it back to the end; nothing of it has begun meanwhile."""
    comes_to(daemon, *NAMES)
    choose(daemon, "three.wav", priority=5)
    comes_to(daemon, "three.wav", "one.wav", "two.wav")
    choose(daemon, "three.wav", priority=-5)
    comes_to(daemon, *NAMES)
    choose(daemon, "two.wav", priority=1)
    comes_to(daemon, "two.wav", "one.wav", "three.wav")
    assert order(daemon) == ["two.wav", "one.wav", "three.wav"]


def test_other_options_leave_it_its_place(daemon: Simulated) -> None:
    """A song that is to become something else keeps its place, once the newer file is read; so does one whose file goes."""
    choose(daemon, "one.wav", stems=["drums"])
    daemon.until(lambda: daemon.song("one.wav")["options"]["stems"] == ["drums"], "they count")
    comes_to(daemon, *NAMES)
    (daemon.inbox / "one.wav.job.json").unlink()
    daemon.until(lambda: daemon.song("one.wav")["options"]["stems"] != ["drums"], "the usual ones count")
    comes_to(daemon, *NAMES)
    choose(daemon, "two.wav", stems=["bass"])
    assert order(daemon) == list(NAMES)
    assert daemon.song("two.wav")["options"]["stems"] == ["bass"]


def test_its_turn_comes_while_the_file_settles(daemon: Simulated) -> None:
    """A song whose turn comes before its newer options have settled is passed over, and comes next."""
    choose(daemon, "one.wav", stems=["drums"])
    assert order(daemon)[-1] == "three.wav"
    assert daemon.song("one.wav")["options"]["stems"] == ["drums"]


def test_a_crash_meanwhile(daemon: Simulated) -> None:
    """A daemon that dies before the newer file was read reads it at the next start; the song has its place."""
    choose(daemon, "one.wav", stems=["drums"])
    daemon.kill()
    daemon.start().ready()
    daemon.until(lambda: daemon.song("one.wav")["options"]["stems"] == ["drums"], "they count")
    assert order(daemon) == list(NAMES)


def test_another_song_of_the_name_has_no_place(daemon: Simulated) -> None:
    """A song that is replaced comes last, whatever its options."""
    make_song(daemon.folder / "new.wav", 0.9).rename(daemon.inbox / "one.wav")
    choose(daemon, "one.wav", stems=["drums"])
    comes_to(daemon, "two.wav", "three.wav", "one.wav")
    assert order(daemon) == ["two.wav", "three.wav", "one.wav"]


def test_a_wrong_file_fails_the_song(daemon: Simulated) -> None:
    """What is wrong in a newer file is an end like any other."""
    choose(daemon, "two.wav", priority="high")
    assert daemon.final("two.wav")["error"]["code"] == "bad-options"
    daemon.hold.unlink()
    assert daemon.final("three.wav")["state"] == "done"
