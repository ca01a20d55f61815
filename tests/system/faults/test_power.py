"""The plug is pulled at every system call of a job that changes anything: what the disk had not been given is gone.

The spool and the ledger are on an ext4 disk in a file, mounted so that nothing reaches it by itself, or with somebody who
has all of it written again and again. The daemon is killed in the middle of a call; a copy of the file is what the disk
holds at that moment; it takes the place of the disk, and the daemon starts again.

    before it starts   the ledger is whole, every sidecar parses, what was shown as final still is, results are complete
    afterwards         nothing lost, nothing done twice, no partial result, nothing stuck, no work folder left
"""

import contextlib
import ctypes
import itertools
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons import PATIENCE_S, Daemon
from injection import Point, followed, points, was_reached, what
from mounts import disk, disk_of, needs_mounts
from scenarios import CANCEL, DUPLICATE, FAIL, FINAL, RUN, Scenario, is_over, made, tidy, violations
from watching import again_and_again, faults, lives, needs_strace

pytestmark = [needs_strace, needs_mounts]

LAZY = "commit=300,noauto_da_alloc"
"""The kernel writes nothing by itself as long as a test takes, and does not mend programs that forget fsync(2)."""

MEGABYTES = 48

SAID = ("job_id", "state")
"""What of a final sidecar stays as it was."""

_libc = ctypes.CDLL(None, use_errno=True)

PARTS = [
    pytest.param(RUN, "supervisor", id="run-supervisor"),
    pytest.param(RUN, "worker", id="run-worker"),
    pytest.param(CANCEL, "supervisor", id="cancel-supervisor"),
    pytest.param(DUPLICATE, "supervisor", id="duplicate-supervisor"),
    pytest.param(FAIL, "supervisor", id="fail-supervisor"),
]


class Machine:
    """A daemon on a disk of its own, and its plug."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cuts = itertools.count()
        self._disk = disk(folder / "disk", folder / "mounted", MEGABYTES, LAZY).on()
        self._image = folder / "disk"
        self.daemon = Daemon(self._disk.at, fake=True)
        self.daemon.start().ready()

    def suffer(self, scenario: Scenario, who: str, inject: str = "", *, background: bool) -> tuple[Path, list[str]]:
        """Pull the plug at the point that is injected, or when all is over: what strace saw, and what was wrong then."""
        daemon, tag, log = self.daemon, f"{next(self._cuts)} ", self._folder / "strace"
        scenario.prepare(daemon, tag)
        _sync(self._disk.at)
        with contextlib.ExitStack() as stack:
            if background:
                syncs: list[None] = []
                stack.enter_context(again_and_again(lambda: syncs.append(_sync(self._disk.at))))
                while len(syncs) <= 10:
                    time.sleep(0.005)  # it goes on before anything happens
            pid = stack.enter_context(followed(daemon, who, log, *what(*[inject] if inject else [])))
            scenario.act(daemon, tag)
            _make_durable(daemon.inbox)
            limit = time.monotonic() + PATIENCE_S
            while not is_over(daemon, scenario, tag) and lives(pid) and time.monotonic() < limit:
                time.sleep(0.005)
        shown = {name: daemon.song(tag + name) for name in scenario.ends}
        self._cut()
        # Everybody sees a rename before fsync(2) of the folder returns: what is shown in between may be gone until the start.
        wrong = [] if _was_at_fsync_of(daemon.spool / "status", log) else self._unsaid(tag, shown, "after the cut")
        wrong += self._damage()
        daemon.hold.unlink(missing_ok=True)
        daemon.start().ready()
        daemon.quiet(1)
        wrong += self._unsaid(tag, shown, "after the start") + violations(daemon, scenario, tag)
        tidy(daemon)
        return log, wrong

    def _cut(self) -> None:
        """The machine is dead; what its disk holds is all that there is when it comes back."""
        worker = self.daemon.read("_daemon.json")["worker"]["pid"]
        self.daemon.end()
        while lives(worker):
            time.sleep(0.005)  # it dies with its parent; until then it has files open there
        copy = self._folder / f"disk-{next(self._cuts)}"
        before = -1
        while (now := _writes(self._image)) != before:  # of one moment: no write has ended during the copying
            before = now
            subprocess.run(["cp", "--sparse=always", self._image, copy], check=True)
        self._disk.off()
        self._image.unlink()
        self._image = copy
        self._disk = disk_of(copy, self._disk.at, LAZY).on()

    def _unsaid(self, tag: str, shown: dict[str, dict[str, Any]], when: str) -> list[str]:
        """What a consumer was told for good before the cut, and is not told any more."""
        wrong = []
        for name, before in shown.items():
            now = self.daemon.song(tag + name)
            if before.get("state") in FINAL and [before[key] for key in SAID] != [now.get(key) for key in SAID]:
                wrong.append(f"{name} was shown as {before['state']}, and is {now.get('state')} {when}")
        return wrong

    def _damage(self) -> list[str]:
        """What cannot be read of what the cut has left: sidecars, results, the ledger."""
        wrong = []
        for path in (self.daemon.spool / "status").rglob("*.json"):
            try:
                json.loads(path.read_bytes())
            except ValueError as error:
                wrong.append(f"after the cut, {path.name}: {error}")
        for path in self.daemon.outbox.rglob("stems.json"):
            if ".demixd" not in path.parts:
                wrong += [f"after the cut, {path.parent.name}: {each}" for each in faults(path.parent)]
        return wrong + self._ledger_is_damaged()

    def _ledger_is_damaged(self) -> list[str]:
        """Looked at in a copy, for looking writes."""
        copy = self._folder / "ledger"
        copy.mkdir(exist_ok=True)
        for path in (self._disk.at / "state").glob("ledger.sqlite3*"):
            shutil.copy(path, copy)
        with contextlib.closing(sqlite3.connect(copy / "ledger.sqlite3")) as ledger:
            answer = ledger.execute("PRAGMA integrity_check").fetchall()
        shutil.rmtree(copy)
        return [] if answer == [("ok",)] else [f"the ledger: {answer}"]

    def close(self) -> None:
        self.daemon.end()
        self._disk.off()
        self._image.unlink()


def _was_at_fsync_of(folder: Path, log: Path) -> bool:
    """Whether the call in which the daemon was killed was that."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if "= ?" in line or "<unfinished" in line]
    return any(re.search(rf"fsync\(\d+<{re.escape(str(folder))}>", line) for line in lines)


