"""Ten thousand songs at once, ten thousand old ones, and how soon a song is begun: what that costs, in bytes and seconds."""

import math
import random
import struct
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import daemons
from daemons import Daemon, make_song
from processes import busy_s, pid, resident
from queues import order_of_work, queue, running

USUAL: dict[str, Any] = {
    "inbox": {"settle": 2.0, "scan_interval": 10.0},
    "status": {"heartbeat_s": 5.0, "progress_s": 0.5},
}
"""What the configuration has by default; the tests' own daemons are quicker."""

EACH_BYTES = 2048
FIXED_BYTES = 1 << 20
"""However many there are: tables double, and the heartbeat with all their names is put together at once."""
BUSY = 0.005
"""Of a core, for an idle daemon."""
BEGUN_S = 3.0
CANCELLED_S = 1.5
"""A cancel file is looked for every 0.5 s, and the work stops within a second."""


def usual(folder: Path, **sections: Any) -> AbstractContextManager[Daemon]:
    return daemons.running(folder, fake=True, **{**USUAL, **sections})


def tiny(path: Path, number: int) -> None:
    """A song of 32 samples like no other."""
    data = struct.pack("<I", number) * 16
    header = struct.pack("<IHHIIHH", 16, 1, 1, 44100, 88200, 2, 16)
    path.write_bytes(
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + header
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )


class Pulse:
    """How long the heart of a daemon stood still at most, by our clock, and how much memory it had."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._stop = daemon, threading.Event()
        self.longest_s, self.peak = 0.0, 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        last, since = 0, time.monotonic()
        while not self._stop.wait(0.1):
            seq, now = self._daemon.read("_daemon.json")["seq"], time.monotonic()
            self.longest_s = max(self.longest_s, now - since)
            if seq != last:
                last, since = seq, now
            self.peak = max(self.peak, resident(self._daemon))


def drop_many(daemon: Daemon, first: int, number: int, dice: random.Random) -> dict[str, int]:
    """Songs in any order, as fast as they can be written, each twentieth with a priority; the priority of each."""
    numbers = list(range(first, first + number))
    dice.shuffle(numbers)
    found = {}
    for each in numbers:
        name = f"song {each:05}.wav"
        found[name] = dice.choice((-1, 1, 7)) if each % 20 == 0 else 0
        if found[name]:
            (daemon.inbox / f"{name}.job.json").write_text(f'{{"priority": {found[name]}}}')
        tiny(daemon.inbox / name, each)
    return found


def cancel(daemon: Daemon, name: str) -> float:
    """Cancel a song once it runs; the seconds that it took to end."""
    running(daemon, name)
    began = time.monotonic()
    (daemon.inbox / f"{name}.cancel").touch()
    daemon.until(lambda: daemon.song(name)["state"] == "cancelled", "the running song is cancelled")
    return time.monotonic() - began


def check_many(daemon: Daemon, number: int, seed: int) -> float:
    """Drop so many at once; how many bytes each of them took. What runs can be cancelled meanwhile."""
    dice = random.Random(seed)
    daemon.hold.touch()
    make_song(daemon.inbox / "first.wav", 0.1)
    running(daemon, "first.wav")
    for name, priority in (("second.wav", 100), ("third.wav", 99)):  # what runs after it, and after that one
        (daemon.inbox / f"{name}.job.json").write_text(f'{{"priority": {priority}}}')
        make_song(daemon.inbox / name, 0.1)
    every = drop_many(daemon, 0, 300, dice)  # what the first of all cost is not paid again: tables, caches
    daemon.until(lambda: len(queue(daemon)) == 300 + 2, "the first are queued")
    before = resident(daemon)
    with Pulse(daemon) as pulse:
        every |= drop_many(daemon, 300, number, dice)
        took = min(cancel(daemon, "first.wav"), cancel(daemon, "second.wav"))  # this machine is shared
        daemon.until(lambda: sorted(queue(daemon)) == sorted(every), "all are queued")
        time.sleep(2 * USUAL["status"]["heartbeat_s"])
    assert took < CANCELLED_S, f"a cancel took {took:.1f} s"
    assert pulse.longest_s < 3 * USUAL["status"]["heartbeat_s"], "other programs take it for dead"
    check_order(daemon, every)
    return (pulse.peak - before - FIXED_BYTES) / number


def check_order(daemon: Daemon, every: dict[str, int]) -> None:
    """By priority; where that is the same by the time at which they became ready, and then by name."""
    line = [name for name in queue(daemon) if name in every]
    assert sorted(line) == sorted(every)
    priorities = [every[name] for name in line]
    assert priorities == sorted(priorities, reverse=True)
    for number, name in enumerate(line[:50], 1):
        assert daemon.song(name)["progress"]["queue_position"] in range(1, len(line) + 2), number
    daemon.hold.unlink()
    daemon.until(lambda: daemon.song(line[9])["state"] == "done", "ten are done")
    begun = [name for name in order_of_work(daemon) if name in every]
    assert begun[:10] == line[:10]


@pytest.mark.parametrize(
    "number", [pytest.param(1000, marks=pytest.mark.daily), pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_many_songs_at_once(
    tmp_path: Path, number: int, day: int, record_property: Callable[[str, object], None]
) -> None:
    """Each that waits takes 2 KB of memory at most, the order is kept, the heart beats, and what runs can be cancelled."""
    with usual(tmp_path) as daemon:
        each = check_many(daemon, number, day)
    assert each <= EACH_BYTES, f"{each:.0f} bytes each"
    record_property(f"bytes for each of {number} songs that wait", round(each))


def idle_share(daemon: Daemon, span_s: float) -> float:
    """The share of a core that supervisor and worker use."""
    processes = (pid(daemon), int(daemon.read("_daemon.json")["worker"]["pid"]))
    before = sum(map(busy_s, processes))
    time.sleep(span_s)
    return (sum(map(busy_s, processes)) - before) / span_s


def test_an_idle_daemon_with_many_old_files(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """10,000 files that are no songs lie in its inbox: it uses half a hundredth of a core at most."""
    with usual(tmp_path) as daemon:
        for number in range(10_000):
            (daemon.inbox / f"cover {number}.jpg").touch()
        daemon.until(lambda: len(daemon.read("_inbox.json").get("entries", ())) == 10_000, "all are explained")
        time.sleep(12)  # a whole look more
        share = idle_share(daemon, 20.0)
    assert share <= BUSY, f"{share:.2%} of a core"
    record_property("millionths of a core, idle with 10,000 old files", round(share * 1e6))


@pytest.mark.slow
def test_an_idle_daemon_with_many_answered_songs(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The same with 10,000 songs that are done and stay where they are; over two minutes."""
    with usual(tmp_path, inbox={**USUAL["inbox"], "after": "keep"}) as daemon:
        for number in range(10_000):
            tiny(daemon.inbox / f"song {number:05}.wav", number % 100)  # the others are not computed again
        limit = time.monotonic() + 7200
        while sum(daemon.read("_daemon.json")["counts"][each] for each in ("done", "failed")) < 10_000:
            assert time.monotonic() < limit
            time.sleep(5)
        time.sleep(12)
        share = idle_share(daemon, 120.0)
    assert share <= BUSY, f"{share:.2%} of a core"
    record_property("millionths of a core, idle with 10,000 answered songs", round(share * 1e6))


