"""Real programs that bring songs, as writers in the sense of writers.py.

Most read their song from a pipe, so that they pause when a test lets them, with the song open; the others are stopped and
let go on, and are so slow that it hits them on their way.
"""

import contextlib
import os
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from daemons import PATIENCE_S
from writers import OPEN, TRUNCATED, Parts, Writer, length

Words = Callable[[Path], list[str]]
"""The command that writes the song to a path."""


@contextlib.contextmanager
def started(words: list[str], stdin: int = subprocess.DEVNULL) -> Iterator["subprocess.Popen[bytes]"]:
    """A program in a group of its own, with which its children can be stopped; nothing of it is left."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdin=stdin, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def ended_well(process: "subprocess.Popen[bytes]") -> None:
    assert process.wait(timeout=PATIENCE_S) == 0, process.args


def fed(words: Words) -> Writer:
    """A program that copies its standard input, where the song comes piece by piece."""

    def write(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        with started(words(path), subprocess.PIPE) as process:
            assert process.stdin is not None
            for part in parts:
                process.stdin.write(part)
                process.stdin.flush()
                yield (OPEN,)
            process.stdin.close()
            ended_well(process)

    return write


def fed_and_killed(words: Words) -> Writer:
    """The same, killed before the last part comes: the song stays a part of itself."""

    def write(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        before = length(parts[:-1])
        with started(words(path), subprocess.PIPE) as process:
            assert process.stdin is not None
            for part in parts[:-1]:
                process.stdin.write(part)
                process.stdin.flush()
                yield (OPEN,)
            # What it has read it has written, too, once the file has blocks up to there.
            limit = time.monotonic() + PATIENCE_S
            while not path.exists() or path.stat().st_size < before:
                assert time.monotonic() < limit, f"{path} is not written"
                time.sleep(0.02)
            process.kill()

    return write


def unpacked(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """tar(1) from a pipe: it sets the time of modification that the archive tells, years ago, when it is done."""
    entry = tarfile.TarInfo(path.name)
    entry.size, entry.mtime = length(parts), 1_000_000_000
    end = bytes(-entry.size % tarfile.BLOCKSIZE + tarfile.RECORDSIZE)
    yield from fed(lambda _: ["tar", "-x", "-b1", "-C", str(path.parent)])(path, [entry.tobuf(), *parts, end])


@contextlib.contextmanager
def aside(path: Path, parts: Parts) -> Iterator[Path]:
    """The song as it lies elsewhere on the same filesystem, before it is brought."""
    with tempfile.TemporaryDirectory(dir=path.parents[2], prefix="aside-") as folder:
        source = Path(folder, path.name)
        source.write_bytes(b"".join(parts))
        yield source


def brought(*words: str) -> Writer:
    """A program that is given the song's first place and its last."""

    def write(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        with aside(path, parts) as source, started([*words, str(source), str(path)]) as process:
            yield ()
            ended_well(process)

    return write


def is_whole(source: Path, path: Path) -> bool:
    return path.exists() and path.stat().st_size >= source.stat().st_size


def stopped_now_and_then(words: Callable[[Path, Path], list[str]]) -> Writer:
    """A program that is stopped on its way, with its children, as often as the song has parts.

    Not once the song is whole: scp -p sets the time of a file that it has closed, and held up in between that is another drop.
    """

    def write(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        with aside(path, parts) as source, started(words(source, path)) as process:
            for _ in parts:
                if process.poll() is None and not is_whole(source, path):
                    os.killpg(process.pid, signal.SIGSTOP)
                    time.sleep(0.02)  # all of them have stopped by then, and one may have written the rest before
                    if not is_whole(source, path):
                        yield (OPEN,)
                    os.killpg(process.pid, signal.SIGCONT)
                yield (OPEN,)
            ended_well(process)

    return write


SLOW_KB = 40
"""How many KB a second the slow ones bring: a song takes a second or two."""


def rsync(*how: str) -> Writer:
    """`TEMP` among the words is a folder beside the inbox."""

    def words(source: Path, path: Path) -> list[str]:
        told = [word.replace("TEMP", str(source.parent)) for word in how]
        return ["rsync", "--times", f"--bwlimit={SLOW_KB}", *told, str(source), str(path)]

    return stopped_now_and_then(words)


def rsync_killed(first: str, then: str, *, is_resumed: bool = True) -> Writer:
    """rsync is interrupted half-way, which leaves a part under the final name, and another one may bring the rest.

    It sends 32 KB at a time, and the song must have some of them.
    """

    def write(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
        half_s = length(parts) / 1024 / SLOW_KB / 2
        with aside(path, parts) as source:
            slowly = ["rsync", "--times", f"--bwlimit={SLOW_KB}", first, str(source), str(path)]
            with started(slowly) as process:
                limit = time.monotonic() + PATIENCE_S
                while not list(path.parent.glob(f"*{path.name}*")):
                    assert time.monotonic() < limit, f"{path} is not begun"
                    time.sleep(0.02)
                time.sleep(half_s)
                process.send_signal(signal.SIGINT)
                process.wait(timeout=PATIENCE_S)
            yield (TRUNCATED,)
            if is_resumed:
                with started(["rsync", "--times", then, str(source), str(path)]) as process:
                    ended_well(process)

    return write


INSTEAD_OF_SSH = '#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n'
"""scp(1) tells it, last of all, what it is to run at the other end: here."""


def secure_copy(path: Path, parts: Parts) -> Iterator[tuple[str, ...]]:
    """scp at both ends, with no network between them: it writes under the final name."""
    with tempfile.TemporaryDirectory() as folder:
        shell = Path(folder, "ssh")
        shell.write_text(INSTEAD_OF_SSH)
        shell.chmod(0o755)
        # Its own quoting: the other end's shell takes the name apart otherwise.
        to = f"there:'{path}'"
        kilobits = str(SLOW_KB * 8)
        yield from stopped_now_and_then(
            lambda source, _: ["scp", "-O", "-p", "-S", str(shell), "-l", kilobits, str(source), to]
        )(path, parts)


FED: dict[str, Writer] = {
    "cp": fed(lambda path: ["cp", "/dev/stdin", str(path)]),
    "cp -p": fed(lambda path: ["cp", "-p", "/dev/stdin", str(path)]),
    "dd": fed(lambda path: ["dd", "bs=4k", f"of={path}"]),
    "tee": fed(lambda path: ["tee", str(path)]),
    "tar": unpacked,
}
"""They hold the song open for as long as it comes."""

BROUGHT: dict[str, Writer] = {"mv": brought("mv"), "ln": brought("ln"), "install": brought("install", "-m", "644")}

RSYNC: dict[str, Writer] = {
    "rsync": rsync(),
    "rsync --partial": rsync("--partial"),
    "rsync --inplace": rsync("--inplace"),
    "rsync --temp-dir": rsync("--temp-dir=TEMP"),
    "rsync --delay-updates": rsync("--delay-updates"),
}

RESUMED: dict[str, Writer] = {
    "rsync --partial, killed": rsync_killed("--partial", "--partial"),
    "rsync --inplace, killed": rsync_killed("--inplace", "--append-verify"),
}
"""A part of the song lies there, closed, until the rest comes."""
