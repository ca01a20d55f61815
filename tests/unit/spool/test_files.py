"""Files of the spool, without a daemon."""

import hashlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demixd.errors import StopProcessingError
from demixd.spool.files import CHUNK, append_line, born_ns, sha256_of, write_pieces


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


def test_a_line_is_appended(tmp_path: Path) -> None:
    """Each line follows the one before; half a line that a power cut left becomes one of its own."""
    path = tmp_path / "status" / "list"
    (tmp_path / "status").mkdir()
    append_line(path, b"one\n", root=tmp_path)
    append_line(path, b"two\n", root=tmp_path)
    with path.open("ab") as file:
        file.write(b"thr")
    append_line(path, b"four\n", root=tmp_path)
    assert path.read_bytes() == b"one\ntwo\nthr\nfour\n"


def test_no_file_of_others_is_appended_to(tmp_path: Path) -> None:
    """A link, another name of a file, and a pipe in the place of a list give way to a new one; a folder is an error."""
    victim, path = tmp_path / "victim", tmp_path / "list"
    victim.write_bytes(b"precious")
    for put in (path.symlink_to, path.hardlink_to):
        put(victim)
        append_line(path, b"one\n", root=tmp_path)
        assert (victim.read_bytes(), path.read_bytes()) == (b"precious", b"one\n")
        assert not path.is_symlink()
        path.unlink()
    os.mkfifo(path)
    append_line(path, b"one\n", root=tmp_path)
    assert path.read_bytes() == b"one\n"
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        append_line(path, b"one\n", root=tmp_path)


def test_a_line_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Where the disk takes only a part of a line, the list is what it was."""
    path = tmp_path / "list"
    append_line(path, b"one\n", root=tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_line(path, b"x" * 2000 + b"\n", root=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"one\n"


def test_pieces_that_break_off(tmp_path: Path) -> None:
    """Content that comes in pieces replaces the old one whole; where they break off, that stays, and nothing lies about."""
    path = tmp_path / "list"
    write_pieces(path, (b"one\n", b"two\n"), root=tmp_path)

    def pieces() -> Iterator[bytes]:
        yield b"three\n"
        raise StopProcessingError

    with pytest.raises(StopProcessingError):
        write_pieces(path, pieces(), root=tmp_path)
    assert path.read_bytes() == b"one\ntwo\n"
    assert [each.name for each in tmp_path.iterdir()] == ["list"]
