"""A wall clock that jumps by years, in both directions, while the daemon runs and while it does not.

libfaketime (Debian: faketime) tells the daemon and its worker another time of day. What the kernel says of files goes by
the true time, so the two differ by years; only the monotonic clock goes on as it should.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemons import ROOT, Daemon, make_song
from queues import all_done_once, drop, looks, order_of_work, queued, running

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime: apt-get install faketime")

SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
"""libfaketime 0.9.10 takes a sleep until a moment of the monotonic clock, which Python's is, for one of the wall clock, and
has it fail."""

YEARS = ("+9y", "-9y", "+0")


class Clock:
    """The wall clock of a daemon. `jumps` counts how often it was set."""

    def __init__(self, folder: Path) -> None:
        self._file, self._site = folder / "clock", folder / "site"
        self._site.mkdir()
        (self._site / "sitecustomize.py").write_text(SLEEP)
        self.jumps = 0
        self._file.write_text("+0\n")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": f"{ROOT / 'daemon'}:{self._site}",
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, daemon: Daemon, to: str) -> None:
        """Set it, and wait until the heartbeat shows that."""
        part = self._file.with_suffix(".part")
        part.write_text(to + "\n")
        part.rename(self._file)
        self.jumps += 1
        year = time.gmtime(time.time() + float(to.removesuffix("y")) * 365.25 * 86400).tm_year
        daemon.until(lambda: abs(int(daemon.read("_daemon.json")["updated_at"][:4]) - year) <= 1, f"it is {year}")


def sequence(daemon: Daemon) -> dict[str, int]:
    """The numbers of all status files, by name."""
    return {path.name: int(daemon.read(path.name)["seq"]) for path in (daemon.spool / "status").glob("*.json")}


def check_a_jump(daemon: Daemon, clock: Clock, to: str, number: int) -> None:
    """One jump while a song runs, another waits, one settles, one is cut short, and a cancel file comes."""
    first, second, stopped, third = (f"{number} {each}.wav" for each in ("first", "second", "stopped", "third"))
    daemon.hold.touch()
    drop(daemon, first)
    running(daemon, first)
    drop(daemon, second)
    queued(daemon, second)
    cut = daemon.inbox / f"{number} cut.wav"
    whole = make_song(daemon.folder / cut.name, 0.5).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    before = sequence(daemon)
    growing = daemon.inbox / f"{number} growing.wav"
    with growing.open("wb") as file:
        file.write(whole[:5000])
        file.flush()
        daemon.until(lambda: daemon.song(growing.name), "it is seen")
        clock.jump(daemon, to)
        looks(daemon, 8)
        assert daemon.song(growing.name)["state"] == "waiting", "somebody writes it"
        file.write(whole[5000:])
    assert daemon.song(first)["state"] == "running"
    assert daemon.song(first)["attempt"] == 1
    after = sequence(daemon)
    assert all(after[name] >= seq for name, seq in before.items())
    drop(daemon, stopped, third)
    daemon.until(lambda: daemon.song(third)["reason"] == "queued", "it is queued")
    (daemon.inbox / f"{stopped}.cancel").touch()
    assert daemon.final(stopped)["state"] == "cancelled"
    daemon.hold.unlink()
    daemon.until(lambda: daemon.song(cut.name).get("reason") == "truncated", "it is cut short, and waited for")
    clock.jump(daemon, YEARS[number % 3])
    looks(daemon, 8)
    assert daemon.song(cut.name)["state"] == "waiting", "its grace is not over"
    with cut.open("ab") as file:
        file.write(whole[len(whole) // 2 :])
    for name in (first, second, third, cut.name, growing.name):
        assert daemon.final(name)["state"] == "done", daemon.song(name)
        assert daemon.song(name)["attempt"] <= 1  # none where its content was done before
    order = [name for name in order_of_work(daemon) if name in (first, second, third)]
    assert order == [first, second, third]


QUICK: dict[str, Any] = {
    "inbox": {"settle": 0.3, "scan_interval": 0.3},
    "status": {"heartbeat_s": 0.1, "keep_days": 1},
}


@pytest.mark.parametrize("jumps", [("+9y",), pytest.param(("-9y", "+9y", "+0", "-9y"), marks=pytest.mark.daily)])
def test_a_clock_that_jumps(
    tmp_path: Path, jumps: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    """During every stage of a job: no wrong settle, no wrong timeout, no stall; the order stays, and each is done once."""
    clock = Clock(tmp_path)
    daemon = Daemon(tmp_path, fake=True, **QUICK)
    try:
        daemon.start(**clock.environment).ready()
        for number, to in enumerate(jumps):
            check_a_jump(daemon, clock, to, number)
        assert "stalled" not in daemon.log.read_text()
        assert daemon.stop() == 0
    finally:
        daemon.end()
    record_property("jumps of the clock", clock.jumps)


def test_a_clock_that_jumps_between_two_starts(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Songs in the queue, a cancel file and final sidecars outlive it; `seq` grows; nothing is removed as old, nor expired."""
    clock = Clock(tmp_path)
    daemon = Daemon(tmp_path, fake=True, **QUICK)
    daemon.constants["demixd.supervisor.jobs.retention:EVERY_S"] = 0.5
    try:
        daemon.start(**clock.environment).ready()
        drop(daemon, "done.wav")
        assert daemon.final("done.wav")["state"] == "done"
        daemon.hold.touch()
        drop(daemon, "running.wav")
        running(daemon, "running.wav")
        drop(daemon, "b.wav", "a.wav", "stopped.wav")
        queued(daemon, "b.wav", "a.wav", "stopped.wav")
        for to in ("+9y", "-9y"):
            last = max(sequence(daemon).values())
            assert daemon.stop() == 0
            (tmp_path / "clock").write_text(to + "\n")
            clock.jumps += 1
            if to == "-9y":
                (daemon.inbox / "stopped.wav.cancel").touch()
            daemon.start(**clock.environment).ready()
            running(daemon, "running.wav")
            looks(daemon, 8)  # it has looked for old sidecars more than once
            assert daemon.read("_daemon.json")["seq"] > last
            assert daemon.song("done.wav")["state"] == "done", "its sidecar is a minute old"
        assert daemon.song("stopped.wav")["state"] == "cancelled"
        queued(daemon, "b.wav", "a.wav")
        daemon.hold.unlink()
        all_done_once(daemon, "done.wav", "running.wav", "b.wav", "a.wav")
        clock.jump(daemon, "+0")
        looks(daemon, 8)
        assert all(daemon.song(name)["state"] == "done" for name in ("done.wav", "running.wav", "b.wav", "a.wav"))
        assert daemon.stop() == 0
    finally:
        daemon.end()
    record_property("jumps of the clock", clock.jumps)


def test_old_sidecars_still_go(tmp_path: Path) -> None:
    """Where the clock has not jumped, that of a song that is gone is removed after `keep_days`."""
    daemon = Daemon(tmp_path, fake=True, **QUICK)
    daemon.constants["demixd.supervisor.jobs.retention:EVERY_S"] = 0.5
    try:
        daemon.start().ready()
        drop(daemon, "old.wav")
        assert daemon.final("old.wav")["state"] == "done"
        daemon.quiet()
        old = time.time() - 2 * 86400
        os.utime(daemon.spool / "status" / "old.wav.json", (old, old))
        daemon.until(lambda: not daemon.song("old.wav"), "it is removed")
        assert daemon.stop() == 0
    finally:
        daemon.end()
