"""Keeps a worker alive and warm, and knows when it has stalled. It is told the time (monotonic, seconds)."""

import logging
from collections.abc import Callable
from statistics import median

from stemd.config import Config
from stemd.job import EngineFacts, Error, Tick
from stemd.status import WorkerStatus
from stemd.worker.handle import Died, Handle, Said
from stemd.worker.messages import Fetching, Progressed, Ready, Unready, Warm

log = logging.getLogger(__name__)

STALL_FLOOR_S = 60.0
STALL_FACTOR = 20
"""A worker has stalled when it says nothing for `max(STALL_FLOOR_S, STALL_FACTOR x the median segment)`."""

WARM_STALL_S = 900.0
"""Loading can be slow (a cold disk, a slow hub); this long without a word it is taken for hung."""

RETRY_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""How long to wait before asking for a missing model again, or starting a worker that died while it warmed up."""


class Keeper:
    """The one worker, whichever process it is at the moment."""

    def __init__(self, config: Config, post: Callable[[Said | Died], None]) -> None:
        self._warm = Warm(
            model=config.model.name,
            device=config.model.device,
            models=str(config.models),
            repo=config.model.repo or None,
            allow_pickle=config.model.allow_pickle,
        )
        self._post = post
        self.handle: Handle | None = None
        self.state = "starting"
        self.engine: EngineFacts | None = None
        self.error: Error | None = None
        self.message = ""
        self._retry_at = 0.0
        self._tries = 0
        self._heard = 0.0
        self._segments: list[float] = []

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    @property
    def is_settled(self) -> bool:
        """Whether the worker is warm, or what keeps it from that is known (a long fetch included)."""
        return self.state != "starting"

    @property
    def status(self) -> WorkerStatus:
        pid = self.handle.pid if self.handle else None
        return WorkerStatus(state=self.state, pid=pid, message=self.message, engine=self.engine)

    def tick(self, now: float) -> None:
        """Start what is not there, ask again for what was missing."""
        if self.state in ("starting", "fetching") and self.handle and now > self._heard + WARM_STALL_S:
            self.kill(now, "it was silent for too long while warming up")
        if now < self._retry_at or self.state not in ("starting", "dead", "missing-model"):
            return
        if self.handle is None:
            self.handle = Handle(self._post)
        elif self.state == "starting":
            return
        self.state, self._heard = "starting", now
        self.handle.send(self._warm)

    def hear(self, said: Said, now: float) -> bool:
        """Note what the worker says of itself; False where it is from a process that is no longer the worker."""
        if self.handle is None or said.pid != self.handle.pid:
            return False
        self._heard = now
        match said.message:
            case Fetching(message=message):
                self.state, self.message = "fetching", message
            case Ready(engine=engine, seconds=seconds):
                self.state, self.engine, self.error, self._tries = "ready", engine, None, 0
                self.message = f"{engine.model} is warm on {engine.device_name}"
                log.info("worker %d: %s (%.1f s)", said.pid, self.message, seconds)
            case Unready(error=error):
                self.state, self.error, self.message = "missing-model", error, error.message
                self._back_off(now)
                log.warning("worker %d: %s", said.pid, error.message)
            case Progressed(at=Tick(segment_s=float() as segment_s)):
                self._segments = [*self._segments[-99:], segment_s]
            case _:
                pass  # of the job, which is the runner's
        return True

    def bury(self, died: Died, now: float) -> bool:
        """Note a death; False where that process was no longer the worker."""
        if self.handle is None or died.pid != self.handle.pid:
            return False
        log.warning("worker %d: %s", died.pid, died.how)
        was_ready = self.is_ready
        self._drop(died.how)
        if was_ready:
            self._retry_at = now
        else:
            self._back_off(now)
        return True

    def kill(self, now: float, why: str) -> None:
        """End the process; the next tick starts another."""
        log.warning("worker: ended, since %s", why)
        self._drop(why)
        self._retry_at = now

    def touch(self, now: float) -> None:
        """Count silence from now on: work begins."""
        self._heard = now

    def has_stalled(self, now: float) -> bool:
        patience = max(STALL_FLOOR_S, STALL_FACTOR * median(self._segments)) if self._segments else STALL_FLOOR_S
        return now > self._heard + patience

    def close(self) -> None:
        if self.handle:
            self.handle.close()
            self.handle = None

    def _drop(self, why: str) -> None:
        self.close()
        self.state, self.message, self.engine = "dead", why, None

    def _back_off(self, now: float) -> None:
        self._retry_at = now + RETRY_S[min(self._tries, len(RETRY_S) - 1)]
        self._tries += 1
