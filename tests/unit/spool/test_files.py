"""Files of the spool, without a daemon."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from demixd.spool.files import CHUNK, born_ns, sha256_of


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 1])
def test_a_file_is_hashed_whole(tmp_path: Path, size: int) -> None:
    """The hash is that of all bytes from the file's position on, however many chunks they are."""
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(b"head" + data[:size])
    with (tmp_path / "file").open("rb") as file:
        file.seek(4)
        assert sha256_of(file) == hashlib.sha256(data[:size]).hexdigest()


def test_hashing_can_be_stopped(tmp_path: Path) -> None:
    """It is asked between chunks, and reads no further than the one in hand."""
    (tmp_path / "file").write_bytes(bytes(4 * CHUNK))
    answers = iter([False, True])
    with (tmp_path / "file").open("rb") as file:
        assert sha256_of(file, lambda: next(answers)) == hashlib.sha256(bytes(CHUNK)).hexdigest()
        assert file.tell() == 2 * CHUNK


def test_the_birth_of_a_file(tmp_path: Path) -> None:
    """It lies between the times before and after the file was made, and neither a change nor a rename moves it."""
    path = tmp_path / "file"
    before = time.time_ns() - 50_000_000  # the kernel's own clock for files lags by a tick
    path.touch()
    after = time.time_ns()
    born = born_ns(tmp_path, path)
    if born is None:
        pytest.skip("this filesystem keeps no birth time; TMPDIR on ext4, xfs, btrfs or tmpfs helps")
    assert before <= born <= after
    os.utime(path, (1, 1))
    path.write_text("more")
    path.rename(tmp_path / "other")
    assert born_ns(tmp_path, tmp_path / "other") == born
    assert born_ns(tmp_path, path) is None
