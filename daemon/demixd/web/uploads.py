"""A song that comes in: the raw body of `PUT /inbox/PATH?profile=NAME&stems=A,B`, folders and all.

It is written under a dot name, and gets its own by one rename; a body that ends early leaves nothing. What is taken has a name
that the daemon would take for a song, at most `[limits] max_bytes`, and leaves the disk's reserve alone. A body of which nothing
comes for a minute is given up.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from typing import BinaryIO

import msgspec

from demixd.client import actions
from demixd.config import Config
from demixd.errors import AudioProcessingError
from demixd.protocol import options as job_options
from demixd.protocol.inbox_names import Kind, kind_of_file, kind_of_folder
from demixd.spool import room
from demixd.spool.tree import DEEPEST, LONGEST_PATH, Spool, is_too_deep
from demixd.web.problem import ProblemError, of_disk

AT_ONCE = 16
"""Songs that come in at once; the page sends two at a time."""

SILENT_S = 60.0
"""How long a body may bring nothing."""

BLOCK = 1 << 20
"""Bytes that are gathered for one write."""

LONGEST_NAME = 255
"""Bytes of a name, on the filesystems that there are."""


def name_of(parts: list[str], *, recursive: bool) -> str:
    """The song's path below the inbox. Raises ProblemError for one that the daemon would not take for a song."""
    *folders, leaf = parts
    if folders and not recursive:
        raise ProblemError(400, "The daemon looks into no folder of the inbox.")
    for part in parts:
        if len(part.encode()) > LONGEST_NAME:
            raise ProblemError(400, f"A name has at most {LONGEST_NAME} bytes.")
    for folder in folders:
        if reason := kind_of_folder(folder):
            raise ProblemError(400, f"The daemon does not look into folders called {folder} ({reason}): rename it.")
    if folders and is_too_deep("/".join(folders)):
        raise ProblemError(
            400, f"The daemon looks into {DEEPEST} folders within each other, and paths of {LONGEST_PATH} bytes."
        )
    if (kind := kind_of_file(leaf, at_root=not folders)) is not Kind.SONG:
        raise ProblemError(415, f"The daemon would not take {leaf} for a song ({kind}): convert or rename it.")
    return "/".join(parts)


def options_of(query: Mapping[str, str], name: str, config: Config) -> bytes | None:
    """The content of the song's option file; None where nothing is chosen. Raises ProblemError."""
    chosen: dict[str, object] = {}
    if profile := query.get("profile"):
        chosen["profile"] = profile
    if stems := query.get("stems"):
        chosen["stems"] = [stem.strip() for stem in stems.split(",")]
    if not chosen:
        return None
    data = msgspec.json.encode(chosen) + b"\n"
    try:
        config.options_of(name, job_options.parse(data), lambda _: True)
    except AudioProcessingError as error:
        raise ProblemError(400, error.message) from error
    return data


class Uploads:
    def __init__(self, config: Config, spool: Spool) -> None:
        self._config, self._spool = config, spool
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def take(
        self, parts: list[str], query: Mapping[str, str], length: int | None, body: AsyncIterator[bytes]
    ) -> str:
        """Take the song in; its name. `length` is what the request says of its body. Raises ProblemError."""
        name = name_of(parts, recursive=self._config.inbox.recursive)
        options = options_of(query, name, self._config)
        if self._slots.locked():
            raise ProblemError(503, "Too many songs come in at once: try it again in a while.")
        async with self._slots:
            try:
                await asyncio.to_thread(self._check, name, length)
                await self._write(name, options, body)
            except OSError as error:
                raise of_disk(error, name) from error
        return name

    def _check(self, name: str, length: int | None) -> None:
        """Raise ProblemError for a body of this length that cannot be taken. Raises OSError."""
        if not self._spool.inbox.is_dir():
            raise ProblemError(503, "The inbox is not there: mount it, or start the daemon once.")
        if length == 0:
            raise ProblemError(400, f"{name} is empty.")
        self._refuse_large(length or 0)
        free, all_of_it = room.beyond_reserve(self._spool.inbox)
        if all_of_it and free < (length or 0):
            raise ProblemError(507, f"There is no room left on the disk for {name}: make some.")

    def _refuse_large(self, size: int) -> None:
        if told := self._config.limits.too_large(size):
            raise ProblemError(413, told)

    async def _write(self, name: str, options: bytes | None, body: AsyncIterator[bytes]) -> None:
        with ExitStack() as stack:
            # Not in a thread: whoever is cancelled meanwhile has to know what there is to remove. It takes microseconds.
            file = stack.enter_context(actions.dropping(self._spool, name, options))
            watch, size, gathered = room.Watch(file.fileno()), 0, bytearray()
            async for data in _patiently(body):
                size += len(data)
                self._refuse_large(size)
                gathered += data
                if len(gathered) >= BLOCK:
                    await asyncio.to_thread(_put, file, gathered, watch)
                    gathered = bytearray()
            if not size:
                raise ProblemError(400, f"{name} is empty.")
            await asyncio.to_thread(_put, file, gathered, watch)


def _put(file: BinaryIO, data: bytearray, watch: room.Watch) -> None:
    file.write(data)
    watch.wrote(len(data))


async def _patiently(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body's pieces; ProblemError where none comes for a while."""
    while True:
        try:
            yield await asyncio.wait_for(anext(body), SILENT_S)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ProblemError(408, "Nothing more of the song has come.") from error
