"""The worker: `python -m stemd.worker` reads orders from standard input and answers on standard output, a line each.

    {"type": "warm", "model": "demo", "device": "auto", "models": "/tmp", "repo": null, "allow_pickle": false}

It ends with its input. The main thread works; a thread of its own listens, so that a `stop` is heard during the work.
"""

import ctypes
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from stemd.errors import AudioProcessingError, Code, StopProcessingError
from stemd.job import Error, Step, Tick
from stemd.worker.messages import (
    Began,
    Decoded,
    Failed,
    Fetching,
    Finished,
    FromWorker,
    Progressed,
    Ready,
    Separate,
    Stop,
    Stopped,
    ToWorker,
    Unready,
    Warm,
)

if TYPE_CHECKING:
    # torch takes seconds to import: orders are heard first, and `_warm` brings it.
    from stemd.engine.engine import Engine

log = logging.getLogger("stemd.worker")

PROGRESS_S = 0.25
"""At most this often a line of progress; every segment gets its own."""

_PR_SET_PDEATHSIG = 1


class Line:
    """The way to the supervisor. Whatever libraries print goes to standard error instead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: BinaryIO = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def say(self, message: FromWorker) -> None:
        with self._lock:
            self._file.write(msgspec.json.encode(message) + b"\n")
            self._file.flush()


class Orders:
    """What the supervisor wants: work in order, and which job to give up."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[Warm | Separate | None] = queue.SimpleQueue()
        self._stopped: set[str] = set()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def check(self, job_id: str) -> None:
        if job_id in self._stopped:
            raise StopProcessingError(f"job {job_id} was stopped")

    def _listen(self) -> None:
        decoder = msgspec.json.Decoder(ToWorker)
        for line in sys.stdin.buffer:
            message = decoder.decode(line)
            if isinstance(message, Stop):
                self._stopped.add(message.job_id)
            else:
                self.work.put(message)
        # The supervisor is gone; nobody waits for what is being done.
        os._exit(0)


def main() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # The parent died before the kernel knew what we want.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches both; the supervisor decides.
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    line, orders = Line(), Orders()
    engine: Engine | None = None
    while (order := orders.work.get()) is not None:
        if isinstance(order, Warm):
            engine = _warm(order, line) or engine
        elif engine is not None:
            _separate(order, engine, line, orders)
        else:
            error = Error(code=Code.INTERNAL_ERROR, message="The worker was given a song before a model.")
            line.say(Failed(job_id=order.job_id, error=error, timing={}))


def _warm(order: Warm, line: Line) -> "Engine | None":
    from stemd.worker.warm import warm

    began = time.monotonic()
    try:
        engine = warm(order, lambda text: line.say(Fetching(message=text)))
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the supervisor must know
        line.say(Unready(error=described(error)))
        return None
    line.say(Ready(engine=engine.facts, sources=tuple(engine.sources), seconds=round(time.monotonic() - began, 2)))
    return engine


def _separate(order: Separate, engine: "Engine", line: Line, orders: Orders) -> None:
    from stemd import pipeline

    timing: dict[str, float] = {}
    tell = _Teller(order.job_id, line)
    observer = pipeline.Observer(
        check=lambda: orders.check(order.job_id),
        began=lambda step: line.say(Began(job_id=order.job_id, step=step)),
        decoded=lambda track: line.say(Decoded(job_id=order.job_id, track=track)),
        progressed=tell.progressed,
    )
    work = pipeline.Order(
        song=Path(order.song),
        name=order.name,
        tmp=Path(order.tmp),
        out=Path(order.out),
        options=order.options,
        max_duration_s=order.max_duration_s,
        seed=int(order.sha256[:15], 16),
    )
    try:
        result = pipeline.run(work, engine, observer, timing)
    except StopProcessingError:
        line.say(Stopped(job_id=order.job_id))
    except Exception as error:  # noqa: BLE001 - the job's boundary
        line.say(Failed(job_id=order.job_id, error=described(error), timing=timing))
    else:
        line.say(
            Finished(
                job_id=order.job_id,
                files=result.files,
                gain_db=result.gain_db,
                engine=result.engine,
                timing=result.timing,
                warnings=result.warnings,
            )
        )


class _Teller:
    """Progress, not more often than anyone wants to know."""

    def __init__(self, job_id: str, line: Line) -> None:
        self._job_id = job_id
        self._line = line
        self._said: tuple[Step | None, float] = (None, 0.0)

    def progressed(self, tick: Tick) -> None:
        step, at = self._said
        now = time.monotonic()
        if tick.segment_s is None and step is tick.step and now < at + PROGRESS_S:
            return
        self._said = (tick.step, now)
        self._line.say(Progressed(job_id=self._job_id, at=tick))


def described(error: Exception) -> Error:
    """An exception as the sidecar shows it. One that we did not foresee is ours, with its traceback in the log."""
    if isinstance(error, AudioProcessingError):
        return Error.of(error)
    log.error("".join(traceback.format_exception(error)))
    return Error(
        code=Code.INTERNAL_ERROR,
        message="Something went wrong that we did not foresee; the daemon's log has the details. Please report it.",
        detail=f"{type(error).__name__}: {error}",
    )


if __name__ == "__main__":
    main()
