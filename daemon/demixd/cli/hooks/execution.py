"""One run of an executable for one end.

    argument    the path of the song's sidecar, which may be a newer job's by now
    input       the end, the line of the list as it is
    DEMIXD_*    the facts that are wanted most, see `facts`

Song names, tags and messages hold what others chose: an executable has to quote them.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from demixd.client.names import name_of
from demixd.protocol.status import End
from demixd.protocol.terminal import safe
from demixd.spool.tree import Spool

LINES, LONGEST = 200, 4096
"""What is told of a run's output: so many lines, of so many bytes each."""

LONGEST_FACT = 100_000
"""Bytes of a fact; execve(2) takes 131,072."""

ENDS_S = 5.0
"""How long a run may take to end after SIGTERM."""

LOOK_S = 0.2

LEFT = 4
"""Reads after a run's end: a pipe holds 64 KiB."""


class StoppedError(Exception):
    """The run was ended since we are to stop; it is made again."""


class Limits:
    """How long a run may take, and whether it is to end at once."""

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self.seconds, self.stop = seconds, stop


def song_of(end: End) -> str | None:
    """The song's path below the inbox; None where it is none, which no daemon writes."""
    name = name_of(end)
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts or path == PurePosixPath() or "\0" in name else name


def facts(end: End, name: str, spool: Spool) -> dict[str, str]:
    """The environment of a run. Empty where there is none: the result's folder and files, the error, the tag."""
    folder = PurePosixPath(end.output.dir) if end.output else None
    is_result = folder is not None and _is_below(str(folder))
    files = [each.name for each in end.output.files if _is_below(each.name)] if end.output and is_result else []
    told = {
        "END": str(end.end),
        "JOB_ID": end.job_id,
        "STATE": end.state.value,
        "NAME": name,
        "SONG": PurePosixPath(name).stem,
        "SIDECAR": os.fspath(spool.sidecar(name)),
        "DIR": os.fspath(spool.outbox / folder) if folder is not None and is_result else "",
        "FILES": "\n".join(files),
        "ERROR": end.error.code if end.error else "",
        "MESSAGE": end.message,
        "TAG": end.tag or "",
        "MODEL": end.engine.model if end.engine else "",
    }
    return {f"DEMIXD_{key}": _fitting(value) for key, value in told.items()}


def _is_below(name: str) -> bool:
    """Whether it is a path below a folder, and on one line; no daemon gives another."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\n" not in name


def _fitting(value: str) -> str:
    """A value as an environment can hold it."""
    return os.fsdecode(os.fsencode(value.replace("\0", ""))[:LONGEST_FACT])


def run(path: Path, end: End, line: bytes, spool: Spool, limits: Limits, tell: Callable[[str], None]) -> str | None:
    """Run the executable at `path` for an end. None where all went well, else what went wrong. Raises StoppedError.

    Its output is told, a line each. What it has started and left behind goes on, unless its time is over.
    """
    name = song_of(end)
    if name is None:
        return None
    environment = os.environ | facts(end, name, spool)
    with _input(line) as stdin:
        try:
            process = subprocess.Popen(
                [path, spool.sidecar(name)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return f"it cannot be run: {error.strerror}"
    with process:
        return _awaited(process, limits, _Output(tell))


@contextlib.contextmanager
def _input(line: bytes) -> Iterator[int]:
    """A file without a name that holds the line: a pipe would fill where nobody reads it."""
    handle = os.memfd_create("end")
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(line)
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)


class _Output:
    """Tells the lines of a run's output, and how many more there were."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._rest, self._count = tell, b"", 0

    def read(self, pipe: int) -> bool:
        """Take what has come; False where there will be no more."""
        data = os.read(pipe, 1 << 16)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LONGEST]
        for line in lines:
            self._line(line)
        return bool(data)

    def end(self) -> None:
        if self._rest:
            self._line(self._rest)
        if self._count > LINES:
            self._tell(f"({self._count - LINES} more lines of output are left out)")

    def _line(self, line: bytes) -> None:
        self._count += 1
        if self._count <= LINES:
            self._tell(safe(line[:LONGEST].decode("utf-8", "replace")))


def _awaited(process: subprocess.Popen[bytes], limits: Limits, output: _Output) -> str | None:
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    over = time.monotonic() + limits.seconds
    is_open = True
    try:
        while process.poll() is None:
            if not is_open:
                time.sleep(LOOK_S)
            elif select.select([pipe], [], [], LOOK_S)[0]:
                is_open = output.read(pipe)
            if limits.stop.is_set():
                raise StoppedError
            if time.monotonic() > over:
                return f"it took longer than {limits.seconds:g} s, and was ended"
        # What it has left behind may talk for ever: only what is in the pipe by now is its own.
        for _ in range(LEFT):
            if not (is_open and select.select([pipe], [], [], 0)[0]):
                break
            is_open = output.read(pipe)
    finally:
        if process.poll() is None:
            _end(process)
        output.end()
    return _verdict(process.returncode)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the run with all that it has started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _verdict(status: int) -> str | None:
    if status == 0:
        return None
    if status > 0:
        return f"it ended with status {status}"
    return f"it was ended by {signal.Signals(-status).name}"
