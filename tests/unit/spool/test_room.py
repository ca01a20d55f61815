"""Room on a disk: a reserve stays, what cannot fit waits, and what never could is said to be so."""

import errno
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from demixd.errors import AudioProcessingError, Code
from demixd.spool import room

MIB = 1 << 20


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk of 1,000 MiB, whose reserve is 50, and of which as much is free as a test says."""
    facts = SimpleNamespace(f_frsize=MIB, f_blocks=1000, f_bavail=1000)
    for name in ("statvfs", "fstatvfs"):
        monkeypatch.setattr(os, name, lambda _: facts)
    return facts


def code(disk: SimpleNamespace, free: int, need: int, there: int = 0) -> Code | None:
    disk.f_bavail = free
    try:
        room.require(Path("/disk"), need * MIB, there=there * MIB)
    except AudioProcessingError as error:
        return error.code
    return None


def test_what_fits_and_what_does_not(disk: SimpleNamespace) -> None:
    """The reserve is not counted, neither now nor on an empty disk; what is there already takes its part of that."""
    assert code(disk, free=150, need=100) is None
    assert code(disk, free=149, need=100) is Code.NO_SPACE
    assert code(disk, free=1000, need=950) is None
    assert code(disk, free=1000, need=951) is Code.TOO_LARGE
    assert code(disk, free=600, need=500, there=451) is Code.TOO_LARGE


@pytest.mark.parametrize("below", ["", ".demixd/job/out"])
def test_the_full_disk_is_named(disk: SimpleNamespace, tmp_path: Path, below: str) -> None:
    """By the folder that people know, not by what the daemon keeps in it, also where it is told by an open file."""
    disk.f_bavail = 54
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        for place in (folder, file.fileno()):
            with pytest.raises(AudioProcessingError, match=f"4 MB are free for it on the disk of {tmp_path};"):
                room.require(place, 14_000_000)


def test_a_large_disk_has_no_larger_reserve(disk: SimpleNamespace) -> None:
    disk.f_blocks = 1_000_000
    assert code(disk, free=256 + 100, need=100) is None
    assert code(disk, free=256 + 99, need=100) is Code.NO_SPACE


def test_a_filesystem_that_does_not_say(disk: SimpleNamespace) -> None:
    """FUSE may have neither blocks nor free ones: nothing is refused then."""
    disk.f_blocks = 0
    assert code(disk, free=0, need=10**9) is None
    room.Watch(0).wrote(10**12)


def test_a_file_that_grows(disk: SimpleNamespace) -> None:
    """It stops once the reserve is touched, and looks often enough for that."""
    watch = room.Watch(0)
    disk.f_bavail = 300
    with pytest.raises(OSError) as error:
        for _ in range(300):
            disk.f_bavail -= 1
            watch.wrote(MIB)
    assert error.value.errno == errno.ENOSPC and error.value.filename
    assert 0 < disk.f_bavail < 50