@pytest.mark.parametrize("number", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_how_soon_a_song_is_begun(
    tmp_path: Path, number: int, day: int, record_property: Callable[[str, object], None]
) -> None:
    """From its last byte to `running` 19 of 20 songs take 3 s at most, of which it settles for two."""
    dice, took, dropped = random.Random(day), [], dict[str, float]()
    with usual(tmp_path) as daemon:
        song = make_song(tmp_path / "song.wav", 0.1).read_bytes()
        due, names = 0.0, [f"{each}.wav" for each in range(number)]
        while names or dropped:
            now = time.monotonic()
            if names and now >= due:
                name = names.pop()
                (daemon.inbox / name).write_bytes(song + name.encode())
                dropped[name] = time.monotonic()
                due = now + dice.uniform(0.3, 0.8)  # so that hardly one has to wait for another
            begun = [each for each in dropped if daemon.song(each).get("state") in ("running", "done")]
            took += [time.monotonic() - dropped.pop(each) for each in begun]
            assert now < due + 60, f"not begun: {list(dropped)}"
            time.sleep(0.01)
    late = sorted(took)[math.ceil(0.95 * len(took)) - 1]
    assert late <= BEGUN_S, f"{late:.2f} s; all: {[round(each, 2) for each in sorted(took)]}"
    record_property("ms from the last byte to running, 19 of 20", round(late * 1000))
