"""Decodes the next song on a thread of its own, while the song before it is separated.

    prepare --> waits --> being decoded --> decoded --> taken by `separate`
                  |______________|______________|____ forgotten

A failure here is not final: the song is decoded again in its own turn, which meets the same error and reports it.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from demixd.audio.budget import Budget
from demixd.errors import StopProcessingError, disk_error
from demixd.protocol.job import Error
from demixd.spool.nofollow import Pin
from demixd.spool.tree import pin
from demixd.worker.channel import Channel, described
from demixd.worker.messages import Prepare, Prepared

if TYPE_CHECKING:
    from demixd.pipeline.song import Decoded

LOOK_S = 0.1
"""How often `take` looks whether its song was stopped while it waits."""


class Prefetched(msgspec.Struct, frozen=True, kw_only=True):
    """The song in a buffer of its shelf, one of whose folders is held open; decoding took `seconds`."""

    decoded: "Decoded"
    tmp: Pin
    seconds: float


class Prefetcher:
    """Decodes one song at a time, in the order of `prepare`."""

    def __init__(self, channel: Channel, budget: Budget) -> None:
        self._channel, self._budget = channel, budget
        self._changed = threading.Condition()
        self._waiting: list[Prepare] = []
        self._busy: Prepare | None = None
        self._unwanted = False
        """Whether the song at work was forgotten."""
        self._fraction = 0.0
        self._decoded: dict[str, Prefetched] = {}
        threading.Thread(target=self._run, name="ahead", daemon=True).start()

    def prepare(self, order: Prepare) -> None:
        with self._changed:
            self._waiting.append(order)
            self._changed.notify_all()

    def forget(self, job_id: str) -> None:
        with self._changed:
            self._waiting = [order for order in self._waiting if order.job_id != job_id]
            if (made := self._decoded.pop(job_id, None)) is not None:
                made.decoded.shelf.close()
            if self._busy is not None and self._busy.job_id == job_id:
                self._unwanted = True

    def take(self, job_id: str, check: Callable[[], None], progress: Callable[[float], None]) -> Prefetched | None:
        """The song if it was decoded ahead, else None. Waits while it is being decoded, also if it was forgotten.

        `progress` gets fractions of the song; what `check` raises ends the wait.
        """
        with self._changed:
            while any(order.job_id == job_id for order in (self._busy, *self._waiting) if order is not None):
                check()
                progress(self._fraction)
                self._changed.wait(LOOK_S)
            return self._decoded.pop(job_id, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                order = self._busy = self._waiting.pop(0)
                self._unwanted, self._fraction = False, 0.0
            made = self._decode(order)
            with self._changed:
                wanted, self._busy = not self._unwanted, None
                if isinstance(made, Prefetched):
                    if wanted:
                        self._decoded[order.job_id] = made
                    else:
                        made.decoded.shelf.close()
                self._changed.notify_all()
            if wanted:
                self._channel.send(Prepared(job_id=order.job_id, error=made if isinstance(made, Error) else None))
            made = None  # else this thread holds the song's sound until the next song comes

    def _decode(self, order: Prepare) -> Prefetched | Error | None:
        """The decoded song, or the error; None for a song that was forgotten."""
        from demixd.audio.pcm import Shelf
        from demixd.pipeline.decoder import decode
        from demixd.pipeline.song import Decoded

        began = time.monotonic()
        try:
            tmp = pin(order.tmp)
        except OSError as error:
            return described(disk_error(error, "opening the work folder"))
        snapshot = Path(order.snapshot)
        shelf = Shelf(self._budget, (Path(order.work), tmp.path), ahead=True)
        try:
            track, pcm = decode(
                tmp.path / snapshot.name if snapshot.parent == Path(order.tmp) else snapshot,
                shelf,
                max_duration_s=order.max_duration_s,
                check=self._check,
                progress=self._note,
            )
        except Exception as error:  # noqa: BLE001 - the boundary: the song's own turn reports it
            shelf.close()
            return None if isinstance(error, StopProcessingError) else described(error)
        decoded = Decoded(track=track, pcm=pcm, shelf=shelf)
        return Prefetched(decoded=decoded, tmp=tmp, seconds=round(time.monotonic() - began, 3))

    def _note(self, fraction: float) -> None:
        self._fraction = fraction

    def _check(self) -> None:
        if self._unwanted:
            raise StopProcessingError("its turn does not come")
