"""Every file-system call of a job fails, with every error that a disk or a share knows.

    once      the K-th call of that name by a thread fails, and the next one does not
    for long  it fails, and all that follow, until the cause goes away

The daemon lives on, nobody helps it, and every song ends as it would have; never in another way, never twice, and
nothing is left lying about. One daemon goes through many of these, one after the other.
"""

import contextlib
import itertools
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemons import Daemon
from injection import CALLS, READING, Point, followed, is_warm, points, was_reached, what
from scenarios import CANCEL, DUPLICATE, FAIL, RUN, Scenario, is_over, made, tidy, violations
from watching import lives, needs_strace

pytestmark = needs_strace

ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "ESTALE", "EMFILE")

EVERY = (*CALLS, *READING)

CAUSE_S = 1.0
"""How long a cause lasts that does not go away at once; a job that was hit by it is tried again after as long."""

PARTS = [
    pytest.param(scenario, who, id=f"{scenario.name}-{who}")
    for scenario in (RUN, CANCEL, DUPLICATE, FAIL)
    for who in ("supervisor", "worker")
    if (scenario, who) != (DUPLICATE, "worker")
]


class Injection(msgspec.Struct, frozen=True):
    """`point` fails with `error`: once, or from then on."""

    point: Point
    error: str
    lasts: bool = False

    def __str__(self) -> str:
        return f"{self.point.call}:error={self.error}:when={self.point.time}{'+' if self.lasts else ''}"


class Patient:
    """A daemon that goes through a scenario again and again; `shown` are the sidecars of the last time."""

    def __init__(self, folder: Path) -> None:
        limits = {"truncated_grace_s": 2 * CAUSE_S, "memory_bytes": 0}  # all sound in files
        self.daemon = Daemon(folder, fake=True, limits=limits)
        self.daemon.constants |= {
            "demixd.supervisor.runs.outcomes:RETRY_S": CAUSE_S,
            "demixd.supervisor.runs.outcomes:LONGER": 1.0,
        }
        self.daemon.constants |= {
            "demixd.supervisor.workers.patience:STALL_FLOOR_S": 5.0,
            "demixd.supervisor.workers.missing:RETRY_S": [0.5],
        }
        self.shown: dict[str, dict[str, Any]] = {}
        self._tags = (f"{number} " for number in itertools.count())
        self.daemon.start().ready()

    def suffer(
        self, scenario: Scenario, who: str, *inject: Injection, at: Path | None = None
    ) -> tuple[Path, list[str]]:
        """What strace has seen of it (`at` one file, where one is given), and what was wrong afterwards."""
        daemon, tag, log = self.daemon, next(self._tags), self.daemon.folder / "strace"
        daemon.until(lambda: is_warm(daemon), "a warm worker")
        scenario.prepare(daemon, tag)
        seconds = CAUSE_S if any(each.lasts for each in inject) else 10 * CAUSE_S
        only = ("-P", str(at)) if at else ()
        with followed(daemon, who, log, *only, *what(*map(str, inject), calls=EVERY)):
            scenario.act(daemon, tag)
            limit = time.monotonic() + seconds
            while not is_over(daemon, scenario, tag) and time.monotonic() < limit:
                # strace counts each new thread and process anew, and would meet a second attempt with the same.
                if was_reached(log) and not any(each.lasts for each in inject):
                    break
                time.sleep(0.02)
        wrong = []
        assert daemon.process is not None
        if not lives(daemon.process.pid):
            daemon.process.wait()
            wrong.append(f"the daemon ended with status {daemon.process.poll()}: {daemon.log.read_text()[-1500:]}")
            daemon.start().ready()
        daemon.hold.unlink(missing_ok=True)
        try:
            daemon.until(lambda: is_over(daemon, scenario, tag), "it is over")
            daemon.quiet(1)
        except AssertionError as error:
            wrong.append(str(error)[:1500])
        self.shown = {name: daemon.song(tag + name) for name in scenario.ends}
        wrong += violations(daemon, scenario, tag, may_stay=True)
        tidy(daemon)
        return log, wrong

    def leave(self) -> list[str]:
        """Stop it; what was wrong with that."""
        status = self.daemon.stop()
        return [f"the daemon ended with status {status}: {self.daemon.log.read_text()[-1500:]}"] if status else []


@contextlib.contextmanager
def patient(folder: Path) -> Iterator[Patient]:
    found = Patient(folder)
    try:
        yield found
    finally:
        found.daemon.end()


def known(there: Patient, scenario: Scenario, who: str) -> list[Point]:
    """The points of a scenario in which nothing happens; what it leaves is as it should be."""
    log, wrong = there.suffer(scenario, who)
    assert wrong == []
    return points(log, EVERY)


