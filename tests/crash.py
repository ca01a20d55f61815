"""A daemon that something happens to in the middle of a system call: strace(1) kills it there, or has the call fail.

    trace    a daemon, or its worker, is followed while a scenario goes on; the calls that it makes are counted
    points   (call, K): the K-th time that a thread of it makes this call
    inject   the scenario once more, on a fresh spool, and at that point it happens

What a daemon does is much the same each time, and not exactly: a point that is not reached is counted as such.
"""

import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from daemons import PATIENCE_S, Daemon, make_song
from watching import faults, traced

CALLS = (
    "write",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "link",
    "linkat",
    "fsync",
    "fdatasync",
    "ftruncate",
    "copy_file_range",
    "sendfile",
)
"""Every call by which a file, a folder or a line to the other process changes or goes; one that is new is written next."""

_LINE = re.compile(r"^(\d+) +(\w+)\(")


class Point(msgspec.Struct, frozen=True, order=True):
    call: str
    time: int

    def __str__(self) -> str:
        return f"{self.call}-{self.time}"


def what(*inject: str) -> tuple[str, ...]:
    """What strace is told: to follow these calls, and to `inject`, which is what its option of that name takes."""
    return ("-e", f"trace={','.join(CALLS)}", *(word for each in inject for word in ("-e", f"inject={each}")))


def points(log: Path) -> list[Point]:
    """Where things can happen: as often as the busiest thread makes a call, for strace counts each thread by itself."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        if found := _LINE.match(line):
            counts[found[1], found[2]] += 1
    most: dict[str, int] = {}
    for (_, call), count in counts.items():
        most[call] = max(count, most.get(call, 0))
    return [Point(call, k) for call in CALLS for k in range(1, most.get(call, 0) + 1)]


# ---- what goes on


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """`prepare` brings a daemon to where it begins, `act` is what is watched; `ends` are the states that songs may end in."""

    name: str
    prepare: Callable[[Daemon], None]
    act: Callable[[Daemon], None]
    ends: dict[str, tuple[str, ...]]
    crash: str = ""
    """The trace point at which a first life ended: then the start of the second one is what is watched."""


def _song(daemon: Daemon, name: str, seconds: float = 0.3) -> None:
    make_song(daemon.folder / name, seconds).rename(daemon.inbox / name)


def _is_separating(daemon: Daemon, name: str) -> None:
    daemon.until(lambda: daemon.song(name).get("step") == "separate", f"{name} is being separated")


def _nothing(_: Daemon) -> None:
    """It is ready, and that will do."""


def _held(daemon: Daemon) -> None:
    daemon.hold.touch()
    _song(daemon, "song.wav")
    _is_separating(daemon, "song.wav")


def _done_before(daemon: Daemon) -> None:
    _song(daemon, "first.wav")
    assert daemon.final("first.wav")["state"] == "done"
    daemon.quiet()
    (daemon.folder / "second.wav").write_bytes((daemon.spool / "done" / "first.wav").read_bytes())


def _kill_worker(daemon: Daemon) -> None:
    with contextlib.suppress(ProcessLookupError, TypeError):
        os.kill(daemon.read("_daemon.json")["worker"]["pid"], signal.SIGKILL)
    daemon.hold.unlink(missing_ok=True)


def _cancel(daemon: Daemon) -> None:
    (daemon.inbox / "song.wav.cancel").touch()


def _drop_bad(daemon: Daemon) -> None:
    (daemon.folder / "bad.wav").write_bytes(b"RIFF, and then nothing that is audio" * 50)
    (daemon.folder / "bad.wav").rename(daemon.inbox / "bad.wav")


def _drop_three(daemon: Daemon) -> None:
    for name in ("one.wav", "two.wav", "three.wav"):
        _song(daemon, name)


SCENARIOS = (
    Scenario(name="run", prepare=_nothing, act=lambda daemon: _song(daemon, "song.wav"), ends={"song.wav": ("done",)}),
    Scenario(name="cancel", prepare=_held, act=_cancel, ends={"song.wav": ("cancelled",)}),
    Scenario(name="retry", prepare=_held, act=_kill_worker, ends={"song.wav": ("done",)}),
    Scenario(
        name="duplicate",
        prepare=_done_before,
        act=lambda daemon: (daemon.folder / "second.wav").rename(daemon.inbox / "second.wav") and None,
        ends={"first.wav": ("done",), "second.wav": ("done",)},
    ),
    Scenario(name="fail", prepare=_nothing, act=_drop_bad, ends={"bad.wav": ("failed",)}),
    Scenario(
        name="three",
        prepare=_nothing,
        act=_drop_three,
        ends={"one.wav": ("done",), "two.wav": ("done",), "three.wav": ("done",)},
    ),
)


SCENARIOS += tuple(
    Scenario(
        name=f"start-after-{point}",
        prepare=_nothing,
        act=lambda daemon: _song(daemon, "song.wav"),
        ends={"song.wav": ("done",)},
        crash=point,
    )
    for point in ("3-started", "6-rename", "7-final", "9-original")
)


# ---- what happens, and what must be so afterwards


def is_over(daemon: Daemon, scenario: Scenario) -> bool:
    assert daemon.process is not None
    if daemon.process.poll() is not None:
        return True
    songs = [daemon.song(name) for name in scenario.ends]
    return all(song.get("state") in ("done", "failed", "cancelled") for song in songs) and not daemon.works()


def target(daemon: Daemon, who: str) -> int:
    assert daemon.process is not None
    pid: int = daemon.process.pid if who == "supervisor" else daemon.read("_daemon.json")["worker"]["pid"]
    return pid


def play(
    folder: Path, scenario: Scenario, who: str, *inject: str, seconds: float = PATIENCE_S, **sections: dict[str, Any]
) -> tuple[Daemon, Path]:
    """The scenario on a fresh spool, followed; then the daemon is started again if it died, and does what is left.

    What is injected goes away when the scenario is over, or after so many `seconds`.
    """
    daemon, log = Daemon(folder, fake=True, **sections), folder / "strace"
    try:
        if scenario.crash:
            _play_start(daemon, log, scenario, *inject)
        else:
            daemon.start().ready()
            scenario.prepare(daemon)
            with traced(log, [target(daemon, who)], *what(*inject)):
                scenario.act(daemon)
                limit = time.monotonic() + seconds
                daemon.until(lambda: is_over(daemon, scenario) or time.monotonic() > limit, "it is over")
        assert daemon.process is not None
        daemon.hold.unlink(missing_ok=True)
        if daemon.process.poll() is not None:
            daemon.start().ready()
        daemon.quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()
    return daemon, log


def _play_start(daemon: Daemon, log: Path, scenario: Scenario, *inject: str) -> None:
    """A first life that ended at the scenario's trace point, and a second one that is followed from its start."""
    daemon.start({scenario.crash: "kill"}).ready()
    scenario.act(daemon)
    assert daemon.process is not None
    first = daemon.process.pid
    assert daemon.process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    daemon.start(under=("strace", "-f", "-qq", *what(*inject), "-o", str(log)))

    def is_second_life_over() -> bool:
        told = daemon.read("_daemon.json")
        has_begun = told["pid"] != first and told["state"] == "ready"
        return (has_begun or daemon.process.poll() is not None) and is_over(daemon, scenario)

    daemon.until(is_second_life_over, "it is over, one way or another")
    if daemon.process.poll() is None:
        os.kill(daemon.read("_daemon.json")["pid"], signal.SIGTERM)  # not strace, which is our child
        daemon.process.wait(timeout=PATIENCE_S)


