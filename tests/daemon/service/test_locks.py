"""One daemon on a folder: the second is refused and says who is there, and the first notices nothing."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemons import PATIENCE_S, Daemon, make_song
from watching import Histories, again_and_again, faults

QUICK: dict[str, Any] = {"inbox": {"settle": 0.1, "scan_interval": 0.3}, "status": {"heartbeat_s": 0.2}}

BEAT_S = 0.2


def new(folder: Path, paths: dict[str, Path] | None = None) -> Daemon:
    folder.mkdir(exist_ok=True)
    given = {part: str(path) for part, path in (paths or {}).items()}
    return Daemon(folder, fake=True, paths=given, **QUICK)


@contextmanager
def started(daemon: Daemon) -> Iterator[Daemon]:
    try:
        yield daemon.start().ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def refused(daemon: Daemon) -> str:
    """Start a daemon that ends by itself, with the status of a bad configuration; its last words."""
    daemon.start()
    assert daemon.process is not None
    try:
        assert daemon.process.wait(timeout=PATIENCE_S) == 78
    finally:
        daemon.end()
    return daemon.log.read_text()


SHARED = {
    "spool": ("inbox", "outbox", "status", "done", "failed"),
    "outbox": ("outbox",),
    "status": ("status",),
    "state": ("state",),
}


@pytest.mark.parametrize("part", SHARED)
def test_the_second_daemon_is_refused(tmp_path: Path, part: str) -> None:
    """Two daemons on one spool, outbox, status or state: the second ends with 78 and says who is there.

    The first goes on unharmed: its files are its own, none of its work is lost, and its heart beats on.
    """
    first = new(tmp_path / "first")
    with started(first):
        first.hold.touch()
        make_song(first.inbox / "song.wav", 0.5)
        first.until(lambda: first.song("song.wav").get("step") == "separate", "it runs")
        state = tmp_path / "first" / "state"
        paths = {each: state if each == "state" else first.spool / each for each in SHARED[part]}
        second = new(tmp_path / "second", paths)
        histories = Histories(first.spool / "status")
        assert first.process is not None
        with again_and_again(histories.look) as raised:
            said = refused(second)
            seq = first.read("_daemon.json")["seq"]
            first.until(lambda: first.read("_daemon.json")["seq"] > seq + 2, "the heart beats")
        assert raised == [], "nobody else writes the first one's status"
        assert f"process {first.process.pid} on {socket.gethostname()}" in said
        assert str(paths[SHARED[part][0]] if part != "spool" else first.spool) in said
        assert first.read("_daemon.json")["pid"] == first.process.pid
        assert first.song("song.wav")["step"] == "separate"
        assert [path.name for path in first.works()] == [first.song("song.wav")["job_id"]]
        first.hold.unlink()
        assert first.final("song.wav")["state"] == "done"
        assert faults(first.outbox / "song") == []
        assert "song.wav" not in {path.name for path in (tmp_path / "second").rglob("*")}


def test_models_can_be_shared(tmp_path: Path) -> None:
    """Two daemons with a spool and a state of their own share the folder of the models."""
    models = {"models": tmp_path / "models"}
    first, second = new(tmp_path / "first", models), new(tmp_path / "second", models)
    with started(first), started(second):
        for daemon in (first, second):
            make_song(daemon.inbox / "song.wav", 0.3)
        for daemon in (first, second):
            assert daemon.final("song.wav")["state"] == "done"


def test_a_dead_daemon_holds_nothing(tmp_path: Path) -> None:
    """After kill -9 the next daemon starts at once, and knows what the dead one was doing."""
    daemon = new(tmp_path)
    daemon.hold.touch()
    make_song(daemon.inbox / "song.wav", 0.3)
    try:
        daemon.start().ready()
        daemon.until(lambda: daemon.song("song.wav").get("step") == "separate", "it runs")
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait()
        daemon.hold.unlink()
        daemon.start().ready()
        assert daemon.final("song.wav")["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()


# ---- another machine's lock


LOCKS = {"status": "status/.demixd-lock", "outbox": "outbox/.demixd/lock"}


def sign(daemon: Daemon, part: str) -> Path:
    """The lock that a daemon on another machine has left, or holds where our kernel does not see it."""
    path = daemon.spool / LOCKS[part]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OTHERS)
    return path


OTHERS = json.dumps({"host": "elsewhere", "boot": "another", "pid": 4711, "instance": "other"})


def beat(daemon: Daemon, seq: int) -> None:
    status = daemon.spool / "status"
    status.mkdir(exist_ok=True)
    (status / "part").write_text(json.dumps({"schema": 1, "seq": seq, "interval_s": BEAT_S, "state": "ready"}))
    (status / "part").rename(status / "_daemon.json")


@contextmanager
def beating(daemon: Daemon) -> Iterator[None]:
    """The heartbeat of another machine's daemon."""
    stop = threading.Event()

    def go_on() -> None:
        seq = 1 << 40
        while not stop.wait(BEAT_S):
            seq += 1
            beat(daemon, seq)

    beat(daemon, 1 << 40)
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("part", LOCKS)
def test_another_machine_s_heartbeat_that_stands_still(tmp_path: Path, part: str) -> None:
    """It is waited for, three of its intervals long; then the daemon starts, with the lock in its own name."""
    daemon = new(tmp_path)
    lock = sign(daemon, part)
    beat(daemon, 1 << 40)
    before = (daemon.spool / "status" / "_daemon.json").read_bytes()
    make_song(daemon.inbox / "song.wav", 0.3)
    began = time.monotonic()
    try:
        daemon.start()
        daemon.until(lambda: daemon.read("_daemon.json") != json.loads(before), "it has started")
        assert time.monotonic() - began > 3 * BEAT_S
        daemon.ready()
        assert daemon.final("song.wav")["state"] == "done"
        assert json.loads(lock.read_bytes())["host"] == socket.gethostname()
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.mark.parametrize("part", LOCKS)
def test_another_machine_s_heartbeat_that_goes_on(tmp_path: Path, part: str) -> None:
    """The daemon is refused and names the other machine; it has taken nothing, made nothing, and left the lock alone."""
    daemon = new(tmp_path)
    lock = sign(daemon, part)
    before = lock.read_bytes()
    make_song(daemon.inbox / "song.wav", 0.3)
    with beating(daemon):
        said = refused(daemon)
    assert "process 4711 on elsewhere" in said
    assert lock.read_bytes() == before
    assert daemon.read("_daemon.json")["seq"] > 1 << 40
    assert daemon.song("song.wav") == {}
    assert (daemon.inbox / "song.wav").exists()