def shuffled(every: list[Point], chance: random.Random) -> list[Injection]:
    """All calls that change something with each error, and those that read with one, in any order."""
    once = [Injection(point, error) for point in every for error in ERRORS if point.call in CALLS]
    once += [Injection(point, chance.choice(ERRORS)) for point in every if point.call in READING]
    firsts = {point.call: point for point in reversed(every)}
    lasting = [Injection(point, error, lasts=True) for point in firsts.values() for error in ERRORS]
    return chance.sample(once + lasting, len(once + lasting))


def sweep(folder: Path, scenario: Scenario, who: str, seed: int, share: slice) -> tuple[int, list[str]]:
    """How many injections were made, and what was wrong after any of them; after one that was, another daemon goes on."""
    with patient(made(folder, "0")) as there:
        left = shuffled(known(there, scenario, who), random.Random(seed))[share]
    count, wrong = 0, []
    while left:
        with patient(made(folder, str(len(left)))) as there:
            found: list[str] = []
            while left and not found:
                injection = left.pop()
                log, found = there.suffer(scenario, who, injection)
                count += was_reached(log)
                wrong += [f"{injection}: {each}" for each in found]
            wrong += [f"{injection}, or one before it: {each}" for each in there.leave()]
    return count, wrong


@pytest.mark.parametrize("number", range(3))
def test_some_errors(tmp_path: Path, number: int, day: int, record_property: Callable[[str, object], None]) -> None:
    """Eight of each of three parts, others every day."""
    scenario, who = random.Random(day).sample(PARTS, 3)[number].values
    count, wrong = sweep(tmp_path, scenario, who, day, slice(8))
    assert wrong == [], f"day {day}"
    record_property("errors", count)


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.parametrize(("scenario", "who"), PARTS)
def test_every_error(
    tmp_path: Path,
    scenario: Scenario,
    who: str,
    quarter: int,
    day: int,
    record_property: Callable[[str, object], None],
) -> None:
    """All of them."""
    count, wrong = sweep(tmp_path, scenario, who, day, slice(quarter, None, 4))
    assert wrong == [], f"day {day}"
    record_property("errors", count)


@pytest.mark.parametrize("who", ["supervisor", "worker"])
def test_a_failed_fsync_throws_the_work_away(
    tmp_path: Path, who: str, record_property: Callable[[str, object], None]
) -> None:
    """A kernel that could not write a page forgets that it has to: fsync(2) again would lie, so all of it is made anew."""
    with patient(tmp_path) as there:
        for _ in range(2):  # the first song is also the first in the list of ends, whose folder is synced once
            log, wrong = there.suffer(RUN, who)
            assert wrong == []
        syncs = [point for point in points(log, EVERY) if point.call == "fsync"]
        thrown = 0
        for point in syncs:
            log, wrong = there.suffer(RUN, who, Injection(point, "EIO"))
            assert wrong == []
            (line,) = [line for line in log.read_text(errors="replace").splitlines() if "(INJECTED)" in line]
            if "/.demixd/" in line:
                thrown += 1
                assert there.shown["song.wav"]["attempt"] == 2, line
        assert there.leave() == []
    assert thrown > 0
    record_property("errors", len(syncs))


def marks(log: Path) -> list[int]:
    """Which fcntl(2) calls at the ledger give the lock back under which SQLite has moved a reader's mark (WAL_READ_LOCK)."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if " fcntl(" in line]
    return [
        number
        for number, (before, line) in enumerate(itertools.pairwise(lines), 2)
        if "F_WRLCK" in before and "F_UNLCK" in line and "l_start=124" in before and "l_start=124" in line
    ]


def test_a_lock_that_cannot_be_given_back(
    tmp_path: Path, day: int, record_property: Callable[[str, object], None]
) -> None:
    """SQLite's connection is in its own way from then on, and for ever: the ledger is opened anew."""
    with patient(tmp_path) as there:
        locks = there.daemon.folder / "state" / "ledger.sqlite3-shm"
        for _ in range(2):  # the first song is also the first of its kind, of which more is written
            log, wrong = there.suffer(RUN, "supervisor", at=locks)
            assert wrong == []
        number = random.Random(day).choice(marks(log)[:-1])  # after the last one nothing is written that would show it
        log, wrong = there.suffer(RUN, "supervisor", Injection(Point("fcntl", number), "ENOLCK"), at=locks)
        assert wrong == [], f"fcntl {number}"
        assert re.search(r"F_UNLCK.*l_start=124.*INJECTED", log.read_text()), "it was another call"
        assert there.leave() == []
        assert "locking protocol" in there.daemon.log.read_text()
    record_property("errors", 1)
