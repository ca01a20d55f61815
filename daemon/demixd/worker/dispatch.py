"""Receives the supervisor's messages on a thread of its own, and hands the work to the worker's other threads.

warm, separate --> work        the main thread, which has the model
(separated)    --> finishing   the thread that writes stems
prepare        --> prefetcher  the thread that decodes ahead
stop           --> the thread that has the job; a job that only waits is given up at once
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from demixd.audio.budget import Budget
from demixd.errors import StopProcessingError
from demixd.worker.channel import BROKEN_STATUS, Channel
from demixd.worker.messages import Forget, Prepare, Separate, Stop, Stopped, ToWorker, Warm
from demixd.worker.prefetch import Prefetcher

log = logging.getLogger("demixd.worker")

Work = TypeVar("Work")


class WorkQueue(Generic[Work]):
    """Work that waits for one thread, in order. Waiting work can be dropped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[str | None, Work]] = []

    def put(self, job_id: str | None, work: Work) -> None:
        with self._changed:
            self._waiting.append((job_id, work))
            self._changed.notify()

    def take(self) -> Work:
        """The next piece of work, once there is one."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            return self._waiting.pop(0)[1]

    def drop(self, job_id: str) -> bool:
        """Drop the work that waits for a job; whether there was any."""
        with self._changed:
            before = len(self._waiting)
            self._waiting = [each for each in self._waiting if each[0] != job_id]
            return len(self._waiting) < before


class Dispatcher:
    """The queues of the worker's threads, and the jobs that were stopped."""

    def __init__(self, channel: Channel) -> None:
        self.work: WorkQueue[Warm | Separate] = WorkQueue()
        self.finishing: WorkQueue[Callable[[], None]] = WorkQueue()
        self.budget = Budget(0)
        """Memory for the songs' sound: none before the first model is warm."""
        self.prefetcher = Prefetcher(channel, self.budget)
        self._channel = channel
        self._stopped: set[str] = set()
        threading.Thread(target=self._listen, name="dispatcher", daemon=True).start()

    def check(self, job_id: str) -> None:
        if job_id in self._stopped:
            raise StopProcessingError(f"job {job_id} was stopped")

    def finish(self, job_id: str, work: Callable[[], None]) -> None:
        """Have the rest of a song done by the thread that writes stems."""
        self.finishing.put(job_id, work)
        if job_id in self._stopped:
            self._give_up(job_id)  # the stop came before this work did

    def _listen(self) -> None:
        try:
            self._obey()
        except (OSError, msgspec.DecodeError) as error:
            log.error("the supervisor cannot be heard any more: %s", error)
            os._exit(BROKEN_STATUS)
        # The supervisor is gone, and nobody waits for the song at work.
        os._exit(0)

    def _obey(self) -> None:
        decoder = msgspec.json.Decoder(ToWorker)
        for line in sys.stdin.buffer:
            match decoder.decode(line):
                case Stop(job_id=job_id):
                    self._stopped.add(job_id)
                    self.prefetcher.forget(job_id)
                    self._give_up(job_id)
                case Prepare() as order:
                    self.prefetcher.prepare(order)
                case Forget(job_id=job_id):
                    self.prefetcher.forget(job_id)
                case Separate() as order:
                    self._stopped.discard(order.job_id)  # it had its turn before, and a pause stopped it
                    self.work.put(order.job_id, order)
                case Warm() as order:
                    self.work.put(None, order)

    def _give_up(self, job_id: str) -> None:
        """Drop a job that waits, and say so; where a thread has the job, its next `check` raises."""
        if self.work.drop(job_id) or self.finishing.drop(job_id):
            self._channel.send(Stopped(job_id=job_id))
