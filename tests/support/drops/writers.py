"""Ways in which a song can be written into an inbox, each as a program does it, as two tables.

`KEEPING` are writers that pause: whatever the pause, the song can be told to be unfinished. `AT_ONCE` are those that do not.
Most songs here are WAVs whose header does not know their length, as programs write them that cannot go back: any part
of one would pass for a song, so that only readiness (1.1 of the protocol) can tell what is whole.
"""

import ctypes
import io
import mmap
import os
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import soundfile

from audio import tones

OPEN, EMPTY, COMPANION, TRUNCATED = "open-for-writing", "empty", "companion-file", "truncated"

Parts = Sequence[bytes]

Writer = Callable[[Path, Parts], Iterator[tuple[str, ...]]]
"""Writes the parts to the path. Wherever it pauses it yields the reasons for which the song may wait then."""


def song(name: str, *, frames: int = 30_000, form: str = "WAV", knows_its_length: bool = False) -> bytes:
    """A song like no other here; as a rule one whose header does not know its length."""
    file = io.BytesIO()
    soundfile.write(file, tones(frames, seed=zlib.crc32(name.encode())), 44100, format=form, subtype="PCM_16")
    data = file.getvalue()
    if knows_its_length:
        return data
    at = data.index(b"data") + 4
    return data[:4] + b"\xff" * 4 + data[8:at] + b"\xff" * 4 + data[at + 4 :]


def frames_in(data: bytes) -> int:
    """What `song` was asked for."""
    if data[:4] == b"fLaC":
        return int(soundfile.info(io.BytesIO(data)).frames)
    return (len(data) - data.index(b"data") - 8) // 4


def in_parts(data: bytes) -> list[bytes]:
    """The bytes in three parts; the last one is a single byte."""
    half = len(data) // 2
    return [data[:half], data[half:-1], data[-1:]]


def length(parts: Parts) -> int:
    return sum(map(len, parts))


def held_open(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """The descriptor stays open through every pause, as a recorder's does."""
    with path.open("wb", buffering=0) as file:
        for part in parts:
            file.write(part)
            yield (OPEN,)


def presized(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """The file has its full size before its first byte is written, as SMB clients do it."""
    with path.open("wb", buffering=0) as file:
        os.ftruncate(file.fileno(), length(parts))
        yield (OPEN,)
        for part in parts:
            file.write(part)
            yield (OPEN,)


def preallocated(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """Full size without a hole, as torrent clients do it."""
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, length(parts))
        yield (OPEN,)
        for part in parts:
            file.write(part)
            yield (OPEN,)


def backwards(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """The end is written first, and the header last."""
    with path.open("wb", buffering=0) as file:
        at = length(parts)
        for part in reversed(parts):
            at -= len(part)
            os.pwrite(file.fileno(), part, at)
            yield (OPEN,)


def mapped(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """Written through memory; no descriptor is open. (Python's own mmap would keep one.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(handle, length(parts))
    size, access = ctypes.c_size_t(length(parts)), mmap.PROT_READ | mmap.PROT_WRITE
    memory = libc.mmap(None, size, access, mmap.MAP_SHARED, handle, ctypes.c_long(0))
    os.close(handle)
    at = memory
    for part in parts:
        ctypes.memmove(at, part, len(part))
        at += len(part)
        yield (OPEN,)
    assert libc.munmap(memory, length(parts)) == 0


def linked_while_open(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """Another name of a file that somebody is still writing under its first one."""
    first = path.parents[2] / f"first name of {path.name}"
    with first.open("wb", buffering=0) as file:
        for number, part in enumerate(parts):
            file.write(part)
            if number == 0:
                path.hardlink_to(first)
            yield (OPEN,)


def unnamed(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """O_TMPFILE, and a name before the end."""
    handle = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o644)
    try:
        for number, part in enumerate(parts):
            os.write(handle, part)
            if number == 1:
                name_it(handle, path)
            if number >= 1:
                yield (OPEN,)
    finally:
        os.close(handle)


def empty_first(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """`touch`, and the content later."""
    path.touch()
    yield (EMPTY,)
    path.write_bytes(b"".join(parts))


def companion(suffix: str) -> Writer:
    def write(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        """Complete by its looks, and said not to be by the file beside it."""
        beside = path.with_name(path.name + suffix)
        beside.write_text("where the rest is")
        path.write_bytes(b"".join(parts))
        yield (COMPANION,)
        beside.unlink()

    return write


KEEPING = {
    "held open": held_open,
    "pre-sized": presized,
    "preallocated": preallocated,
    "backwards": backwards,
    "mapped": mapped,
    "linked while open": linked_while_open,
    "unnamed": unnamed,
    "empty first": empty_first,
    **{f"beside {suffix}": companion(suffix) for suffix in (".part", ".crdownload", ".aria2", ".!qB")},
}


def name_it(handle: int, path: Path) -> None:
    """linkat(2) of an unnamed file. Only with a folder given does Python ask to follow the link in /proc."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def renamed(path: Path, whole: bytes) -> None:
    aside = path.parents[2] / path.name
    aside.write_bytes(whole)
    aside.rename(path)


def dot_renamed(path: Path, whole: bytes) -> None:
    """The best way to drop."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(whole)
    part.rename(path)


def linked(path: Path, whole: bytes) -> None:
    aside = path.parents[2] / f"kept {path.name}"
    aside.write_bytes(whole)
    path.hardlink_to(aside)


def unnamed_until_whole(path: Path, whole: bytes) -> None:
    handle = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o644)
    os.write(handle, whole)
    name_it(handle, path)
    os.close(handle)


def from_another_filesystem(path: Path, whole: bytes) -> None:
    """mv(1) copies then, under the final name."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == path.parent.stat().st_dev:
        pytest.skip("needs a second filesystem at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as other:
        Path(other, path.name).write_bytes(whole)
        subprocess.run(["mv", f"{other}/{path.name}", path.parent], check=True)


def from_1970(path: Path, whole: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(whole)
    os.utime(part, ns=(0, 0))
    part.rename(path)


def from_the_future(path: Path, whole: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(whole)
    os.utime(part, (time.time() + 3e8,) * 2)
    part.rename(path)


def read_only(path: Path, whole: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(whole)
    part.chmod(0o444)
    part.rename(path)


AT_ONCE = {
    "copied": Path.write_bytes,
    "renamed": renamed,
    "dot-renamed": dot_renamed,
    "linked": linked,
    "unnamed until whole": unnamed_until_whole,
    "from another filesystem": from_another_filesystem,
    "from 1970": from_1970,
    "from the future": from_the_future,
    "read-only": read_only,
}
