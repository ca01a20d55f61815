"""What the kernel says of a daemon's processes: memory, processor time, bytes written, descriptors, watches."""

import contextlib
import os
import re
from pathlib import Path

from daemons import Daemon
from watching import holds


def pid(daemon: Daemon) -> int:
    assert daemon.process is not None
    return daemon.process.pid


def resident(daemon: Daemon) -> int:
    """Bytes of memory that it has for itself alone."""
    lines = Path(f"/proc/{pid(daemon)}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def busy_s(process: int) -> float:
    """Seconds of processor time that a process has used."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def written(process: int) -> int:
    """Bytes of files on disks that a process and its children have made dirty (proc(5), write_bytes), ended ones included.

    Files on a tmpfs do not count, and those that are gone again do.
    """
    home = Path(f"/proc/{process}")
    own = dict(line.split(": ") for line in (home / "io").read_text().splitlines())["write_bytes"]
    begun = [child for path in home.glob("task/*/children") for child in path.read_text().split()]
    return int(own) + sum(written(int(child)) for child in begun)


def watched(daemon: Daemon) -> set[int]:
    """The inodes that the kernel watches for the daemon."""
    assert daemon.process is not None
    home, found = Path(f"/proc/{daemon.process.pid}"), set()
    for handle in (home / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a file that was open for a moment
            if str(handle.readlink()) == "anon_inode:inotify":
                facts = (home / "fdinfo" / handle.name).read_text()
                found |= {int(inode, 16) for inode in re.findall(r"^inotify wd:\w+ ino:(\w+)", facts, re.MULTILINE)}
    return found


def handles(daemon: Daemon) -> tuple[int, int]:
    """How many descriptors and threads it has."""
    assert daemon.process is not None
    return holds(daemon.process.pid)


def children(parent: int = 0) -> list[int]:
    """The processes that a process, or this one, has started from its main thread."""
    parent = parent or os.getpid()
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def is_over(process: int) -> bool:
    """Whether a process is gone, or waits for its parent to notice that it is."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True
