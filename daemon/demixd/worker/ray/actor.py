"""The far end: an actor, on a machine of the cluster. It has a worker in a process of its own, and hands on what both sides say.

    driver --Ray--> order(line) --pipe--> worker
           <--Ray-- hear()      <--pipe--

A song and its stems lie in a folder that both machines see, or they are sent in pieces, and lie in one of the actor's own.
All methods are coroutines: one that waits holds up no other. What comes from here is of plain types, for the other side may
be another version of this program.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from demixd import config
from demixd.engine import host
from demixd.errors import ConfigError
from demixd.spool import child_process, nofollow, private, processes
from demixd.spool.files import open_own
from demixd.version import __version__
from demixd.worker.messages import LONGEST
from demixd.worker.ray.scratch import Scratch

PROGRAM = child_process.python("demixd.worker")

LISTEN_S = 5.0
"""How long `hear` waits for a line before it comes back without one."""

LINES = 100
"""Lines that wait to be heard. After that the worker waits, for its pipe is full."""

PREFIX = "demixd-actor-"


class Actor:
    """A worker's machine."""

    def __init__(self, threads: int | None) -> None:
        """`threads`: how many the worker may compute with; None for all of the machine's."""
        self._threads = threads
        self._worker: asyncio.subprocess.Process | None = None
        self._said: asyncio.Queue[bytes] = asyncio.Queue(LINES)
        self._own: Scratch | None = None
        self._asking: asyncio.Task[bool] | None = None
        """Whether a folder is seen here."""

    async def hello(self, place: str) -> dict[str, Any]:
        """What the other side, which is at `place`, has to know of this one, before the first order. Where it is the same, all
        paths are, and nothing is asked of this machine's configuration."""
        is_here = place == processes.place()
        facts: dict[str, Any] = {
            "version": __version__,
            "host": socket.gethostname(),
            "is_here": is_here,
            "error": "",
        }
        try:
            settings = None if is_here else config.load()
            work = settings.paths.work if settings else ""
            self._own = Scratch(Path(work or tempfile.gettempdir()), PREFIX)
        except (ConfigError, OSError) as error:
            return facts | {"error": str(error)}
        facts |= {"folder": str(self._own.path)}
        if settings is None:
            return facts
        return facts | {"models": str(settings.models), "repo": settings.model.repo or None} | _caches(settings)

    async def order(self, line: bytes) -> None:
        """Hand a line to the worker, which is started with the first one. What one has to hear that has ended is lost."""
        if self._worker is None:
            await self._start()
        assert self._worker is not None and self._worker.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._worker.stdin.write(line)
            await self._worker.stdin.drain()

    async def hear(self) -> tuple[list[bytes], str]:
        """The lines that the worker has said since, none after LISTEN_S; and how it has ended, empty while it has not."""
        lines = []
        with contextlib.suppress(TimeoutError):
            lines.append(await asyncio.wait_for(self._said.get(), LISTEN_S))
        while not self._said.empty():
            lines.append(self._said.get_nowait())
        if lines and not lines[-1]:
            return lines[:-1], await self._ended()
        return lines, ""

    async def sees(self, folder: str, nonce: str) -> bool:
        """Whether the folder that the other side has put `nonce` into is seen here, and can be written to.

        A share that hangs holds one thread, and is not asked again while it does.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(asyncio.to_thread(_answer, Path(folder), nonce))
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(self._asking), LISTEN_S)
        return False

    async def open(self, attempt: str) -> None:
        """Make a folder for an attempt at a song that comes in pieces. Raises OSError."""
        await asyncio.to_thread(private.make, self._mine, self._mine / attempt, ("out", "tmp"))

    async def store(self, attempt: str, at: int, piece: bytes) -> None:
        """Write a piece of the song of an attempt, from the byte `at` on. Raises OSError."""
        await asyncio.to_thread(_write, self._mine / attempt / "tmp" / "song", at, piece)

    async def fetch(self, attempt: str, name: str, at: int, count: int) -> bytes:
        """At most `count` bytes of a stem of an attempt, from the byte `at` on. Raises OSError."""
        return await asyncio.to_thread(_read, self._mine / attempt / "out", name, at, count)

    async def close(self, attempt: str) -> None:
        """Remove what an attempt has left."""
        await asyncio.to_thread(shutil.rmtree, self._mine / attempt, ignore_errors=True)

    async def leave(self) -> None:
        """Remove all that the actor has on this machine's disk; it is ended after that."""
        if self._worker is not None and self._worker.returncode is None:
            self._worker.kill()
            await self._worker.wait()
        if self._own is not None:
            await asyncio.to_thread(self._own.remove)

    @property
    def _mine(self) -> Path:
        assert self._own is not None, "hello comes first"
        return self._own.path

    async def _start(self) -> None:
        environment = host.for_worker(self._threads)
        if self._threads is None:
            environment.pop(host.THREADS, None)  # Ray has said 1, for actors that say nothing
        pipe = asyncio.subprocess.PIPE
        self._worker = await asyncio.create_subprocess_exec(
            *PROGRAM, stdin=pipe, stdout=pipe, env=environment, limit=LONGEST
        )
        self._listening = asyncio.create_task(self._listen(self._worker))

    async def _listen(self, worker: asyncio.subprocess.Process) -> None:
        """Keep what the worker says, line by line; an empty line is its end."""
        assert worker.stdout is not None
        try:
            while (line := await worker.stdout.readline()).endswith(b"\n"):
                await self._said.put(line)
        except ValueError:  # a line without an end is no message
            worker.kill()
        await self._said.put(b"")

    async def _ended(self) -> str:
        assert self._worker is not None
        try:
            code = await asyncio.wait_for(self._worker.wait(), LISTEN_S)
        except TimeoutError:
            self._worker.kill()
            return "it closed its line and did not end"
        return f"killed by signal {-code}" if code < 0 else f"it ended with status {code}"


def _caches(settings: config.Config) -> dict[str, str | None]:
    """The folders of recorded hashes and converted models, where this user may write to them."""
    can_write = os.access(settings.state, os.W_OK)
    return {
        "recorded": str(settings.recorded) if can_write else None,
        "compiled": str(settings.compiled) if can_write else None,
    }


def _answer(folder: Path, nonce: str) -> bool:
    """Write `nonce` backwards beside it, which shows that this is the same folder, and not another one of its path."""
    try:
        with open_own(folder / "nonce", "rb") as file:
            if file.read(len(nonce) + 1) != nonce.encode():
                return False
        with open_own(folder / "seen", "x+b") as file:
            file.write(nonce[::-1].encode())
    except OSError:
        return False
    return True


def _write(path: Path, at: int, piece: bytes) -> None:
    with open_own(path, "r+b" if at else "x+b") as file:
        file.seek(at)
        file.write(piece)


def _read(out: Path, name: str, at: int, count: int) -> bytes:
    with os.fdopen(nofollow.read_file(out, out / name), "rb") as file:
        file.seek(at)
        return file.read(count)
