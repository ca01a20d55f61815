"""How long a model stays warm, and what it costs while nobody uses it: keep_alive_s, by a real daemon."""

import os
import time
from pathlib import Path
from typing import Any

from daemons import Daemon, make_song, running


def worker(daemon: Daemon) -> dict[str, Any]:
    told: dict[str, Any] = daemon.read("_daemon.json")["worker"]
    return told


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_an_idle_worker_ends_and_the_next_song_wakes_one(tmp_path: Path) -> None:
    """After `keep_alive_s` without a song the process is gone and with it all it had; a drop warms a new one."""
    with running(tmp_path, fake=True, model={"keep_alive_s": 0.5}) as daemon:
        daemon.until(lambda: worker(daemon)["state"] == "asleep", "asleep")
        assert worker(daemon)["pid"] is None
        make_song(daemon.inbox / "one.wav", 0.3)
        assert daemon.final("one.wav")["state"] == "done"
        daemon.until(lambda: worker(daemon)["state"] == "asleep", "asleep again")
        assert daemon.read("_daemon.json")["state"] == "ready", "the daemon itself is as ready as ever"


def test_a_worker_with_songs_stays(tmp_path: Path) -> None:
    """A song that takes longer than `keep_alive_s`, and those that wait behind it, keep the worker."""
    with running(tmp_path, fake=True, model={"keep_alive_s": 1.0}) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "one.wav", 0.3)
        daemon.until(lambda: daemon.song("one.wav").get("step") == "separate", "separating")
        pid = worker(daemon)["pid"]
        time.sleep(2.0)
        assert worker(daemon)["pid"] == pid
        daemon.hold.unlink()
        assert daemon.final("one.wav")["attempt"] == 1
        daemon.until(lambda: is_gone(pid), "the worker's end")


def test_a_worker_is_kept_for_ever_by_default(tmp_path: Path) -> None:
    """-1: never ended."""
    with running(tmp_path, fake=True) as daemon:
        pid = worker(daemon)["pid"]
        time.sleep(2.0)
        assert (worker(daemon)["state"], worker(daemon)["pid"]) == ("ready", pid)


TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processor, in user and kernel mode (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def test_idle_costs_next_to_nothing(tmp_path: Path) -> None:
    """With nothing to do, daemon and worker together use less than 0.5 % of a processor, with the default settings."""
    sections: dict[str, Any] = {
        "inbox": {"settle": 2.0, "scan_interval": 10.0},
        "status": {"heartbeat_s": 5.0, "progress_s": 0.5},
    }
    with running(tmp_path, **sections) as daemon:
        assert daemon.process is not None
        pids = (daemon.process.pid, worker(daemon)["pid"])
        time.sleep(3.0)
        before, began = sum(map(cpu_seconds, pids)), time.monotonic()
        time.sleep(30.0)
        share = (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - began)
        assert share < 0.005
