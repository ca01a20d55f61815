"""How a song gets to an actor, and its stems come back: by a folder that both machines see, or in pieces.

Each attempt at a song has a token, and folders of its own that are named after it: what an attempt that was given up still
writes, on a machine that cannot be reached, is in nobody's way.

    by path      OUTBOX/.demixd/JOB/tmp-TOKEN, out-TOKEN; out-TOKEN becomes `out` once the song is finished
    in pieces    FOLDER/TOKEN/tmp, FOLDER/TOKEN/out on the actor's machine; the stems are copied into `out`
"""

import asyncio
import errno
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from demixd.protocol.job import ExtraFile, StemFile
from demixd.spool import nofollow, private
from demixd.spool.files import open_own, sha256_of, sync

PIECE = 7 << 19
"""Bytes that are sent at once: ten seconds of stereo in float32."""

WINDOW = 4
"""Pieces on their way at a time; with it an object store holds 15 MB for a song, however long that is."""

Call = Callable[..., Awaitable[Any]]
"""Calls a method of the actor by its name."""

There = Callable[[Path], str]
Told = Callable[[float], Awaitable[None]]


class Attempt:
    """One attempt at a song. `tmp`, `out`: the job's folders here. Raises OSError, and what a call of the actor raises."""

    def __init__(self, call: Call, tmp: Path, out: Path) -> None:
        self.token = secrets.token_hex(8)
        self._call, self._tmp, self._out = call, tmp, out
        self.is_by_path = self._is_there = False
        self.tmp_there = self.out_there = self.song_there = ""
        """The paths of its folders, and of the song, on the actor's machine."""

    async def bring(self, song: Path, folder: str, there: There, told: Told) -> None:
        """Have the actor find the song. `folder`: its own; `there`: what its machine calls a path of ours.

        `told` gets the fraction that was sent.
        """
        if await self._is_shared(there):
            self.is_by_path = True
            self.tmp_there, self.out_there = there(self._mine(self._tmp)), there(self._mine(self._out))
            self.song_there = there(song)
            return
        self._is_there = True
        await self._call("open", self.token)
        self.tmp_there, self.out_there = f"{folder}/{self.token}/tmp", f"{folder}/{self.token}/out"
        self.song_there = f"{self.tmp_there}/song"
        with open_own(song, "rb") as file:
            size = os.fstat(file.fileno()).st_size

            async def send(at: int) -> None:
                piece = await asyncio.to_thread(os.pread, file.fileno(), PIECE, at)
                if len(piece) < min(PIECE, size - at):
                    raise OSError(errno.EIO, "it is shorter than it was", str(song))
                await self._call("store", self.token, at, piece)
                await told(at / size)

            await send(0)  # which makes the file
            await _windowed(send, range(PIECE, size, PIECE))

    async def _is_shared(self, there: There) -> bool:
        """Whether the actor sees the job's folders, and can write to them."""
        nonce, tmp = secrets.token_hex(16), self._mine(self._tmp)
        await asyncio.to_thread(self._make, nonce)
        if await self._call("sees", there(tmp), nonce) and await asyncio.to_thread(_reads, tmp / "seen", nonce[::-1]):
            return True
        await asyncio.to_thread(self.remove)
        return False

    def _mine(self, folder: Path) -> Path:
        return folder.with_name(f"{folder.name}-{self.token}")

    @property
    def root(self) -> Path:
        """The outbox."""
        return self._tmp.parents[2]

    def _make(self, nonce: str) -> None:
        with private.reach(self.root, self._tmp.parent) as job:
            for folder in (self._tmp, self._out):
                os.mkdir(self._mine(folder).name, dir_fd=job)
        with open_own(self._mine(self._tmp) / "nonce", "x+b") as file:
            file.write(nonce.encode())

    def remove(self) -> None:
        for folder in (self._tmp, self._out):
            nofollow.remove_tree(self.root, self._mine(folder))

    async def fetch(self, files: Iterable[StemFile | ExtraFile]) -> str:
        """Have the files lie in `out`; why they are not what was said of them, empty where they are."""
        if self.is_by_path:
            await asyncio.to_thread(self._take_over)
            return ""
        for file in files:
            if (why := await self._fetch_one(file)) is not None:
                return why
        return ""

    def _take_over(self) -> None:
        with private.reach(self.root, self._tmp.parent) as job:
            os.rename(self._mine(self._out).name, self._out.name, src_dir_fd=job, dst_dir_fd=job)

    async def _fetch_one(self, file: StemFile | ExtraFile) -> str | None:
        target = self._out / file.name
        with private.inside(self.root, self._out):
            os.close(await asyncio.to_thread(_new, self._out, target))

        async def receive(at: int) -> None:
            piece = await self._call("fetch", self.token, file.name, at, min(PIECE, file.bytes - at))
            await asyncio.to_thread(_write, target, piece, at)

        await _windowed(receive, range(0, file.bytes, PIECE))
        found = await asyncio.to_thread(_synced, target)
        return (
            None if found == file.sha256 else f"{file.name} came with the sha256 {found}, and was to have {file.sha256}"
        )

    async def end(self) -> None:
        """Remove what it has left, here and there."""
        await asyncio.to_thread(self.remove)
        if self._is_there:
            await self._call("close", self.token)


async def _windowed(work: Callable[[int], Awaitable[None]], places: range) -> None:
    """Do the work at all places, at most WINDOW at a time; the first that fails ends it."""
    at = iter(places)

    async def go() -> None:
        for place in at:
            await work(place)

    tasks = [asyncio.create_task(go()) for _ in range(WINDOW)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _write(path: Path, data: bytes, at: int) -> None:
    """Write to the file of that path, and not to an open one, whose number another file may have by the time that a thread of
    an attempt that was given up gets to it. Raises OSError."""
    with open_own(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def _reads(path: Path, wanted: str) -> bool:
    try:
        with open_own(path, "rb") as file:
            return file.read(len(wanted) + 1) == wanted.encode()
    except OSError:
        return False


def _new(folder: Path, target: Path) -> int:
    """A descriptor to write a new file in a folder, or in one below it, which is made. Raises OSError."""
    with nofollow.reach(folder, target.parent, make=folder) as within:
        return nofollow.new_file(within, target.name)


def _synced(path: Path) -> str:
    """Make a file durable: its sha256. Raises OSError."""
    with open_own(path, "r+b") as file:
        sync(file.fileno())
        return sha256_of(file)
