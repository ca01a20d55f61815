"""What this machine can do: its processor's cores and kinds of numbers, and the memory that is free. Reads /proc and /sys.

A cgroup can allow less than the machine has, and every cgroup above it too: the least of them counts. Only cgroup v2
is asked (`0::/system.slice/demixd.service` in /proc/self/cgroup).
"""

import os
from collections.abc import Iterator
from pathlib import Path

BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
"""Flags of processors that multiply bfloat16; others are slower with it than with float32."""

CGROUPS = Path("/sys/fs/cgroup")


def cpu_name() -> str:
    """The processor's name as its maker gives it; `CPU` where the system does not tell (ARM)."""
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def has_bfloat16() -> bool:
    return bool(flags(_read(Path("/proc/cpuinfo"))) & BFLOAT16)


def threads() -> int:
    """How many threads pay: a physical core each (two on one core share its multipliers), no more than we may use."""
    count = cores(_read(Path("/proc/cpuinfo")), os.sched_getaffinity(0))
    allowed = [quota(_read(folder / "cpu.max")) for folder in _cgroups()]
    return max(1, min([count, *(each for each in allowed if each is not None)]))


def room() -> int:
    """Bytes of memory that can be had without anyone being killed for it."""
    free = [available(_read(Path("/proc/meminfo")))]
    for folder in _cgroups():
        used, cache = _read(folder / "memory.current"), _read(folder / "memory.stat")
        free += [left(_read(folder / name), used, cache) for name in ("memory.max", "memory.high")]
    return max(0, min((each for each in free if each is not None), default=0))


def flags(cpuinfo: str) -> frozenset[str]:
    """The first processor's flags."""
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def cores(cpuinfo: str, allowed: set[int]) -> int:
    """The physical cores of the `allowed` processors; where none are told (ARM, some virtual machines), all of these."""
    found = set()
    for block in cpuinfo.split("\n\n"):
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        number = facts.get("processor", "")
        if number.isdecimal() and int(number) in allowed:
            found.add((facts.get("physical id", "0"), facts.get("core id", f"processor {number}")))
    return len(found) or len(allowed)


def quota(cpu_max: str) -> int | None:
    """`150000 100000` is one processor and a half: a second thread would keep the first one waiting. `max` is no limit."""
    match cpu_max.split():
        case [limit, period] if limit.isdecimal() and period.isdecimal() and int(period):
            return int(limit) // int(period)
    return None


def available(meminfo: str) -> int | None:
    line = next((line for line in meminfo.splitlines() if line.startswith("MemAvailable:")), "")
    match line.split():
        case [_, number, "kB"] if number.isdecimal():
            return int(number) * 1024
    return None


def left(limit: str, used: str, stat: str) -> int | None:
    """What a cgroup may still take: files that are only cached (`inactive_file`) make way. `max` is no limit."""
    if not (limit.strip().isdecimal() and used.strip().isdecimal()):
        return None
    line = next((line for line in stat.splitlines() if line.startswith("inactive_file ")), "inactive_file 0")
    return int(limit) - int(used) + int(line.split()[1])


def _cgroups() -> Iterator[Path]:
    """Our cgroup's folder and those above it."""
    lines = _read(Path("/proc/self/cgroup")).splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = CGROUPS / path
    yield folder
    while folder != CGROUPS:
        folder = folder.parent
        yield folder


def _read(path: Path) -> str:
    """Empty where the system does not tell."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
