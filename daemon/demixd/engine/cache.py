"""What was made of models to run them faster on this machine, on disk, with the measurements of each way to run them.

    STATE/compiled/    0700, and so is each KEY: what lies here is run
      KEY/             its mtime is when it was last used
        runs.json      time and error of each way to run the model, on the processor or GPU and with the threads that it names

        by OpenVINO; appears complete, by one rename, or not at all:
        0.xml 0.bin    the core of the bag's first member, in float32; 1.xml ...
        cache/         OpenVINO's own: what it compiled for this processor

        by torch.compile; complete when there is runs.json:
        inductor/      torch's own: graphs and kernels that it compiled
        triton/        Triton's own: kernels for this GPU

      KEY.tries        a byte for each time that KEY/runs.json was to be made, until it is
      .KEY-1f2e3d4c/   being made, and locked by the process that makes it; unlocked: garbage

    KEY = sha256 of the model's sha256, the versions of the libraries that made it, and FORMAT; 16 hex digits

All of it can be made again; damage or loss costs time and nothing else. No torch here.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from demixd.engine.models.store import Where
from demixd.spool import nofollow
from demixd.spool.files import rename_new, sync, sync_folder, write_whole

FORMAT = 1
"""Raised whenever our conversion changes."""

OPENVINO = ("openvino", "torch", "demucs")
INDUCTOR = ("triton", "torch", "demucs")
"""The libraries that make a KEY: the first one names it."""

CACHE = "cache"
RUNS = "runs.json"
TRIES = ".tries"

KEEP_S = 30 * 86400.0
"""Conversions of former versions and models are kept for so long after their last use."""

MAX_TRIES = 3
FAILED_S = 86400.0
"""After so many tries that were interrupted, or one that failed, a model runs by torch for so long before the next."""


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """The order for a conversion: a model, the sha256 that it must have, and the path of STATE/compiled."""

    model: Where
    sha256: str
    folder: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run a model, as `accuracy.measure` found it; `error` is None where its sound was not finite."""

    runtime: str
    precision: str
    seconds: float
    """For a segment of each member."""
    error: float | None
    fault: str | None = None
    batch: int = 1


class _Runs(msgspec.Struct, frozen=True, kw_only=True):
    processor: str
    threads: int
    runs: tuple[Run, ...]


def key(sha256: str, libraries: tuple[str, ...] = OPENVINO) -> str:
    """KEY for a model's sha256, as above."""
    lines = [sha256, *(f"{name} {_version(name)}" for name in libraries), str(FORMAT)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def find(root: Path, key: str) -> Path | None:
    """The folder of a conversion, which counts as used now; None where there is none."""
    folder = root / key
    if not core(folder, 0).exists():
        return None
    use(folder)
    return folder


def use(folder: Path) -> None:
    """The folder counts as used now."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def private(folder: Path) -> Path:
    """The folder, made where it is not there, and closed to all others: what lies in it is run. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def core(folder: Path, member: int) -> Path:
    """The path of a member's saved core; `member` is its place in the bag, from 0."""
    return folder / f"{member}.xml"


@contextlib.contextmanager
def making(root: Path, key: str) -> Iterator[Path]:
    """A folder to make a conversion in, renamed to KEY at the end, unless another process has made KEY meanwhile."""
    folder = private(private(root) / f".{key}-{secrets.token_hex(4)}")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
        for path in folder.iterdir():
            with path.open("rb") as file:
                sync(file.fileno())  # a power cut must not leave a file without its bytes: nothing would notice
        with contextlib.suppress(FileExistsError):
            rename_new(folder, root / key)
            sync_folder(root)
    finally:
        nofollow.remove_tree(folder.parent, folder, follow=True)
        os.close(handle)


def discard(folder: Path) -> None:
    """Remove a conversion: by a rename first, so that it is never there in part. Raises OSError."""
    aside = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    folder.rename(aside)
    nofollow.remove_tree(aside.parent, aside, follow=True)


def tidy(root: Path, now: float) -> None:
    """Remove conversions that were not used for KEEP_S, and all that was never finished. `now` is the wall clock, in seconds."""
    for path in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(
            OSError
        ):  # another process was faster, or it cannot be removed: the next start tries again
            if path.name.startswith("."):
                if path.is_file():
                    path.unlink()
                elif not _is_held(path):
                    nofollow.remove_tree(path.parent, path, follow=True)
            elif now - path.stat().st_mtime > KEEP_S:
                path.unlink() if path.is_file() else discard(path)


def read_runs(folder: Path, *, processor: str, threads: int) -> tuple[Run, ...] | None:
    """The runs on record; None where they are of another processor or number of threads, or cannot be read."""
    try:
        record = msgspec.json.decode((folder / RUNS).read_bytes(), type=_Runs)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record.runs if (record.processor, record.threads) == (processor, threads) else None


def write_runs(folder: Path, runs: tuple[Run, ...], *, processor: str, threads: int) -> None:
    """Put the runs on record in the folder of a conversion. Raises OSError."""
    record = _Runs(processor=processor, threads=threads, runs=runs)
    write_whole(folder / RUNS, msgspec.json.encode(record) + b"\n", root=folder, durable=False, follow=True)


def count_try(root: Path, key: str, tries: int = 1) -> None:
    """Count a try before it begins, so that one which ends with this process counts too. Raises OSError."""
    with (private(root) / f"{key}{TRIES}").open("ab") as file:
        file.write(b"." * tries)


def forget_tries(root: Path, key: str) -> None:
    """Forget the tries, since the last one succeeded. Raises OSError."""
    (root / f"{key}{TRIES}").unlink(missing_ok=True)


def has_failed(root: Path, key: str, now: float) -> bool:
    """Whether it has been tried often enough for the time being. `now` is the wall clock, in seconds."""
    try:
        tries = (root / f"{key}{TRIES}").stat()
    except OSError:
        return False
    return tries.st_size >= MAX_TRIES and now - tries.st_mtime < FAILED_S


def _is_held(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
