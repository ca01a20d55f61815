"""The list of ends as other programs read it, while it grows and others write there too."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demixd.client.ends import EndReader, last_end
from demixd.protocol.job import State
from demixd.spool.files import append_line
from demixd.spool.tree import DAEMON, ENDS, Spool
from end_lines import START, beat, line, spool_in_its_third_start


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return spool_in_its_third_start(tmp_path)


@pytest.fixture
def add(spool: Spool) -> Callable[[bytes], None]:
    return lambda data: append_line(spool.status / ENDS, data, root=spool.status)


@pytest.fixture
def reader(spool: Spool) -> Iterator[EndReader]:
    reader = EndReader(spool, 0)
    yield reader
    reader.close()


def read(reader: EndReader) -> list[int]:
    return [end.end - START for end, _ in reader.read()]


def test_each_end_once(reader: EndReader, add: Callable[[bytes], None]) -> None:
    """An end that was told again after a crash is read once; what comes later is read then."""
    assert read(reader) == []
    for number in (1, 2, 2, 1, 5):
        add(line(number))
    assert read(reader) == [1, 2, 5]
    add(line(6))
    assert read(reader) == [6]
    assert read(reader) == []


def test_a_line_is_what_was_written(reader: EndReader, add: Callable[[bytes], None]) -> None:
    """The line comes as it is, and the end has the facts of the sidecar."""
    add(line(7, "album/Söng.flac", State.FAILED))
    ((end, raw),) = reader.read()
    assert raw == line(7, "album/Söng.flac", State.FAILED)
    assert (end.state, end.input.name, end.seq) == (State.FAILED, "album/Söng.flac", end.end)


def test_what_is_none_of_the_daemons(reader: EndReader, spool: Spool, add: Callable[[bytes], None]) -> None:
    """Junk, other documents, states that are no end, and numbers that no daemon has reached hide no true line."""
    add(line(1))
    for data in (b"junk\n", b'{"end": 5}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"x" * (3 << 20) + b"\n"):
        add(data)
    add(line(2, state=State.RUNNING))
    add(line(3))
    assert read(reader) == [1, 3]
    assert last_end(spool) == START + 3


@pytest.mark.parametrize("number", [1001, (1 << 32) - 1, 1 << 32, (1 << 53) - START])
def test_a_number_that_no_daemon_has_reached(
    reader: EndReader, spool: Spool, add: Callable[[bytes], None], number: int
) -> None:
    """A line may be younger than the heartbeat; one that is above the next as well is forged, and hides nothing after it."""
    add(line(1))
    add(line(number))
    add(line(2))
    assert read(reader) == [1]
    assert read(reader) == [], "there is no other heartbeat yet"
    beat(spool, 1002)
    assert read(reader) == ([1001] if number == 1001 else [2])
    add(line(1005))
    assert read(reader) == []
    beat(spool, 1006)
    assert read(reader) == [1005]


@pytest.mark.parametrize("last", [START + 5000, START + (5 << 32), 1 << 60])
def test_a_place_that_no_daemon_has_reached(spool: Spool, add: Callable[[bytes], None], last: int) -> None:
    """Whoever was led there, or whose daemon has lost all that it knew, goes on with what was told since the daemon's start."""
    add(line(-5))
    add(line(1))
    reader = EndReader(spool, last)
    assert read(reader) == [], "the heartbeat may be an old one"
    beat(spool, 1001)
    assert read(reader) == [1]
    add(line(2))
    assert read(reader) == [2]
    reader.close()


def test_half_a_line(reader: EndReader, spool: Spool, add: Callable[[bytes], None]) -> None:
    """A line that is being written is read once it is whole; one that a power cut broke off is passed over."""
    add(line(1))
    with (spool.status / ENDS).open("ab") as file:
        file.write(line(2)[:100])
    assert read(reader) == [1]
    with (spool.status / ENDS).open("ab") as file:
        file.write(line(2)[100:])
    assert read(reader) == [2]
    with (spool.status / ENDS).open("ab") as file:
        file.write(line(3)[:50])
    add(line(4))
    assert read(reader) == [4]


def test_the_list_is_replaced(reader: EndReader, spool: Spool, add: Callable[[bytes], None]) -> None:
    """Old lines are cut off, the list is truncated, taken away, or a pipe is in its place: nothing twice, nothing lost."""
    path = spool.status / ENDS
    for number in (1, 2, 3):
        add(line(number))
    assert read(reader) == [1, 2, 3]
    add(line(4))
    path.with_name("new").write_bytes(line(3) + line(4) + line(5))
    path.with_name("new").replace(path)
    assert read(reader) == [4, 5]
    path.write_bytes(b"")
    add(line(6))
    assert read(reader) == [6]
    path.unlink()
    assert read(reader) == []
    os.mkfifo(path)
    assert read(reader) == []
    add(line(7))
    assert read(reader) == [7]


def test_a_place_in_the_list(spool: Spool, add: Callable[[bytes], None]) -> None:
    """Who has read as far as an end reads what came after it; nothing is there before the daemon's first start."""
    assert last_end(spool) == 0
    for number in (1, 2, 3):
        add(line(number))
    reader = EndReader(spool, START + 1)
    assert read(reader) == [2, 3]
    reader.close()
    (spool.status / DAEMON).unlink()
    assert last_end(spool) == 0


def test_what_lies_in_the_place_of_the_list(reader: EndReader, spool: Spool, add: Callable[[bytes], None]) -> None:
    """A link, a folder and a socket there are no list, and leave nothing open."""
    path = spool.status / ENDS
    before = len(list(Path("/proc/self/fd").iterdir()))
    path.symlink_to("/etc/hostname")
    assert read(reader) == []
    path.unlink()
    path.mkdir()
    assert read(reader) == []
    path.rmdir()
    with socket.socket(socket.AF_UNIX) as line_of_others:
        line_of_others.bind(str(path))
        assert read(reader) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    path.unlink()
    add(line(1))
    assert read(reader) == [1]
