"""Writers, in the sense of writers.py, that close their file in every pause: what lies beside it, or a name of its
own, says that it is not whole; or they never pause for long, or leave a part of it there for good.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from writers import COMPANION, EMPTY, OPEN, TRUNCATED, Parts, Writer, length


def append(path: Path, part: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(part)


def under(template: str) -> Writer:
    """Under another name until it is whole, as Chrome, Syncthing and careful people do it."""

    def write(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        other = path.with_name(template.format(path.name))
        for part in parts:
            append(other, part)
            yield ()
        os.utime(other, (1_500_000_000,) * 2)
        other.rename(path)

    return write


def placeholder(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """Firefox holds the final name by an empty file, writes NAME.part, and renames that over it."""
    path.touch()
    yield (EMPTY,)
    part = path.with_name(f"{path.name}.part")
    for each in parts:
        append(part, each)
        yield (EMPTY, COMPANION)
    part.rename(path)


def in_pieces(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """aria2 allocates the file, writes its pieces in any order, and keeps NAME.aria2 until all of them are there."""
    control = path.with_name(f"{path.name}.aria2")
    control.touch()
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, length(parts))
    yield (COMPANION,)
    starts = [length(parts[:number]) for number in range(len(parts))]
    for start, part in sorted(zip(starts, parts, strict=True), key=lambda piece: hashlib.sha256(piece[1]).digest()):
        with path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), part, start)
        yield (COMPANION,)
    control.unlink()


def again_and_again(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """Opened, added to and closed, part by part: nothing tells that it is not whole but that it does not stop for long."""
    for part in parts[:-1]:
        append(path, part)
        yield ("changing",)
    append(path, parts[-1])


def overwritten(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """Saved again from its beginning, each time with a part more."""
    for number in range(1, len(parts)):
        path.write_bytes(b"".join(parts[:number]))
        yield ("changing",)
    path.write_bytes(b"".join(parts))


def replaced(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """Replaced by another file each time, with a part more."""
    other = path.with_name(f".{path.name}.part")
    for number in range(1, len(parts)):
        other.write_bytes(b"".join(parts[:number]))
        other.rename(path)
        yield ("changing",)
    other.write_bytes(b"".join(parts))
    other.rename(path)


def promised(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """The song says its hash before it comes; then it may close for as long as it likes."""
    options, part = path.with_name(f"{path.name}.job.json"), path.with_name(f".{path.name}.options.part")
    part.write_text(json.dumps({"wait_for_sha256": hashlib.sha256(b"".join(parts)).hexdigest()}))
    part.rename(options)
    yield ()
    yield from again_and_again(path, parts)


def resumed(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """A copy that was interrupted, and is taken up where it was."""
    append(path, b"".join(parts[:-1]))
    yield (TRUNCATED,)
    append(path, parts[-1])


DOWNLOADS: dict[str, Writer] = {
    "dot-renamed slowly": under(".{}.part"),
    "Chrome": under("{}.crdownload"),
    "Syncthing": under(".syncthing.{}.tmp"),
    "aria2": in_pieces,
    "promised": promised,
}
"""Whatever the pause, it can be told that they are not whole."""

PLACEHOLDER: dict[str, Writer] = {"Firefox": placeholder}
"""Another file has the name until they are whole."""

REPLACED: dict[str, Writer] = {"replaced": replaced}
"""So it is with them, and they never pause for as long as a file needs to settle."""

HASTY: dict[str, Writer] = {"appended": again_and_again, "overwritten": overwritten}
"""They never pause for as long as a file needs to settle."""


def given_up(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """A copy of which the last part never comes."""
    append(path, b"".join(parts[:-1]))
    yield (TRUNCATED,)


def presized_and_given_up(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """It had its full size from the beginning; its last part is a hole."""
    with path.open("wb", buffering=0) as file:
        os.ftruncate(file.fileno(), length(parts))
        for part in parts[:-1]:
            file.write(part)
            yield (OPEN,)


def allocated_and_given_up(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """The same, with its blocks allocated."""
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, length(parts))
        for part in parts[:-1]:
            file.write(part)
            yield (OPEN,)


GIVEN_UP: dict[str, Writer] = {
    "given up": given_up,
    "pre-sized, given up": presized_and_given_up,
    "allocated, given up": allocated_and_given_up,
}
"""Their last part never comes, and nothing beside them says so."""


def left_beside(writer: Writer, pauses: int) -> Writer:
    """A download that stops for good after some pauses, with all that lies there then."""

    def write(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        steps = writer(path, parts)
        for _ in range(pauses):
            yield next(steps)

    return write


LEFT: dict[str, Writer] = {
    "Firefox, given up": left_beside(placeholder, 2),
    "aria2, given up": left_beside(in_pieces, 2),
}
"""What lies beside them says for ever that they are not whole: they wait for ever."""
