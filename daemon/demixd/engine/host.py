"""The machine: its processor's name, cores and number formats, its free memory, its compiler, and what of Python and Ray it has.

The only reader of /proc/cpuinfo.

A cgroup, and each cgroup above it, can allow less than the machine has: the smallest limit counts. Only cgroup v2 is
read (`0::/system.slice/demixd.service` in /proc/self/cgroup).
"""

import importlib.metadata
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
"""Flags of processors that multiply bfloat16; others are slower with it than with float32."""

THREADS = "OMP_NUM_THREADS"

RAY_TOKEN = "RAY_AUTH_TOKEN"
"""The environment's word for a token of a cluster itself, rather than for its file."""

WORKER = {
    # OpenMP's threads spin while they wait for each other, which on a machine that does something else as well makes
    # them twenty times slower than sleeping.
    "OMP_WAIT_POLICY": "passive",
    # glibc gives large blocks back to the kernel at once and asks for them anew, page by page: half a million faults, and
    # a fifth of the time of a segment on a CPU. So they are kept, in huge pages. Elsewhere nobody reads this.
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={1 << 32}:glibc.malloc.trim_threshold={1 << 33}:glibc.malloc.hugetlb=1",
}
"""The environment of a worker, where this process's own does not say otherwise."""

CPUINFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")


def cpu_name() -> str:
    """The processor's name as its maker gives it; `CPU` where the system does not tell (ARM)."""
    lines = _read(CPUINFO).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def for_worker(threads: int | None) -> dict[str, str]:
    """The environment of a worker that may compute with so many threads; None where the whole machine is its own."""
    return WORKER | os.environ | ({THREADS: str(threads)} if threads else {})


def has_nvidia() -> bool:
    """Whether the driver of an NVIDIA GPU shows one; torch may be unable to use it."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def lacks_for_compiling() -> tuple[str, ...]:
    """What has to be installed before torch can compile a model for a GPU; empty where all is there.

    Triton makes the kernels, and for each of them a C compiler makes the function that starts it from Python.
    """
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # as Triton has it
    headers = Path(sysconfig.get_paths(scheme)["include"])
    there = {
        "Triton (the Python package `triton`)": importlib.util.find_spec("triton"),
        "a C compiler (`gcc`)": os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"),
        "Python's headers (`python3-dev`)": (headers / "Python.h").is_file(),
    }
    return tuple(name for name, found in there.items() if not found)


def ray_token_file() -> Path:
    """Where Ray looks for this user's token, if the environment does not have it."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def version_of(package: str) -> str:
    """The installed version of a Python package; empty where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16."""
    return bool(flags(_read(CPUINFO)) & BFLOAT16)


def threads() -> int:
    """How many threads are worth starting: one a physical core (two on a core share its multipliers), within our limits.

    OMP_NUM_THREADS, by which a worker gets its share of the machine, is such a limit.
    """
    count = cores(_read(CPUINFO), os.sched_getaffinity(0))
    told = os.environ.get(THREADS, "")
    allowed = [int(told) if told.isdecimal() else None, *(quota(_read(folder / "cpu.max")) for folder in _cgroups())]
    return max(1, min([count, *(each for each in allowed if each is not None)]))


def memory() -> int:
    """Bytes of memory that the machine has, or of it what our cgroups allow."""
    allowed = [_read(folder / "memory.max").strip() for folder in _cgroups()]
    has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([has, *(int(each) for each in allowed if each.isdecimal())])


def room() -> int:
    """Bytes of memory that can be allocated before the kernel ends a process for it."""
    free = [available(_read(Path("/proc/meminfo")))]
    for folder in _cgroups():
        used, cache = _read(folder / "memory.current"), _read(folder / "memory.stat")
        free += [left(_read(folder / name), used, cache) for name in ("memory.max", "memory.high")]
    return max(0, min((each for each in free if each is not None), default=0))


def sound_bytes(wanted: int | str) -> int:
    """Bytes of memory for the sound of all songs in flight; `auto`: a quarter of `room`, 256 MiB at least, 8 GiB at most."""
    return min(max(room() // 4, 256 << 20), 8 << 30) if wanted == "auto" else int(wanted)


def flags(cpuinfo: str) -> frozenset[str]:
    """The first processor's flags."""
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def cores(cpuinfo: str, allowed: set[int]) -> int:
    """The number of physical cores of the `allowed` processors; where cores are not listed (ARM), of these processors."""
    found = set()
    for block in cpuinfo.split("\n\n"):
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        number = facts.get("processor", "")
        if number.isdecimal() and int(number) in allowed:
            found.add((facts.get("physical id", "0"), facts.get("core id", f"processor {number}")))
    return len(found) or len(allowed)


def quota(cpu_max: str) -> int | None:
    """Whole processors in a `cpu.max`; None: no limit. `150000 100000`, one and a half, is 1: a second thread would stall."""
    match cpu_max.split():
        case [limit, period] if limit.isdecimal() and period.isdecimal() and int(period):
            return int(limit) // int(period)
    return None


def available(meminfo: str) -> int | None:
    """The kernel's estimate in /proc/meminfo, in bytes."""
    line = next((line for line in meminfo.splitlines() if line.startswith("MemAvailable:")), "")
    match line.split():
        case [_, number, "kB"] if number.isdecimal():
            return int(number) * 1024
    return None


def left(limit: str, used: str, stat: str) -> int | None:
    """Bytes that a cgroup may still allocate; None: no limit. Cached files (`inactive_file`) are dropped when needed."""
    if not (limit.strip().isdecimal() and used.strip().isdecimal()):
        return None
    line = next((line for line in stat.splitlines() if line.startswith("inactive_file ")), "inactive_file 0")
    return int(limit) - int(used) + int(line.split()[1])


def _cgroups() -> Iterator[Path]:
    """The folder of our cgroup, and of each cgroup above it."""
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