def _writes(image: Path) -> int:
    """How many writes the loop device on `image` has ended. Source: iostats.rst of Linux."""
    for device in Path("/sys/block").glob("loop*"):
        with contextlib.suppress(FileNotFoundError):
            if (device / "loop/backing_file").read_text().rstrip("\n") == str(image):
                return int((device / "stat").read_text().split()[4])
    raise LookupError(f"no loop device has {image}")


def _sync(folder: Path) -> None:
    """syncfs(2)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        assert _libc.syncfs(handle) == 0
    finally:
        os.close(handle)


def _make_durable(inbox: Path) -> None:
    """What was dropped is on the disk, as far as it is still there: nobody is promised more than that."""
    for path in (*inbox.iterdir(), inbox):
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    found = Machine(folder)
    try:
        yield found
        assert found.daemon.stop() == 0
    finally:
        found.close()


def known(there: Machine, scenario: Scenario, who: str, *, background: bool) -> list[Point]:
    """The points of a scenario; the plug is pulled after its end, and all is well."""
    log, wrong = there.suffer(scenario, who, background=background)
    assert wrong == []
    return points(log)


def walk(
    folder: Path, scenario: Scenario, who: str, seed: int, share: int, *, background: bool
) -> tuple[int, list[str]]:
    """How many points were reached, and what was wrong after any of them; after one that was, another machine goes on."""
    with machine(made(folder, "0")) as there:
        every = known(there, scenario, who, background=background)
    left = random.Random(seed).sample(every, min(share, len(every)))
    reached, wrong = 0, []
    while left:
        with machine(made(folder, str(len(left)))) as there:
            found: list[str] = []
            while left and not found:
                point = left.pop()
                inject = f"{point.call}:signal=KILL:when={point.time}"
                log, found = there.suffer(scenario, who, inject, background=background)
                reached += was_reached(log)
                wrong += [f"{point}: {each}" for each in found]
    return reached, wrong


@pytest.mark.parametrize("part", [0, 1])
def test_the_plug_is_pulled_at_some_points(
    tmp_path: Path, part: int, day: int, record_property: Callable[[str, object], None]
) -> None:
    """Two parts of it, and two points of each: others every day."""
    scenario, who = random.Random(day).sample(PARTS, 2)[part].values
    reached, wrong = walk(tmp_path, scenario, who, day, 2, background=bool(part))
    assert wrong == [], f"day {day}"
    record_property("power cuts", reached)


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True], ids=["lazy", "written-again-and-again"])
@pytest.mark.parametrize(("scenario", "who"), PARTS)
def test_the_plug_is_pulled_at_every_point(
    tmp_path: Path, scenario: Scenario, who: str, background: bool, record_property: Callable[[str, object], None]
) -> None:
    """All of them."""
    reached, wrong = walk(tmp_path, scenario, who, 0, 10**6, background=background)
    assert wrong == []
    record_property("power cuts", reached)
