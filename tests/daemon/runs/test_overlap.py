"""Songs overlap: the next one is decoded, and the last one's stems are written, while one is separated.

What others see is as ever: the next one waits, songs are separated one at a time and come out in that order.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile

from daemons import ROOT, Daemon, make_song, running
from demixd.config import Config
from demixd.engine.models.demo.songs import make_song as make_music
from mounts import mounts, needs_mounts, tmpfs
from overlap import done, drop, go_on, held, kill_worker, lines, run_alone, three, until_step
from watching import sha256


@contextmanager
def started(folder: Path, **sections: Any) -> Iterator[Daemon]:
    with running(folder, fake=True, **sections) as daemon:
        (folder / "said").touch()
        yield daemon


@contextmanager
def on_small_disk(folder: Path, megabytes: int, **sections: Any) -> Iterator[Daemon]:
    """A daemon whose outbox and work are on a filesystem of that size."""
    small = tmpfs(folder / "small", megabytes << 20)
    with mounts(small):
        paths = {part: str(small.at / part) for part in ("outbox", "work")}
        for path in paths.values():
            Path(path).mkdir()
        with started(folder / "d", paths=paths, **sections) as daemon:
            daemon.outbox = Path(paths["outbox"])
            yield daemon


@needs_mounts
def test_nothing_is_prepared_where_the_disk_is_nearly_full(tmp_path: Path) -> None:
    """The room is left to the songs that run; the next one is done in its turn."""
    with on_small_disk(tmp_path, 9) as daemon:
        make_song(daemon.folder / "song-a.wav", 10.0)
        make_song(daemon.folder / "song-b.wav", 5.0)
        held(daemon, "a.wav")
        drop(daemon, "b.wav")
        daemon.until(lambda: daemon.read("_daemon.json")["queue"], "in the queue")
        time.sleep(0.5)
        assert lines(daemon, "orders", "prepare") == []
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")


@needs_mounts
def test_a_song_that_has_no_room_beside_another(tmp_path: Path) -> None:
    """It waits as `no-space` for the end of the other, and no longer."""
    with on_small_disk(tmp_path, 16, limits={"memory_bytes": 0}, defaults={"format": "mp3"}) as daemon:
        for name in ("a.wav", "b.wav"):
            make_song(daemon.folder / f"song-{name}", 20.0)
        (daemon.folder / "hold-encode").touch()
        drop(daemon, "a.wav")
        until_step(daemon, "a.wav", "encode")
        drop(daemon, "b.wav")
        daemon.until(lambda: daemon.song("b.wav").get("reason") == "no-space", "no room")
        began = time.monotonic()
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        assert daemon.song("b.wav")["attempt"] == 1
        assert time.monotonic() - began < 20, "it has paused"


# ---- what dies


def test_a_worker_that_dies_with_two_in_flight(tmp_path: Path) -> None:
    """Neither is charged; both wait as `retry` and are tried alone, the prepared one comes after them."""
    with started(tmp_path) as daemon:
        three(daemon)
        kill_worker(daemon)
        run_alone(daemon, "a.wav", "b.wav", prepares=2)
        done(daemon, "a.wav", "b.wav", "c.wav")


class Worker:
    """`python -m demixd.worker`, driven by hand, with the demo model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "demixd.worker"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        warm = {"device": "cpu", "models": str(folder), "repo": None, "allow_pickle": False}
        self.tell("warm", model="demo", **warm)

    def tell(self, kind: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"type": kind, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, kind: str, job_id: str | None = None) -> dict[str, Any]:
        """The next message of that kind, of that job."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(message := json.loads(line))
            assert message["type"] not in ("failed", "unready"), message
            if message["type"] == kind and message.get("job_id") == job_id:
                return message
        raise AssertionError(f"the worker ended before {kind}: {self.said}")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def tmp(self, job_id: str) -> Path:
        return self.folder / job_id / "tmp"

    def prepare(self, job_id: str) -> None:
        tmp = self.tmp(job_id)
        self.tell(
            "prepare",
            job_id=job_id,
            snapshot=str(tmp / "song"),
            tmp=str(tmp),
            work=str(self.folder),
            max_duration_s=100.0,
        )

    def separate(self, job_id: str) -> None:
        tmp, out = self.tmp(job_id), self.folder / job_id / "out"
        self.tell(
            "separate",
            job_id=job_id,
            name=f"{job_id}.flac",
            song=str(tmp / "song"),
            sha256="0" * 64,
            tmp=str(tmp),
            out=str(out),
            work=str(self.folder),
            options=msgspec.to_builtins(Config().options),
            max_duration_s=100.0,
        )


@contextmanager
def worker(folder: Path) -> Iterator[Worker]:
    """A worker with three songs in work folders of their own."""
    for number, job_id in enumerate("abc"):
        for name in ("tmp", "out"):
            (folder / job_id).mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / job_id / name).mkdir()
        song = np.sum(list(make_music(seed=number, seconds=5.0).values()), axis=0).T
        # Another rate than the model's: the threads resample at the same time too.
        soundfile.write(folder / job_id / "tmp" / "song", song / 4, 48000 if job_id == "b" else 44100, format="FLAC")
    one = Worker(folder)
    try:
        one.hear("ready")
        yield one
    finally:
        one.end()


def stems(made: dict[str, Any]) -> list[str]:
    return [file["sha256"] for file in made["files"]]


@pytest.mark.daily
def test_overlapping_changes_no_bit(tmp_path: Path) -> None:
    """Songs that were decoded ahead, and separated while the one before was written, have the stems of single ones."""
    with worker(tmp_path / "single") as one:
        single = []
        for job_id in "abc":
            one.separate(job_id)
            single.append(stems(one.hear("finished", job_id)))
    with worker(tmp_path / "overlapping") as one:
        one.separate("a")
        one.hear("progressed", "a")
        one.prepare("b")
        one.prepare("c")
        for job_id in "bc":
            one.separate(job_id)
        overlapping = [stems(one.hear("finished", job_id)) for job_id in "abc"]
        told = [(each["type"], each.get("job_id"), each.get("at", {}).get("step")) for each in one.said]
    assert overlapping == single
    assert len({str(each) for each in single}) == 3
    separating = told.index(("progressed", "a", "separate")), told.index(("progressed", "a", "mix"))
    assert any(told.index(("prepared", job_id, None)) < separating[1] for job_id in "bc"), told
    assert told.index(("progressed", "b", "decode")) < told.index(("finished", "a", None))


def test_a_song_that_waits_in_the_worker_is_stopped_at_once(tmp_path: Path) -> None:
    """In every place: waiting for the model, decoded ahead, being separated; and the one after it is whole."""
    with worker(tmp_path) as one:
        one.separate("a")
        one.hear("progressed", "a")
        one.prepare("b")
        one.separate("b")
        began = time.monotonic()
        one.tell("stop", job_id="b")
        one.hear("stopped", "b")
        assert ("finished", "a") not in [(message["type"], message.get("job_id")) for message in one.said]
        one.tell("stop", job_id="a")
        one.hear("stopped", "a")
        assert time.monotonic() - began < 3
        one.prepare("c")
        one.tell("forget", job_id="c")
        one.prepare("c")
        one.separate("c")
        made = one.hear("finished", "c")
        assert sha256(tmp_path / "c" / "out" / made["files"][0]["name"]) == made["files"][0]["sha256"]
