"""The worker: `python -m stemd.worker` reads orders from standard input and answers on standard output, a line each.

    {"type": "warm", "model": "demo", "device": "auto", "models": "/tmp", "repo": null, "allow_pickle": false}

It ends with its input. The main thread separates, one song after the other; one thread writes the stems of the song
before, one decodes the next, and one listens, so that a `stop` is heard during the work.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stemd.errors import Code, StopProcessingError
from stemd.job import Error, Step, Tick
from stemd.worker.messages import (
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
from stemd.worker.orders import Orders
from stemd.worker.voice import Voice, described

if TYPE_CHECKING:
    # torch takes seconds to import: orders are heard first, and `_warm` brings it.
    from stemd import pipeline
    from stemd.engine.engine import Engine

PROGRESS_S = 0.25
"""At most this often a line of progress; every segment gets its own."""

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # The parent died before the kernel knew what we want.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches both; the supervisor decides.
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    voice = Voice()
    orders = Orders(voice)
    threading.Thread(target=_finish, args=(orders,), name="finish", daemon=True).start()
    engine: Engine | None = None
    while True:
        order = orders.work.take()
        if isinstance(order, Warm):
            engine = _warm(order, voice) or engine
        elif engine is not None:
            _separate(order, engine, voice, orders)
        else:
            error = Error(code=Code.INTERNAL_ERROR, message="The worker was given a song before a model.")
            voice.say(Failed(job_id=order.job_id, error=error, timing={}))


def _warm(order: Warm, voice: Voice) -> "Engine | None":
    from stemd.worker.warm import warm

    began = time.monotonic()
    try:
        engine = warm(order, lambda text: voice.say(Fetching(message=text)))
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the supervisor must know
        voice.say(Unready(error=described(error)))
        return None
    voice.say(Ready(engine=engine.facts, sources=tuple(engine.sources), seconds=round(time.monotonic() - began, 2)))
    return engine


def _finish(orders: Orders) -> None:
    while True:
        orders.finishing.take()()


def _separate(order: Separate, engine: "Engine", voice: Voice, orders: Orders) -> None:
    """The model's part of a song, and what it takes for it; the rest is left to the thread that writes stems."""
    song = _Song(order, voice, orders)

    def work() -> None:
        separated = song.separate(engine, orders)
        orders.finish(order.job_id, lambda: song.attempt(lambda: song.write(separated)))

    song.attempt(work)


class _Song:
    """One song in the worker's hands: what to do, whom to tell, and how long it took."""

    def __init__(self, order: Separate, voice: Voice, orders: Orders) -> None:
        from stemd import pipeline

        self._job_id = job_id = order.job_id
        self._voice = voice
        self._timing: dict[str, float] = {}
        self._observer = pipeline.Observer(
            check=lambda: orders.check(job_id),
            began=lambda step: voice.say(Began(job_id=job_id, step=step)),
            decoded=lambda track: voice.say(Decoded(job_id=job_id, track=track)),
            progressed=_Teller(job_id, voice).progressed,
        )
        self._order = pipeline.Order(
            song=Path(order.song),
            name=order.name,
            tmp=Path(order.tmp),
            out=Path(order.out),
            options=order.options,
            max_duration_s=order.max_duration_s,
            seed=int(order.sha256[:15], 16),
        )

    def attempt(self, work: Callable[[], None]) -> None:
        """The job's boundary: whatever happens, the supervisor is told."""
        try:
            work()
        except StopProcessingError:
            self._voice.say(Stopped(job_id=self._job_id))
        except Exception as error:  # noqa: BLE001 - the boundary
            self._voice.say(Failed(job_id=self._job_id, error=described(error), timing=self._timing))

    def separate(self, engine: "Engine", orders: Orders) -> "pipeline.Separated":
        from stemd import pipeline

        def progress(fraction: float) -> None:
            self._observer.progressed(pipeline.tick(Step.DECODE, fraction))

        self._observer.began(Step.DECODE)
        ahead = orders.ahead.take(self._job_id, self._observer.check, progress)
        if ahead is None:
            track = pipeline.decode_song(self._order, self._observer, self._timing)
        else:
            track, self._timing["decode_s"] = ahead.track, ahead.seconds
            progress(1.0)
        return pipeline.separate_song(self._order, track, engine, self._observer, self._timing)

    def write(self, separated: "pipeline.Separated") -> None:
        from stemd import pipeline

        result = pipeline.write_stems(self._order, separated, self._observer, self._timing)
        self._voice.say(
            Finished(
                job_id=self._job_id,
                files=result.files,
                gain_db=result.gain_db,
                engine=result.engine,
                timing=result.timing,
                warnings=result.warnings,
            )
        )


class _Teller:
    """Progress, not more often than anyone wants to know."""

    def __init__(self, job_id: str, voice: Voice) -> None:
        self._job_id = job_id
        self._voice = voice
        self._said: tuple[Step | None, float] = (None, 0.0)

    def progressed(self, tick: Tick) -> None:
        step, at = self._said
        now = time.monotonic()
        if tick.segment_s is None and step is tick.step and now < at + PROGRESS_S:
            return
        self._said = (tick.step, now)
        self._voice.say(Progressed(job_id=self._job_id, at=tick))


if __name__ == "__main__":
    main()
