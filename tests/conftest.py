"""What all tests share: no test leaves a child process or a thread behind."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the worker has it: these machines are shared


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the long sweeps whole")
    parser.addoption("--soak", type=float, metavar="MINUTES", help="only a random walk, for so long")
    parser.addoption("--seeded", action="store_true", help="only the tests of the tests: every bug is sown, and caught")
    today = time.strftime("%Y%m%d")
    parser.addoption(
        "--seed", type=int, default=int(today), help="draws what the sweeps try today; the date by default"
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('--seed')} (--seed)"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What decides which share of a sweep is tried."""
    drawn: int = request.config.getoption("--seed")
    return drawn


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


LONGEST = ("test_service.py", "test_latency.py", "test_engine.py")
"""They are begun first, so that nobody waits for the last one alone."""


APART = {
    "soak": "a long walk: tests/run --soak MINUTES goes on it",
    "seeded": "bugs that are sown: tests/run --seeded sows them all",
}
"""What runs only where it is asked for, and then nothing else does."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
    wanted = {"soak": config.getoption("--soak") is not None, "seeded": config.getoption("--seeded")}
    for item in items:
        for word, reason in APART.items():
            if item.get_closest_marker(word) and not wanted[word]:
                item.add_marker(pytest.mark.skip(reason=reason))
    if any(wanted.values()):
        chosen = [item for item in items if any(wanted[word] and item.get_closest_marker(word) for word in APART)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    if not config.getoption("--full"):
        skip = pytest.mark.skip(reason="a long sweep: tests/run --full runs it")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)


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
