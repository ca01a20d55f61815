"""Keeps a worker alive and warm, and knows when it has stalled. It is told the time (monotonic, seconds)."""

import logging
from collections.abc import Callable
from enum import StrEnum
from statistics import median

import msgspec

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


class Have(StrEnum):
    """How things stand with a model."""

    READY = "ready"
    BUSY = "busy"
    """Something is being loaded; come back."""
    MISSING = "missing"


class _Missing(msgspec.Struct, frozen=True, kw_only=True):
    error: Error
    tries: int
    ask_again: float


class Keeper:
    """The one worker, whichever process it is at the moment, and the one model that is warm in it."""

    def __init__(self, config: Config, post: Callable[[Said | Died], None]) -> None:
        self._config = config
        self._model = config.model.name
        self._post = post
        self.handle: Handle | None = None
        self.state = "starting"
        self.engine: EngineFacts | None = None
        self.missing: dict[str, _Missing] = {}
        """Models that could not be had, by name."""
        self.message = ""
        self._retry_at = 0.0
        self._deaths = 0
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
        engine = self.engine
        return WorkerStatus(
            state=self.state,
            pid=pid,
            message=self.message,
            model=engine.model if engine else None,
            device=engine.device if engine else None,
            device_name=engine.device_name if engine else None,
            precision=engine.precision if engine else None,
            fallback=engine.fallback if engine else None,
            memory_bytes=self.handle.resident_bytes() if self.handle else None,
        )

    def want(self, model: str, now: float) -> Have:
        """How things stand with `model`; what can be done about it is begun. For when no song is at the worker."""
        if self.is_ready and self.engine is not None and self.engine.model == model:
            return Have.READY
        known = self.missing.get(model)
        if known is not None and now < known.ask_again:
            return Have.MISSING
        if self.state in ("ready", "missing-model"):
            self._load(model, now)
        elif self.state == "dead":
            self._model = model
        return Have.BUSY

    def why_missing(self, model: str) -> str:
        return self.missing[model].error.message if model in self.missing else ""

    def tick(self, now: float) -> None:
        """Start what is not there, ask again for what was missing."""
        if self.state in ("starting", "fetching") and self.handle and now > self._heard + WARM_STALL_S:
            self.kill(now, "it was silent for too long while warming up")
        if self.handle is None and now >= self._retry_at:
            self.handle = Handle(self._post)
            self._load(self._model, now)
        elif self.state == "missing-model" and now >= self.missing[self._model].ask_again:
            self._load(self._model, now)

    def _load(self, model: str, now: float) -> None:
        """Have the worker warm `model` up."""
        assert self.handle is not None
        self._model, self.state, self._heard = model, "starting", now
        self.message = f"Loading {model}"
        self.handle.send(
            Warm(
                model=model,
                device=self._config.model.device,
                models=str(self._config.models),
                repo=self._config.model.repo or None,
                allow_pickle=self._config.model.allow_pickle,
            )
        )

    def hear(self, said: Said, now: float) -> bool:
        """Note what the worker says of itself; False where it is from a process that is no longer the worker."""
        if self.handle is None or said.pid != self.handle.pid:
            return False
        self._heard = now
        match said.message:
            case Fetching(message=message):
                self.state, self.message = "fetching", message
            case Ready(engine=engine, seconds=seconds):
                self.state, self.engine, self._deaths, self._segments = "ready", engine, 0, []
                self.missing.pop(self._model, None)
                self.message = f"{engine.model} is warm on {engine.device_name}"
                log.info("worker %d: %s (%.1f s)", said.pid, self.message, seconds)
            case Unready(error=error):
                self._miss(error, now)
                log.warning("worker %d: %s", said.pid, error.message)
            case Progressed(at=Tick(segment_s=float() as segment_s)):
                self._segments = [*self._segments[-99:], segment_s]
            case _:
                pass  # of the job, which is the runner's
        return True

    def _miss(self, error: Error, now: float) -> None:
        """The model cannot be had. The one that was warm before, if any, still is."""
        known = self.missing.get(self._model)
        tries = known.tries if known else 0
        self.missing[self._model] = _Missing(error=error, tries=tries + 1, ask_again=now + _pause(tries))
        self.message = error.message
        self.state = "missing-model" if self.engine is None else "ready"

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
            self._retry_at = now + _pause(self._deaths)
            self._deaths += 1
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
        """End the worker for good."""
        self._drop("stopped")

    def _end(self) -> None:
        if self.handle:
            self.handle.close()
            self.handle = None

    def _drop(self, why: str) -> None:
        self._end()
        self.state, self.message, self.engine = "dead", why, None


def _pause(tries: int) -> float:
    return RETRY_S[min(tries, len(RETRY_S) - 1)]
