"""`_daemon.json` beyond its beats: it shows each song that runs or waits for its turn, however seldom it has to be written."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import simulated_worker
from simulated import Simulated, simulated
from simulated_songs import make_song

SELDOM = {"heartbeat_s": 60.0}


def told(daemon: Simulated) -> list[tuple[float, dict[str, Any]]]:
    """Every heartbeat that a reader could meet from now on, with the time at which it was written."""
    path, seen = daemon.spool / "status" / "_daemon.json", []
    daemon.eyes.also = lambda written: (
        written == path and seen.append((daemon.clock.now(), json.loads(path.read_bytes())))
    )
    return seen


def test_the_queue_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a heartbeat a minute, each of four songs is seen to run, the last one to wait, and at last none."""
    monkeypatch.setattr(
        simulated_worker, "SEGMENT_S", 2.0
    )  # each takes longer than the second in which nothing is told
    with simulated(tmp_path, status=SELDOM) as daemon:
        seen = told(daemon)
        names = [f"song {number}.wav" for number in range(4)]
        for name in names:
            make_song(daemon.inbox / name, 3.0, size=5000)
        for name in names:
            daemon.final(name)
        daemon.sleep(2.0)
        beats = [beat for _, beat in seen]
        assert {each["name"] for beat in beats for each in beat["in_flight"]} == set(names)
        assert "song 3.wav" in {each["name"] for beat in beats for each in beat["queue"]}
        assert (beats[-1]["queue"], beats[-1]["in_flight"], beats[-1]["counts"]["done"]) == ([], [], 4)


def test_many_songs_at_once_are_told_of_once_a_second(tmp_path: Path) -> None:
    """Hundreds that become ready, or are cancelled, within a moment do not have it written hundreds of times."""
    with simulated(tmp_path, status=SELDOM) as daemon:
        seen = told(daemon)
        for number in range(300):
            make_song(daemon.inbox / f"song {number}.wav", 0.1)
        began = daemon.clock.now()
        daemon.until(lambda: any(len(beat["queue"]) > 250 for _, beat in seen), "they wait for their turn")
        (daemon.inbox / ".cancel").touch()
        daemon.quiet()
        times = [at for at, _ in seen]
        assert min(later - before for before, later in pairwise(times)) >= 1.0
        assert len(times) <= daemon.clock.now() - began + 1


def test_nothing_is_written_while_nothing_happens(tmp_path: Path) -> None:
    """A disk can sleep: between two beats of an idle daemon there is none."""
    with simulated(tmp_path, status=SELDOM) as daemon:
        daemon.sleep(70.0)
        seen = told(daemon)
        daemon.sleep(170.0)
        assert 2 <= len(seen) <= 3
