"""A worker's session: it carries out the supervisor's orders, song after song, and keeps the model warm.

The main thread separates; meanwhile one thread writes the stems of the song before, one decodes the next song, and one
receives messages, so that a `stop` is noticed at any time.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from demixd.audio.budget import Budget
from demixd.engine import host
from demixd.errors import Code, DeviceLostError, StopProcessingError, disk_error
from demixd.protocol.job import Error
from demixd.protocol.progress import Step, Throttle, Tick
from demixd.spool.tree import pin
from demixd.worker.channel import Channel, described
from demixd.worker.dispatch import Dispatcher
from demixd.worker.messages import (
    Decoded,
    Failed,
    Fetching,
    Finished,
    Progressed,
    Ready,
    Separate,
    Stopped,
    Tuning,
    Unready,
    Warm,
)

if TYPE_CHECKING:
    # torch takes seconds to import: messages are received first, and `_warm` imports it.
    from demixd.audio.pcm import Shelf
    from demixd.engine.engine import Engine
    from demixd.pipeline.song import Order, ReadyToWrite
    from demixd.spool.nofollow import Pin

log = logging.getLogger("demixd.worker")

LOST_STATUS = 75
"""The exit status of a worker whose GPU was lost (sysexits' EX_TEMPFAIL)."""


PROGRESS_S = 0.25
"""The least time between two lines of progress of one step; every segment gets a line of its own."""


def serve(channel: Channel) -> None:
    """Carry out the orders on standard input, for ever: the process ends with its input."""
    dispatcher = Dispatcher(channel)
    threading.Thread(target=_finish, args=(dispatcher,), name="finish", daemon=True).start()
    engine: Engine | None = None
    while True:
        order = dispatcher.work.take()
        if isinstance(order, Warm):
            engine = _warm(order, channel, dispatcher.budget) or engine
        elif engine is not None:
            _separate(order, engine, channel, dispatcher)
        else:
            error = Error(code=Code.INTERNAL_ERROR, message="The worker was given a song before a model.")
            channel.send(Failed(job_id=order.job_id, error=error, timing={}))


def _finish(dispatcher: Dispatcher) -> None:
    while True:
        dispatcher.finishing.take()()


def _warm(order: Warm, channel: Channel, budget: Budget) -> "Engine | None":
    """The model that is ordered, warm and announced; None where it cannot be had, which is told.

    `budget` becomes what the order allows: once the model has taken its own memory.
    """
    # What the first song needs is loaded now, and its decoder started: it would take 0.3 s.
    from demixd.engine import device as devices
    from demixd.pipeline import decoder, song  # noqa: F401
    from demixd.worker.tuning import tuned
    from demixd.worker.warm import warm

    began = time.monotonic()
    try:
        engine = warm(order, lambda text: channel.send(Fetching(message=text)))
        engine = tuned(engine, order, lambda text: channel.send(Tuning(message=text)))
        decoder.warm()
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the supervisor must know
        channel.send(Unready(error=described(error)))
        return None
    budget.resize(host.sound_bytes(order.memory_bytes) // order.shares)
    channel.send(
        Ready(
            engine=engine.facts,
            sources=tuple(engine.sources),
            seconds=round(time.monotonic() - began, 2),
            batch=engine.batch,
            gpu_peak_bytes=engine.gpu_peak_bytes,
            on_stand_in=engine.on_stand_in,
            gpus=devices.count(),
        )
    )
    return engine


def _separate(order: Separate, engine: "Engine", channel: Channel, dispatcher: Dispatcher) -> None:
    """Decode and separate a song, and leave its stems to the thread that writes them."""
    song = _Song(order, channel, dispatcher)

    def work() -> None:
        ready = song.separate(engine, dispatcher)
        dispatcher.finish(order.job_id, lambda: song.attempt(lambda: song.write(ready)))

    song.attempt(work)


def _teller(job_id: str, channel: Channel) -> Callable[[Tick], None]:
    """What tells the supervisor how far the song is: of each segment, and otherwise not more often than anyone looks."""
    throttle = Throttle(PROGRESS_S)

    def tell(tick: Tick) -> None:
        if throttle.passes(time.monotonic(), tick.step) or tick.segment_s is not None:
            channel.send(Progressed(job_id=job_id, at=tick))

    return tell


class _Song:
    """One song at the worker: its order, its observer, and the seconds of each step."""

    def __init__(self, order: Separate, channel: Channel, dispatcher: Dispatcher) -> None:
        from demixd.pipeline.song import Observer

        self._job_id = job_id = order.job_id
        self._channel = channel
        self._timing: dict[str, float] = {}
        self._gpu_peak_bytes: int | None = None
        # Nothing in it leads back to this song, whose folders are closed as soon as nobody has it any more.
        self._observer = Observer(
            check=lambda: dispatcher.check(job_id),
            decoded=lambda track: channel.send(Decoded(job_id=job_id, track=track)),
            progressed=_teller(job_id, channel),
        )
        self._ordered = order
        self._budget = dispatcher.budget
        self._pins: tuple[Pin, ...] = ()
        self._shelf: Shelf | None = None

    def _hold(self) -> "Order":
        """The order, with its folders held open: what is renamed or linked in their place meanwhile does not matter."""
        from demixd.pipeline.song import Order

        order = self._ordered
        try:
            tmp, out = self._pins = pin(order.tmp), pin(order.out)
        except OSError as error:
            raise disk_error(error, "opening the work folder") from error
        song = Path(order.song)
        return Order(
            song=tmp.path / song.name if song.parent == Path(order.tmp) else song,
            name=order.name,
            tmp=tmp.path,
            out=out.path,
            options=order.options,
            max_duration_s=order.max_duration_s,
            seed=int(order.sha256[:15], 16),
        )

    def attempt(self, work: Callable[[], None]) -> None:
        """The job's boundary: run `work`, and tell the supervisor if it raises."""
        try:
            work()
        except StopProcessingError:
            end: Stopped | Failed = Stopped(job_id=self._job_id)
        except DeviceLostError as error:
            log.error("%s This process ends, and another may have it again.", error.message)
            os._exit(LOST_STATUS)
        except Exception as error:  # noqa: BLE001 - the boundary
            end = Failed(job_id=self._job_id, error=described(error), timing=self._timing)
        else:
            return
        self._free()
        self._channel.send(end)

    def _free(self) -> None:
        """Give back the memory and files that hold the song's sound, before its end is told: another song may wait for them."""
        if self._shelf is not None:
            self._shelf.close()

    def separate(self, engine: "Engine", dispatcher: Dispatcher) -> "ReadyToWrite":
        from demixd.audio.pcm import Shelf
        from demixd.pipeline.song import decode_song, separate_song, tick

        def progress(fraction: float) -> None:
            self._observer.progressed(tick(Step.DECODE, fraction))

        self._order = self._hold()
        progress(0.0)
        ahead = dispatcher.prefetcher.take(self._job_id, self._observer.check, progress)
        if ahead is None:
            self._shelf = Shelf(self._budget, (Path(self._ordered.work), self._order.tmp))
            decoded = decode_song(self._order, self._shelf, self._observer, self._timing)
        else:
            decoded, self._timing["decode_s"] = ahead.decoded, ahead.seconds
            self._shelf, self._pins = decoded.shelf, (*self._pins, ahead.tmp)
            progress(1.0)
        ready = separate_song(self._order, decoded, engine, self._observer, self._timing)
        self._gpu_peak_bytes = engine.gpu_peak_bytes
        return ready

    def write(self, ready: "ReadyToWrite") -> None:
        from demixd.pipeline.song import write_stems

        result = write_stems(self._order, ready, self._observer, self._timing)
        self._free()
        self._channel.send(
            Finished(
                job_id=self._job_id,
                files=result.files,
                extras=result.extras,
                gain_db=result.gain_db,
                residual_db=result.residual_db,
                engine=result.engine,
                timing=result.timing,
                warnings=result.warnings,
                gpu_peak_bytes=self._gpu_peak_bytes,
            )
        )
