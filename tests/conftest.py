"""What all tests share: no test leaves a child process or a thread behind."""

import functools
import os
import signal
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the worker has it: these machines are shared
# A shell that starts the tests in the background has them ignore Ctrl-C, and the programs that tests send it would too.
signal.signal(signal.SIGINT, signal.default_int_handler)


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

COMPUTING = ("tests/unit/engine/", "tests/system/models/")
"""Where the tests are that keep every processor busy: one process goes through each, and what waits runs beside them."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Who goes where: each folder that computes to one process; a file whose tests share a set-up, and short ones, together."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _scope(config.rootpath, nodeid)

    return Scheduling(config, log)


def _scope(root: Path, nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    for folder in COMPUTING:
        if path.startswith(folder):
            return folder
    return path if path.startswith("tests/unit/") or _shares(root / path) else nodeid


@functools.cache
def _shares(path: Path) -> bool:
    return 'scope="module"' in path.read_text(encoding="utf-8")


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
    items.sort(key=lambda item: _turn(_scope(config.rootpath, item.nodeid)))


def _turn(scope: str) -> int:
    """What takes longest as a whole begins first, and single tests of a daemon last: they fill what is left of each process."""
    if scope in COMPUTING:
        return 0
    if "::" not in scope:
        return 1
    return 3 if scope.startswith(("tests/daemon/", "tests/simulation/")) else 2


def _skip_heavy(item: pytest.Item, day: int) -> None:
    if item.get_closest_marker("slow"):
        item.add_marker(pytest.mark.skip(reason="a long sweep: tests/run --full runs it"))
    elif item.get_closest_marker("daily") and zlib.crc32(item.nodeid.encode()) % WEEK != day % WEEK:
        item.add_marker(pytest.mark.skip(reason="another day's turn: tests/run --full runs it"))


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
