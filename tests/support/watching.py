"""Eyes for tests: what other programs could have seen of a daemon's files at any moment."""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons import below


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def faults(folder: Path) -> list[str]:
    """What is wrong with a result, held against its own manifest: files, sizes and hashes."""
    manifest = json.loads((folder / "stems.json").read_bytes())
    files = manifest["files"] + manifest["extras"]
    listed = {file["name"]: (file["bytes"], file["sha256"]) for file in files}
    there = {
        path.relative_to(folder).as_posix(): (path.stat().st_size, sha256(path))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "stems.json"
    }
    return [
        f"{name}: {listed.get(name)} != {there.get(name)}"
        for name in listed | there
        if listed.get(name) != there.get(name)
    ]


@contextlib.contextmanager
def again_and_again(look: Callable[[], None]) -> Iterator[list[str]]:
    """Does `look` in a thread as often as it can; what it raises is in the list, and it must have looked."""
    raised: list[str] = []
    stop = threading.Event()
    looks = 0

    def loop() -> None:
        nonlocal looks
        is_last = False
        while not is_last:
            is_last = stop.is_set()  # what came just before the end is looked at once more
            try:
                look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
                raised.append(repr(error))
                return
            looks += 1
            time.sleep(0)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join()
    assert raised or looks > 10


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")


@contextlib.contextmanager
def traced(log: Path, pids: Iterable[int], *what: str) -> Iterator[None]:
    """While strace, told `what` to trace, writes what processes with all their threads, and those to come, ask of the kernel.

    Raises ProcessLookupError where one of them has ended before it could be followed.
    """
    pids = list(pids)
    words = ["strace", "-f", "-qq", *what, "-o", str(log), *(word for pid in pids for word in ("-p", str(pid)))]
    log.unlink(missing_ok=True)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as strace:
        try:
            limit = time.monotonic() + 30
            while not all(map(_is_followed, pids)):
                if strace.poll() is not None:
                    assert strace.stderr is not None
                    said = strace.stderr.read().strip()
                    if not all(map(lives, pids)):
                        if log.exists() and "(INJECTED)" in log.read_text():
                            break  # of what was done to it, sooner than it could be seen that it is followed
                        raise ProcessLookupError(f"one of {pids} has ended")
                    assert "not permitted" in said, f"strace has ended: {said}"
                    pytest.skip(f"this process may not trace another: {said}")
                assert time.monotonic() < limit, f"strace does not follow {pids}"
                time.sleep(0.01)
            yield
        finally:
            strace.send_signal(signal.SIGINT)  # it lets go of what it follows
            try:
                strace.wait(timeout=10)
            except subprocess.TimeoutExpired:
                strace.kill()  # one in a thousand times it waits for ever for a thread of a process that it has killed


def lives(pid: int) -> bool:
    """Whether a process does; a dead one whose parent, or who follows it, has not heard of it yet does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def lying_about(spool: Path) -> list[Path]:
    """Hidden files that nobody is writing just now: the heartbeat has one of its own whenever it beats."""

    def hidden() -> dict[Path, tuple[int, int]]:
        found = {}
        for path in below(spool):
            with contextlib.suppress(FileNotFoundError):
                if path.name[0] == "." and path.name not in (".demixd", ".demixd-lock"):
                    found[path] = (path.lstat().st_ino, path.lstat().st_mtime_ns)  # inodes are used again
        return found

    before = hidden()
    if before:
        time.sleep(0.5)
    now = hidden() if before else {}
    return [path for path, which in before.items() if now.get(path) == which]


def holds(pid: int) -> tuple[int, int]:
    """How many descriptors and threads a process has, apart from those that it needs for a moment."""
    home = Path(f"/proc/{pid}")
    looks = []
    for _ in range(20):
        looks.append((len(list((home / "fd").iterdir())), len(list((home / "task").iterdir()))))
        time.sleep(0.02)
    return min(handles for handles, _ in looks), min(threads for _, threads in looks)


def _is_followed(pid: int) -> bool:
    try:
        return all(
            "TracerPid:\t0\n" not in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


_libc = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200


class Events:
    """What inotify(7) tells of some folders: (folder, name, which of the constants above), in order."""

    def __init__(self, *folders: Path) -> None:
        self._handle = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
        self._folders = {_libc.inotify_add_watch(self._handle, os.fsencode(path), mask): path for path in folders}
        assert -1 not in self._folders, "a folder is not there"

    def take(self) -> list[tuple[Path, str, int]]:
        """All that has come."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._handle, 1 << 16):
                while data:
                    watch, mask, _, size = _EVENT.unpack_from(data)
                    name = data[_EVENT.size : _EVENT.size + size].rstrip(b"\0").decode()
                    found.append((self._folders[watch], name, mask & 0xFFF))
                    data = data[_EVENT.size + size :]
        os.close(self._handle)
        return found


class Histories:
    """The states that each job was ever seen in, in order; `look` reads every sidecar once. No `seq` or `fraction` may fall."""

    def __init__(self, status: Path) -> None:
        self.status = status
        self.of: dict[str, list[str]] = {}
        self.last_seq: dict[str, int] = {}
        self.last_fraction: dict[tuple[str, int, str], float] = {}
        self.reads = 0

    def look(self) -> None:
        for path in sorted(self.status.rglob("*.json")):
            document: dict[str, Any] = json.loads(path.read_bytes())
            self.reads += 1
            name = path.relative_to(self.status).as_posix()
            assert document["seq"] >= self.last_seq.get(name, 0), f"seq of {name} fell"
            self.last_seq[name] = document["seq"]
            if not path.name.startswith("_"):
                states = self.of.setdefault(document["job_id"], [])
                if states[-1:] != [document["state"]]:
                    states.append(document["state"])
                spell = (document["job_id"], document["attempt"], document["state_since"])
                fraction = document["progress"]["fraction"]
                assert fraction >= self.last_fraction.get(spell, 0.0), f"fraction of {name} fell"
                self.last_fraction[spell] = fraction