def test_a_stop_while_it_waits_for_another_machine(tmp_path: Path) -> None:
    """SIGTERM ends the daemon within 5 s, also while it does not know yet whether the other one lives."""
    daemon = new(tmp_path)
    lock = sign(daemon, "status")
    (daemon.spool / "status" / "_daemon.json").write_text('{"seq": 1, "interval_s": 600.0}')
    before = lock.read_bytes()
    try:
        daemon.start()
        daemon.until(lambda: "is warm" in daemon.log.read_text(), "it is up")
        daemon.until(lambda: (daemon.outbox / ".demixd" / "lock").exists(), "it has come to the locks")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
    finally:
        daemon.end()
    assert lock.read_bytes() == before
    assert daemon.read("_daemon.json") == {"seq": 1, "interval_s": 600.0}


def test_a_folder_that_comes_back_with_another_machine_s_lock(tmp_path: Path) -> None:
    """An outbox that another machine took while it was away is not written to until that one proves to be dead."""
    daemon = new(tmp_path)
    with started(daemon):
        daemon.outbox.rename(tmp_path / "away")
        daemon.until(lambda: any("outbox" in text for text in daemon.read("_daemon.json")["warnings"]), "it is said")
        shutil.rmtree(tmp_path / "away" / ".demixd")
        (tmp_path / "away" / ".demixd").mkdir()
        lock = daemon.spool / LOCKS["outbox"]
        (tmp_path / "away" / lock.relative_to(daemon.outbox)).write_text(OTHERS)
        (tmp_path / "away").rename(daemon.outbox)
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.final("song.wav")["state"] == "done"
        assert json.loads(lock.read_bytes())["host"] == socket.gethostname()
        seq = daemon.read("_daemon.json")["seq"]
        daemon.until(lambda: daemon.read("_daemon.json")["seq"] > seq + 2, "the heart beats on")


def test_locks_are_no_files_of_the_user(tmp_path: Path) -> None:
    """Locks and their like lie where nobody's listing shows them: nothing in the inbox, dot names elsewhere."""
    daemon = new(tmp_path)
    with started(daemon):
        assert [path.name for path in daemon.inbox.iterdir()] == []
        shown = {
            path.name for part in ("status", "outbox", "done", "failed") for path in (daemon.spool / part).iterdir()
        }
        assert {name for name in shown if not name.startswith(".")} == {"_daemon.json", "_inbox.json"}
    listed = subprocess.run(["ls", str(daemon.outbox)], capture_output=True, text=True, check=True)
    assert listed.stdout == ""
    assert os.listdir(daemon.inbox) == []  # noqa: PTH208 - by name
