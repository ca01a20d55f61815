"""Mounts that tests make and take away; what they need of the machine is asked for once."""

import contextlib
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Mount:
    """Something that can be mounted on `at`, and taken away again, as often as a test likes."""

    def __init__(self, at: Path, *words: str) -> None:
        self.at, self._words, self.is_on = at, words, False
        at.mkdir(parents=True, exist_ok=True)

    def on(self) -> "Mount":
        subprocess.run(["mount", *self._words, str(self.at)], check=True, capture_output=True)
        self.is_on = True
        return self

    def off(self) -> None:
        """Take it away, also where it is in use: lazily, as a share goes whose server is gone."""
        subprocess.run(["umount", "--lazy", str(self.at)], check=True, capture_output=True)
        self.is_on = False

    def change(self, options: str) -> None:
        """Mount it with other options."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.at)], check=True, capture_output=True)


@contextlib.contextmanager
def mounts(*each: Mount) -> Iterator[None]:
    """Mounted, and gone afterwards whatever happens."""
    try:
        for mount in each:
            mount.on()
        yield
    finally:
        for mount in reversed(each):
            if mount.is_on:
                mount.off()


def tmpfs(at: Path, size: int) -> Mount:
    return Mount(at, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


def bind(source: Path, at: Path) -> Mount:
    """The folder `source`, seen at `at`: taken away and mounted again it is the same folder."""
    source.mkdir(parents=True, exist_ok=True)
    return Mount(at, "--bind", str(source))


def disk(image: Path, at: Path, megabytes: int, options: str = "") -> Mount:
    """An ext4 disk of its own, in a file, mounted with `options`."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
    return disk_of(image, at, options)


def disk_of(image: Path, at: Path, options: str = "") -> Mount:
    """A disk that is in a file already."""
    return Mount(at, "-o", f"loop,{options}".rstrip(","), str(image))


@functools.cache
def may_mount() -> bool:
    """Whether this process may: root in a container often may not."""
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not may_mount(), reason="needs the right to mount: run tests/run as root")
