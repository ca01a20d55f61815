"""A worker's session: orders come in, songs go out, the warm model stays.

The main thread separates, one song after the other; one thread writes the stems of the song before, one decodes the
next, and one listens, so that a `stop` is heard during the work.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from demixd.errors import Code, DeviceLostError, StopProcessingError, disk_error
from demixd.protocol.job import Error, Step, Tick
from demixd.spool.tree import pin
from demixd.worker.channel import Channel, described
from demixd.worker.dispatch import Dispatcher
from demixd.worker.messages import (
    Began,
    Decoded,
    Failed,
    Fetching,
    Finished,
    Progressed,
    Ready,
    Separate,
    Stopped,
    Unready,
    Warm,
)

if TYPE_CHECKING:
    # torch takes seconds to import: orders are heard first, and `_warm` brings it.
    from demixd.engine.engine import Engine
    from demixd.pipeline.song import Order, Separated
    from demixd.spool.nofollow import Pin
    from demixd.worker.tuning import Tuning

log = logging.getLogger("demixd.worker")

LOOK_S = 0.5
"""How often it is seen to while something is made in the background; otherwise the worker sleeps until an order comes."""


LOST_STATUS = 75
"""The exit status of a worker whose GPU was lost (sysexits' EX_TEMPFAIL)."""


PROGRESS_S = 0.25
"""At most this often a line of progress; every segment gets its own."""


def serve(channel: Channel) -> None:
    """Carry out the orders on standard input, for ever: the process ends with its input."""
    dispatcher = Dispatcher(channel)
    threading.Thread(target=_finish, args=(dispatcher,), name="finish", daemon=True).start()
    warm: _WarmModel | None = None
    while True:
        if warm is not None:
            warm.pass_the_time(dispatcher)
        order = dispatcher.work.take()
        if isinstance(order, Warm):
            warm = _warm(order, channel, warm)
        elif warm is not None:
            warm.tuning.pause()
            _separate(order, warm.engine, channel, dispatcher)
        else:
            error = Error(code=Code.INTERNAL_ERROR, message="The worker was given a song before a model.")
            channel.send(Failed(job_id=order.job_id, error=error, timing={}))


def _finish(dispatcher: Dispatcher) -> None:
    while True:
        dispatcher.finishing.take()()


class _WarmModel:
    """The engine, and what is done for it between songs."""

    def __init__(self, engine: "Engine", tuning: "Tuning", channel: Channel, seconds: float) -> None:
        self.engine = engine
        self.tuning = tuning
        self._channel = channel
        self._seconds = seconds
        self._say()

    def pass_the_time(self, dispatcher: Dispatcher) -> None:
        """Until there is an order, or nothing left to do but wait for one."""
        while self.tuning.is_improving and not dispatcher.work.wait(LOOK_S):
            self.engine = self.tuning.step(self.engine, lambda: not dispatcher.work.is_empty)
            if not self.tuning.is_improving:
                self._say()

    def _say(self) -> None:
        engine = self.engine
        self._channel.send(
            Ready(
                engine=engine.facts,
                sources=tuple(engine.sources),
                seconds=self._seconds,
                batch=engine.batch,
                gpu_peak_bytes=engine.gpu_peak_bytes,
                on_stand_in=engine.on_stand_in,
                improving=self.tuning.is_improving,
            )
        )


def _warm(order: Warm, channel: Channel, before: _WarmModel | None) -> _WarmModel | None:
    """The model that is ordered; where it cannot be had, the one that was warm before stays."""
    from demixd.worker.tuning import Tuning
    from demixd.worker.warm import warm

    began = time.monotonic()
    if before is not None:
        before.tuning.pause()
    try:
        engine = warm(order, lambda text: channel.send(Fetching(message=text)))
        tuning = Tuning(order, engine)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the supervisor must know
        channel.send(Unready(error=described(error)))
        return before
    if before is not None:
        before.tuning.close()
    return _WarmModel(engine, tuning, channel, round(time.monotonic() - began, 2))


def _separate(order: Separate, engine: "Engine", channel: Channel, dispatcher: Dispatcher) -> None:
    """The model's part of a song, and what it takes for it; the rest is left to the thread that writes stems."""
    song = _Song(order, channel, dispatcher)

    def work() -> None:
        separated = song.separate(engine, dispatcher)
        dispatcher.finish(order.job_id, lambda: song.attempt(lambda: song.write(separated)))

    song.attempt(work)


class _Song:
    """One song in the worker's hands: what to do, whom to tell, and how long it took."""

    def __init__(self, order: Separate, channel: Channel, dispatcher: Dispatcher) -> None:
        from demixd.pipeline.song import Observer

        self._job_id = job_id = order.job_id
        self._channel = channel
        self._timing: dict[str, float] = {}
        self._gpu_peak_bytes: int | None = None
        self._observer = Observer(
            check=lambda: dispatcher.check(job_id),
            began=lambda step: channel.send(Began(job_id=job_id, step=step)),
            decoded=lambda track: channel.send(Decoded(job_id=job_id, track=track)),
            progressed=_Teller(job_id, channel).progressed,
        )
        self._ordered = order
        self._pins: tuple[Pin, ...] = ()

    def _hold(self) -> "Order":
        """The order, with folders that stay what they are now while the song is in hand."""
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
        """The job's boundary: whatever happens, the supervisor is told."""
        try:
            work()
        except StopProcessingError:
            self._channel.send(Stopped(job_id=self._job_id))
        except DeviceLostError as error:
            log.error("%s This process ends, and another may have it again.", error.message)
            os._exit(LOST_STATUS)
        except Exception as error:  # noqa: BLE001 - the boundary
            self._channel.send(Failed(job_id=self._job_id, error=described(error), timing=self._timing))

    def separate(self, engine: "Engine", dispatcher: Dispatcher) -> "Separated":
        from demixd.pipeline.song import decode_song, separate_song, tick

        def progress(fraction: float) -> None:
            self._observer.progressed(tick(Step.DECODE, fraction))

        self._order = self._hold()
        self._observer.began(Step.DECODE)
        ahead = dispatcher.prefetcher.take(self._job_id, self._observer.check, progress)
        if ahead is None:
            track = decode_song(self._order, self._observer, self._timing)
        else:
            track, self._timing["decode_s"] = ahead.track, ahead.seconds
            progress(1.0)
        separated = separate_song(self._order, track, engine, self._observer, self._timing)
        self._gpu_peak_bytes = engine.gpu_peak_bytes
        return separated

    def write(self, separated: "Separated") -> None:
        from demixd.pipeline.song import write_stems

        result = write_stems(self._order, separated, self._observer, self._timing)
        self._channel.send(
            Finished(
                job_id=self._job_id,
                files=result.files,
                gain_db=result.gain_db,
                residual_db=result.residual_db,
                engine=result.engine,
                timing=result.timing,
                warnings=result.warnings,
                gpu_peak_bytes=self._gpu_peak_bytes,
            )
        )


class _Teller:
    """Progress, not more often than anyone wants to know."""

    def __init__(self, job_id: str, channel: Channel) -> None:
        self._job_id = job_id
        self._channel = channel
        self._said: tuple[Step | None, float] = (None, 0.0)

    def progressed(self, tick: Tick) -> None:
        step, at = self._said
        now = time.monotonic()
        if tick.segment_s is None and step is tick.step and now < at + PROGRESS_S:
            return
        self._said = (tick.step, now)
        self._channel.send(Progressed(job_id=self._job_id, at=tick))
