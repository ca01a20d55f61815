"""Models converted for OpenVINO, on disk, and how fast each way to run a model was found to be.

    STATE/compiled/
      KEY/             appears complete, by one rename, or not at all; its mtime is when it was last used
        0.xml 0.bin    the core of the bag's first member, in float32; 1.xml ...
        cache/         OpenVINO's own: what it compiled for this processor
        refused.txt    alone in it: why this model cannot be converted, so that nobody tries again
      KEY.runs.json    seconds and error of each way, on the processor and with the threads that it names
      .KEY-1f2e3d4c/   being made, and locked by who makes it; unlocked: garbage

    KEY = sha256 of the model's sha256, the versions of openvino, torch and demucs, and FORMAT; 16 hex digits

All of it can be made again: what is damaged or missing costs time, nothing else. No torch here.
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
"""Grows when what we convert, or how, changes."""

LIBRARIES = ("openvino", "torch", "demucs")
REFUSED = "refused.txt"
CACHE = "cache"
RUNS = ".runs.json"

KEEP_S = 30 * 86400.0
"""Conversions of former versions and models are kept for so long after their last use."""


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What to convert: a model, the sha256 it must have, and STATE/compiled."""

    model: Where
    sha256: str
    folder: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run a model, as `accuracy.measure` found it; `error` is None where its sound was not finite."""

    runtime: str
    precision: str
    seconds: float
    error: float | None
    fault: str | None = None


class _Runs(msgspec.Struct, frozen=True, kw_only=True):
    processor: str
    threads: int
    runs: tuple[Run, ...]


def key(sha256: str) -> str:
    lines = [sha256, *(f"{name} {_version(name)}" for name in LIBRARIES), str(FORMAT)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def find(root: Path, key: str) -> Path | None:
    """The folder of a conversion that is there; from now on it counts as used."""
    folder = root / key
    if not core(folder, 0).exists():
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)
    return folder


def core(folder: Path, member: int) -> Path:
    """The saved core of a member, by its place in the bag."""
    return folder / f"{member}.xml"


def reason_not(root: Path, key: str) -> str | None:
    """Why there will never be such a conversion, if that is so."""
    try:
        return (root / key / REFUSED).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def refuse(root: Path, key: str, reason: str) -> None:
    with making(root, key) as folder:
        (folder / REFUSED).write_text(f"{reason}\n", encoding="utf-8")


@contextlib.contextmanager
def making(root: Path, key: str) -> Iterator[Path]:
    """A folder to make the conversion in. It gets its name at the end; if another has that by now, theirs is as good."""
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f".{key}-{secrets.token_hex(4)}"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
        for path in folder.iterdir():
            with path.open("rb") as file:
                sync(file.fileno())  # a power cut must not leave a name without its bytes: nobody would notice
        with contextlib.suppress(FileExistsError):
            rename_new(folder, root / key)
            sync_folder(root)
    finally:
        nofollow.remove_tree(folder.parent, folder, follow=True)
        os.close(handle)


def discard(folder: Path) -> None:
    """Remove a conversion; it is gone at once, whatever becomes of its bytes."""
    aside = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    folder.rename(aside)
    nofollow.remove_tree(aside.parent, aside, follow=True)


def tidy(root: Path, now: float) -> None:
    """Remove what has not been used for `KEEP_S` (`now` is the wall clock), and what was never finished."""
    for path in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):  # it went by itself, or cannot be removed: the next start tries again
            if path.name.startswith("."):
                if path.is_file():
                    path.unlink()
                elif not _is_held(path):
                    nofollow.remove_tree(path.parent, path, follow=True)
            elif now - path.stat().st_mtime > KEEP_S:
                path.unlink() if path.is_file() else discard(path)


def read_runs(root: Path, key: str, *, processor: str, threads: int) -> tuple[Run, ...] | None:
    """The runs on record; None where they are of another processor or number of threads, or cannot be read."""
    path = root / f"{key}{RUNS}"
    try:
        record = msgspec.json.decode(path.read_bytes(), type=_Runs)
        os.utime(path)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record.runs if (record.processor, record.threads) == (processor, threads) else None


def write_runs(root: Path, key: str, runs: tuple[Run, ...], *, processor: str, threads: int) -> None:
    """Raises OSError."""
    root.mkdir(parents=True, exist_ok=True)
    record = _Runs(processor=processor, threads=threads, runs=runs)
    write_whole(root / f"{key}{RUNS}", msgspec.json.encode(record) + b"\n", root=root, durable=False, follow=True)


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
