"""Files of the spool, without a daemon."""

import hashlib
from pathlib import Path

import pytest

from demixd.spool.files import CHUNK, sha256_of


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