def was_reached(log: Path) -> bool:
    """Whether it happened."""
    text = log.read_text(errors="replace")
    return "+++ killed by SIGKILL +++" in text or "(INJECTED)" in text


def violations(daemon: Daemon, scenario: Scenario) -> list[str]:
    """What is wrong after all is over: lost, done twice, visible in part, stuck, or left lying about."""
    found = []
    for name, ends in scenario.ends.items():
        sidecar = daemon.song(name)
        if sidecar.get("state") not in ends:
            found.append(f"{name} is {sidecar.get('state')}, {sidecar.get('reason')}, {sidecar.get('error')}")
            continue
        where = "done" if sidecar["state"] == "done" else "failed"
        if (daemon.inbox / name).exists() or not (daemon.spool / where / name).exists():
            found.append(f"{name} is not in {where}/")
    folders = [path for path in daemon.outbox.iterdir() if path.name != ".stemd"]
    for folder in folders:
        found += (
            [f"{folder.name}: {each}" for each in faults(folder)] if (folder / "stems.json").exists() else [folder.name]
        )
    expected = {sidecar["output"]["dir"] for name in scenario.ends if (sidecar := daemon.song(name)).get("output")}
    if {folder.name for folder in folders} != expected:
        found.append(f"results {sorted(folder.name for folder in folders)}, and the sidecars know {sorted(expected)}")
    private = [path.name for path in (daemon.outbox / ".stemd").iterdir() if path.name != "lock"]
    found += [f"left in the work folder: {name}" for name in private]
    left = [
        path
        for path in daemon.spool.rglob("*")
        if path.name.startswith(".") and path.name not in (".stemd", ".stemd-lock")
    ]
    found += [f"left behind: {path.relative_to(daemon.spool)}" for path in left]
    found += [f"left in the inbox: {path.name}" for path in daemon.inbox.iterdir()]
    return found
