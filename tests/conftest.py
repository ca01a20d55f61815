"""What all tests share: no test leaves a child process or a thread behind."""

import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the worker has it: these machines are shared


WEEK = 7
"""A heavy test has its turn once in so many days."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run every test, the long sweeps too")
    parser.addoption("--soak", type=float, metavar="MINUTES", help="only a random walk, for so long")
    parser.addoption("--seeded", action="store_true", help="only the tests of the tests: every bug is sown, and caught")
    parser.addoption(
        "--day",
        type=int,
        default=int(time.time()) // 86400,
        help="which heavy tests have their turn, and what the sweeps draw: days since 1970, today by default",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"day: {config.getoption('--day')} (--day)"


@pytest.fixture
def day(request: pytest.FixtureRequest) -> int:
    """What decides which share of a sweep is tried."""
    number: int = request.config.getoption("--day")
    return number


@pytest.fixture
def soak_s(request: pytest.FixtureRequest) -> float:
    """How long the random walk goes on."""
    minutes: float = request.config.getoption("--soak")
    return 60 * minutes


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures that sweeps have recorded, added up."""
    figures: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                figures.update(dict(report.user_properties))
    for name, figure in sorted(figures.items()):
        terminalreporter.write_line(f"{name}: {figure}")


APART = {
    "soak": "a long walk: tests/run --soak MINUTES goes on it",
    "seeded": "bugs that are sown: tests/run --seeded sows them all",
}
"""What runs only where it is asked for, and then nothing else does."""

COMPUTING = "computing"
"""The group of the tests that keep every processor busy: xdist gives it to one process, one test after the other."""


@pytest.hookimpl(tryfirst=True)  # before xdist, which takes the groups from the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {"soak": config.getoption("--soak") is not None, "seeded": config.getoption("--seeded")}
    if any(wanted.values()):
        chosen = [item for item in items if any(wanted[word] and item.get_closest_marker(word) for word in APART)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    for item in items:
        for word, reason in APART.items():
            if item.get_closest_marker(word) and not wanted[word]:
                item.add_marker(pytest.mark.skip(reason=reason))
        if not config.getoption("--full"):
            _skip_heavy(item, config.getoption("--day"))
        if item.get_closest_marker("xdist_group") is None and _stays_with_its_file(item):
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(config.rootpath).as_posix()))
    # What computes takes longest, one after the other: it begins first, and what waits runs beside it.
    items.sort(key=lambda item: not _computes(item))


def _skip_heavy(item: pytest.Item, day: int) -> None:
    if item.get_closest_marker("slow"):
        item.add_marker(pytest.mark.skip(reason="a long sweep: tests/run --full runs it"))
    elif item.get_closest_marker("daily") and zlib.crc32(item.nodeid.encode()) % WEEK != day % WEEK:
        item.add_marker(pytest.mark.skip(reason="another day's turn: tests/run --full runs it"))


def _computes(item: pytest.Item) -> bool:
    group = item.get_closest_marker("xdist_group")
    return group is not None and group.args == (COMPUTING,)


def _stays_with_its_file(item: pytest.Item) -> bool:
    """Pure tests are too short to go round one by one; and what a file sets up for all its tests is set up once."""
    made = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - nothing public tells a fixture's scope
    shared = any(each.scope != "function" and each.baseid for fixtures in made.values() for each in fixtures)
    return shared or "unit" in item.path.parts


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    children, threads = _children(), set(threading.enumerate())
    yield
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        left = _children() - children
        alive = {each for each in set(threading.enumerate()) - threads if not each.daemon}
        if not left and not alive:
            return
        time.sleep(0.05)
    pytest.fail(f"left behind: processes {left}, threads {alive}")
