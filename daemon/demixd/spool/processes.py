"""Whether a process lives, by what it has said of itself in a file: on one machine nobody need wait for its next sign.

And what the kernel says of one (proc(5)).
"""

import os
import socket
import time
from pathlib import Path

from demixd.protocol.status import ProcessFacts

PROC = Path("/proc")


def boot_id() -> str:
    """The kernel's random name of this start of the machine; empty where there is none."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def place() -> str:
    """The name of this start of the machine, and of the files that this process sees (mount_namespaces(7))."""
    return f"{boot_id()} {_namespace('mnt')}"


def this_process() -> ProcessFacts:
    """The facts by which others find this process."""
    return ProcessFacts(
        host=socket.gethostname(), boot=boot_id(), namespace=_namespace(), started=_started(os.getpid())[1]
    )


def is_alive(pid: int, facts: ProcessFacts, seen_at: float) -> bool | None:
    """Whether the process that has given these facts lives; None where this machine cannot tell.

    `seen_at` is the UNIX time of its last sign. One that was given before this machine, which has the same name, was
    started was the last of all.
    """
    boot = boot_id()
    if not boot or facts.boot != boot:
        return False if facts.host == socket.gethostname() and seen_at < _booted_at() else None
    if facts.namespace != _namespace() or pid <= 0:
        return None  # a container's numbers are not ours
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    except OverflowError:
        return None
    try:
        state, started = _started(pid)
    except OSError:
        return True  # /proc hides it (hidepid)
    return state not in "ZX" and started == facts.started


def _namespace(kind: str = "pid") -> int:
    """The number of the namespace in which process ids hold (pid_namespaces(7)), or another kind; 0 where there is none."""
    try:
        return (PROC / "self/ns" / kind).stat().st_ino
    except OSError:
        return 0


def _started(pid: int) -> tuple[str, int]:
    """A process's state (`Z`: it has ended) and when it was started, in ticks since the boot. Raises OSError."""
    words = _stat(pid)
    return words[0], int(words[19])


def state_and_time(pid: int) -> tuple[str, float]:
    """A process's state (`D`: in the kernel, and cannot be interrupted; `T`: stopped), and the seconds of processors' time
    that it has used. Raises OSError."""
    words = _stat(pid)
    return words[0], (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def command_of(pid: int) -> str:
    """The name of a process's program, of which the kernel keeps 15 characters; empty where it is gone, or hidden."""
    try:
        return (PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def runs(program: str) -> bool:
    """Whether a program of that name runs on this machine, as far as this user sees."""
    return any(command_of(int(path.name)) == program for path in PROC.glob("[0-9]*"))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the second is a name with anything in it. Raises OSError."""
    return (PROC / f"{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _booted_at() -> float:
    """The UNIX time of this machine's start, about."""
    return time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
