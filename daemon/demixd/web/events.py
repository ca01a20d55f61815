"""Changes of what the page shows, told to each browser that looks: server-sent events.

    event: now | queue | songs     the part as it is now; at first all of them, then those that have changed
    :, event: beat                 a comment and an event every 15 s, by which both ends notice a connection that has gone

One task reads for all, at most twice a second, and only while somebody looks. A browser that reads slowly has no queue of its
own: it gets the parts as they are when it has read the last ones.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

from demixd.client.reader import IDLE_FACTOR
from demixd.web.problem import ProblemError
from demixd.web.state import State

log = logging.getLogger(__name__)

EVERY_S = 0.5
HEARTBEAT_S = 15.0
MOST = 100
"""Browsers that are told of changes at once."""


class Events:
    def __init__(self, state: State) -> None:
        self._state = state
        self._parts: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._watching = 0
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def close(self) -> None:
        """End all streams: the server stops."""
        self._is_closed = True
        self._tell()

    def stream(self) -> AsyncIterator[bytes]:
        """The events of one browser. Raises ProblemError where there are too many."""
        if self._watching >= MOST:
            raise ProblemError(503, "Too many browsers look at this page.")
        return self._stream()

    async def _stream(self) -> AsyncIterator[bytes]:
        self._watching += 1
        told: dict[str, bytes] = {}
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._watch())
            yield b"retry: 2000\n\n"
            while not self._is_closed:
                changed = self._changed
                for name, data in self._parts.items():
                    if told.get(name) != data:
                        told[name] = data
                        yield b"event: %s\ndata: %s\n\n" % (name.encode(), data)
                try:
                    await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
                except TimeoutError:
                    yield b":\nevent: beat\ndata:\n\n"
        finally:
            self._watching -= 1

    async def _watch(self) -> None:
        """Read again and again while somebody looks."""
        while self._watching and not self._is_closed:
            began = time.monotonic()
            parts = await asyncio.to_thread(self._state.parts)
            if parts != self._parts:
                self._parts = parts
                self._tell()
            await asyncio.sleep(max(EVERY_S, IDLE_FACTOR * (time.monotonic() - began)))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
