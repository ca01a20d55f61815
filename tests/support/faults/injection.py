"""A daemon that something happens to in the middle of a system call: strace(1) kills it there, or has the call fail.

    trace    a daemon, or its worker, is followed while a scenario goes on; the calls that it makes are counted
    points   (call, K): the K-th time that a thread of it makes this call
    inject   the scenario once more, and at that point it happens

What a daemon does is much the same each time, and not exactly: a point that is not reached is counted as such.
"""

import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from daemons import PATIENCE_S, Daemon
from scenarios import Scenario, is_over, tidy, violations
from watching import lives, traced

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

READING = (
    "openat",
    "newfstatat",
    "getdents64",
    "read",
    "pread64",
    "preadv",
    "lseek",
    "fcntl",
    "access",
    "statfs",
    "close",
)
"""The calls by which files and folders are found, opened, read, locked and let go of."""

_LINE = re.compile(r"^(\d+) +(\w+)\(")


class Point(msgspec.Struct, frozen=True, order=True):
    call: str
    time: int

    def __str__(self) -> str:
        return f"{self.call}-{self.time}"


def what(*inject: str, calls: tuple[str, ...] = CALLS) -> tuple[str, ...]:
    """What strace is told: to follow these calls, and to `inject`, which is what its option of that name takes."""
    return ("-y", "-e", f"trace={','.join(calls)}", *(word for each in inject for word in ("-e", f"inject={each}")))


def points(log: Path, calls: tuple[str, ...] = CALLS) -> list[Point]:
    """Where things can happen: as often as the busiest thread makes a call, for strace counts each thread by itself."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        if found := _LINE.match(line):
            counts[found[1], found[2]] += 1
    most: dict[str, int] = {}
    for (_, call), count in counts.items():
        most[call] = max(count, most.get(call, 0))
    return [Point(call, k) for call in calls for k in range(1, most.get(call, 0) + 1)]


HELD = ("sh", "-c", 'kill -STOP $$; exec "$@"', "sh")
"""The start of a command that waits for a SIGCONT before it becomes what it is to be."""

# ---- what happens


def target(daemon: Daemon, who: str) -> int:
    assert daemon.process is not None
    pid: int = daemon.process.pid if who == "supervisor" else daemon.read("_daemon.json")["worker"]["pid"]
    return pid


def play(
    daemon: Daemon, scenario: Scenario, who: str, tag: str, *inject: str, seconds: float = PATIENCE_S
) -> tuple[Path, list[str]]:
    """The scenario, followed: what strace has seen, and what is wrong once all is over.

    A daemon that is ready goes through it, is started again if it died, and is ready for the next one. What is injected
    goes away when the scenario is over, or after so many `seconds`.
    """
    log = daemon.folder / "strace"
    if scenario.crash:
        _play_start(daemon, log, scenario, tag, *inject)
    else:
        daemon.until(lambda: is_warm(daemon), "a warm worker")
        scenario.prepare(daemon, tag)
        with followed(daemon, who, log, *what(*inject)):
            scenario.act(daemon, tag)
            limit = time.monotonic() + seconds
            # It happens once: strace counts each new process anew, and would kill the next worker at the same point.
            daemon.until(
                lambda: is_over(daemon, scenario, tag) or was_reached(log) or time.monotonic() > limit, "it is over"
            )
    assert daemon.process is not None
    daemon.hold.unlink(missing_ok=True)
    limit = time.monotonic() + 0.5
    while was_reached(log) and lives(daemon.process.pid) and time.monotonic() < limit:
        time.sleep(0.01)  # if it was killed it may not have heard of it yet
    if daemon.process.poll() is not None or not lives(daemon.process.pid):
        daemon.process.wait(timeout=PATIENCE_S)
        daemon.start().ready()
    daemon.quiet(2)
    wrong = violations(daemon, scenario, tag)
    if not wrong:
        tidy(daemon)
    return log, wrong


def _play_start(daemon: Daemon, log: Path, scenario: Scenario, tag: str, *inject: str) -> None:
    """A first life that ends at the scenario's trace point, and a second one that is followed from its start."""
    assert daemon.stop() == 0
    for path in daemon.folder.glob("happened-*"):
        path.unlink()
    daemon.start({scenario.crash: "kill"}).ready()
    scenario.act(daemon, tag)
    assert daemon.process is not None
    first = daemon.process.pid
    assert daemon.process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    daemon.start(under=HELD)
    pid = daemon.process.pid

    def is_second_life_over() -> bool:
        told = daemon.read("_daemon.json")
        has_begun = told["pid"] != first and told["state"] == "ready"
        return not lives(pid) or was_reached(log) or (has_begun and is_over(daemon, scenario, tag))

    daemon.until(lambda: "State:\tT" in Path(f"/proc/{pid}/status").read_text(), "it is held")
    with traced(log, [pid], *what(*inject)):
        os.kill(pid, signal.SIGCONT)
        daemon.until(is_second_life_over, "it is over, one way or another")


@contextlib.contextmanager
def followed(daemon: Daemon, who: str, log: Path, *words: str) -> Iterator[int]:
    """While strace follows it; which process it is. A worker that ends just now has a successor soon."""
    with contextlib.ExitStack() as stack:
        while True:
            pid = target(daemon, who)
            try:
                stack.enter_context(traced(log, [pid], *words))
            except ProcessLookupError:
                daemon.until(lambda: is_warm(daemon), "another worker")
            else:
                break
        yield pid


def is_warm(daemon: Daemon) -> bool:
    """Whether all its workers are, and live: of one that has just died the daemon may not have said so yet."""
    return all(each["state"] == "ready" and lives(each["pid"]) for each in daemon.read("_daemon.json")["workers"])


def was_reached(log: Path) -> bool:
    """Whether it happened."""
    text = log.read_text(errors="replace")
    return "+++ killed by SIGKILL +++" in text or "(INJECTED)" in text
