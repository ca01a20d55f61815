"""kill -9 at every system call of a job by which anything on the disk, or between the processes, changes.

After one restart: nothing lost, nothing done twice, no partial result to be seen, nothing stuck, no work folder left. Every
day a share of the points, drawn by the day's seed; `tests/run --full` walks them all.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from daemons import running
from injection import Point, play, points, was_reached
from scenarios import RUN, SCENARIOS, Scenario, made
from watching import needs_strace

pytestmark = needs_strace

WALKS = [
    pytest.param(scenario, who, id=f"{scenario.name}-{who}")
    for scenario in SCENARIOS
    for who in ("supervisor", "worker")
    if who == "supervisor" or scenario.name in ("run", "cancel", "fail", "three", "six-of-two")
]
"""What is killed during what. The worker has no part in a duplicate, and is killed anyway in a retry."""


TURNS = 3
"""How often a point is tried that is not reached: what a daemon does is not the same each time."""


def known(folder: Path, scenario: Scenario, who: str) -> list[Point]:
    """The points of a scenario in which nothing happens; what it leaves is as it should be."""
    with running(made(folder, "known"), fake=True, **scenario.sections) as daemon:
        log, wrong = play(daemon, scenario, who, "")
        assert wrong == []
        found = points(log)
    # A worker that is cancelled in the middle says that it has stopped, and nothing else.
    least = 21 if who == "supervisor" else 1 if scenario.name == "cancel" else 2
    assert len(found) >= least
    return found


def walk(folder: Path, scenario: Scenario, who: str, chosen: list[Point]) -> tuple[int, list[str]]:
    """How many of the points were reached, and what was wrong after any of them; after one that was, another spool goes on."""
    left, reached, wrong = list(chosen), 0, []
    while left:
        with running(made(folder, str(len(left))), fake=True, **scenario.sections) as daemon:
            found: list[str] = []
            while left and not found:
                point = left.pop()
                for turn in range(TURNS):
                    inject = f"{point.call}:signal=KILL:when={point.time}"
                    log, found = play(daemon, scenario, who, f"{len(left)}-{turn} ", inject)
                    wrong += [f"{point}: {each}" for each in found]
                    if found or was_reached(log):
                        break
                reached += was_reached(log)
    return reached, wrong


@pytest.mark.parametrize("number", range(4))
def test_killed_at_some_points(
    tmp_path: Path, number: int, day: int, record_property: Callable[[str, object], None]
) -> None:
    """Two points of each of four walks, others every day."""
    scenario, who = random.Random(day).sample(WALKS, 4)[number].values
    drawn = random.Random(day).sample(known(tmp_path, scenario, who), 2)
    reached, wrong = walk(tmp_path, scenario, who, drawn)
    assert wrong == [], f"day {day}"
    record_property("crash points", reached)


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "who"), WALKS)
def test_killed_at_every_point(
    tmp_path: Path, scenario: Scenario, who: str, record_property: Callable[[str, object], None]
) -> None:
    """All of them; nearly all must be reached, or the walk has lost its way."""
    every = known(tmp_path, scenario, who)
    reached, wrong = walk(tmp_path, scenario, who, every)
    assert wrong == []
    assert reached > 0.8 * len(every)
    record_property("crash points", reached)


LEDGER = ("pwrite64", "fdatasync")
"""The calls that only SQLite makes."""


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_ledger_that_cannot_be_written(
    tmp_path: Path, error: str, day: int, record_property: Callable[[str, object], None]
) -> None:
    """The daemon holds still until it can be, and does not end; nothing is done twice. Two calls a day, drawn by the day."""
    every = [point for point in known(tmp_path, RUN, "supervisor") if point.call in LEDGER]
    with running(made(tmp_path, "failing"), fake=True) as daemon:
        for number, point in enumerate(random.Random(day).sample(every, 2)):
            inject = f"{point.call}:error={error}:when={point.time}"
            log, wrong = play(daemon, RUN, "supervisor", f"{number} ", inject, seconds=10.0)
            assert wrong == []
            assert was_reached(log)
            assert "cannot be written" in daemon.log.read_text() or point.call == "fdatasync"
            assert daemon.read("_daemon.json")["daemon"] == daemon.song(f"{number} song.wav")["daemon"], (
                "one life did it"
            )
            record_property("errors", 1)
