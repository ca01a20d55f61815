"""What a sidecar says of a song that runs or waits for its turn: words of its step, and a time that comes true."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulated import Simulated, simulated
from simulated_songs import make_song

WORDS = {
    "snapshot": "Copying",
    "decode": "Decode",
    "separate": "Separate",
    "encode": "Encode",
    "publish": "Publishing",
}
"""What is said in each step, by the simulated worker and by the daemon."""


def seen_of(daemon: Simulated, name: str) -> list[dict[str, Any]]:
    """Every sidecar of the song that a reader could meet, to its end."""
    path, seen = daemon.spool / "status" / f"{name}.json", []
    daemon.eyes.also = lambda written: written == path and seen.append(json.loads(path.read_bytes()))
    daemon.final(name)
    return seen


def test_step_and_words_belong_together(tmp_path: Path) -> None:
    """However seldom progress is written, a change of step is, at once and with its own words."""
    with simulated(tmp_path, status={"progress_s": 600.0}) as daemon:
        make_song(daemon.inbox / "song.wav", 3.0)
        steps = [(each["step"], each["message"]) for each in seen_of(daemon, "song.wav") if each["state"] == "running"]
        assert {step for step, _ in steps} == WORDS.keys()
        assert [(step, said) for step, said in steps if WORDS[step] != said] == []


def test_the_time_of_a_song_comes_true(tmp_path: Path) -> None:
    """Once a song of its format was done, what is left of the next one falls to nothing as the song comes to its end."""
    with simulated(tmp_path) as daemon:
        make_song(daemon.inbox / "first.wav", 3.0)
        assert [each["progress"]["eta_s"] for each in seen_of(daemon, "first.wav")[:-1]].count(None) > 3
        make_song(daemon.inbox / "second.wav", 3.0)
        seen = seen_of(daemon, "second.wav")
        etas = [each["progress"]["eta_s"] for each in seen if each["step"] in ("decode", "separate", "encode")]
        assert None not in etas
        assert etas == sorted(etas, reverse=True)
        assert etas[0] == pytest.approx(1.4, abs=0.3) and etas[-1] <= 0.4


def test_the_times_of_the_queue_come_true(tmp_path: Path) -> None:
    """Each place has one, in the heartbeat and in the sidecar that is written when the song gets its place."""
    with simulated(tmp_path) as daemon:
        for number in range(9):  # one after the other: so is its pace
            make_song(daemon.inbox / f"first {number}.wav", 3.0, size=5000)
        daemon.final("first 8.wav")
        daemon.quiet()
        names = [f"next {number}.wav" for number in range(6)]
        for name in names:
            make_song(daemon.inbox / name, 3.0, size=5000)
        told = daemon.until(
            lambda: (
                len((beat := daemon.read("_daemon.json"))["queue"]) == 5 and None not in beat["queue_eta_s"] and beat
            ),
            "a beat with five in the queue",
        )
        now = daemon.clock.now()
        assert [each["name"] for each in told["queue"]] == names[1:]
        sidecars = [daemon.song(name)["progress"]["eta_s"] for name in names[1:]]
        assert None not in sidecars and sidecars == sorted(sidecars)
        ends = []
        for name in names[1:]:
            daemon.final(name)
            ends.append(daemon.clock.now() - now)
        assert ends == pytest.approx(told["queue_eta_s"], abs=0.7, rel=0.3)
        daemon.quiet()
        assert daemon.read("_daemon.json")["queue_eta_s"] == []


def test_the_measures_outlive_the_daemon(tmp_path: Path) -> None:
    """After a crash the next one knows them."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().ready()
        make_song(daemon.inbox / "first.wav", 3.0)
        daemon.final("first.wav")
        daemon.quiet()
        daemon.kill()
        daemon.start().ready()
        make_song(daemon.inbox / "second.wav", 3.0)
        separated = [each for each in seen_of(daemon, "second.wav") if each["step"] == "separate"]
        assert separated[0]["progress"]["eta_s"] > 0
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_song_that_was_stopped_is_not_said_to_be_next(tmp_path: Path) -> None:
    """Another song may be first at the next start; the sidecar says what is true at any time."""
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "one.wav", 3.0)
        daemon.until(lambda: daemon.song("one.wav").get("step") == "separate", "it runs")
        (daemon.inbox / "first.wav.job.json").write_text(json.dumps({"priority": 5}))
        make_song(daemon.inbox / "first.wav", 3.0)
        daemon.until(lambda: daemon.song("first.wav").get("reason") == "queued", "the other is queued")
        assert daemon.stop() == 0
        stopped = daemon.song("one.wav")
        said = "The daemon was stopped while this song ran; it begins again in its turn."
        assert (stopped["state"], stopped["reason"], stopped["message"]) == ("waiting", "queued", said)
        assert stopped["progress"]["queue_position"] == 2
        daemon.hold.unlink()
        daemon.start().ready()
        daemon.quiet()


def test_a_status_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The heartbeat names it and why, and it is written as soon as it can be."""
    with simulated(tmp_path) as daemon:
        daemon.look_away()
        daemon.hold.touch()
        make_song(daemon.inbox / "runs.wav", 0.3)
        daemon.until(lambda: daemon.song("runs.wav").get("step") == "separate", "it runs")
        path = daemon.spool / "status" / "song.wav.json"
        path.mkdir()
        (path / "something").touch()
        make_song(daemon.inbox / "song.wav", 0.3)
        told = daemon.until(lambda: daemon.read("_daemon.json")["warnings"], "a warning")
        assert any(str(path) in each and "shows what was true before" in each for each in told)
        (path / "something").unlink()
        path.rmdir()
        assert daemon.until(lambda: daemon.song("song.wav"), "its status")["reason"] == "queued"
        daemon.until(lambda: not daemon.read("_daemon.json")["warnings"], "no warning any more")
        daemon.hold.unlink()
        daemon.final("song.wav")
        assert str(path) in daemon.log.read_text()
