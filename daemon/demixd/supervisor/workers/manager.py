"""Keeps a worker alive and warm, and knows when it has stalled. It is told the time (monotonic, seconds).

starting --> ready <--> (a song)        starting --> fetching, tuning, missing-model
   ^           |  keep_alive_s without a song: the process ends, and the GPU is free to the last byte
   |           v
   +-------- asleep                      dead: it is started again, at once if it was warm
"""

import logging
from collections.abc import Callable
from enum import StrEnum
from statistics import median

import msgspec

from demixd.config import Config
from demixd.engine.models.catalog import Demand
from demixd.protocol.job import EngineFacts, Error
from demixd.protocol.options import Options
from demixd.protocol.progress import Tick
from demixd.protocol.status import WorkerStatus
from demixd.supervisor import journal
from demixd.supervisor.workers.missing import MissingModels, pause_s
from demixd.supervisor.workers.process import Died, Said, StartWorker, Worker
from demixd.worker.messages import Fetching, Finished, Progressed, Ready, ToWorker, Tuning, Unready, Warm

log = logging.getLogger(__name__)

STALL_FLOOR_S = 60.0
STALL_FACTOR = 20
"""A worker has stalled when a song gets no further for `max(STALL_FLOOR_S, STALL_FACTOR x the median segment)`."""

WRITING_STALL_S = 900.0
"""The same while stems are written: to sync gigabytes to a slow disk takes minutes, and the model is free meanwhile."""

WARM_STALL_S = 900.0
"""Loading can be slow (a cold disk, a slow hub); this long without a word it is taken for hung."""


GPU_RETRY_S = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""How long the CPU serves in place of a GPU that was lost before an idle worker is started anew to look for it."""


class Have(StrEnum):
    """Whether a model can be used."""

    READY = "ready"
    BUSY = "busy"
    """Something is being loaded; come back."""
    MISSING = "missing"


class WorkerManager:
    """The one worker, whichever process it is at the moment, and the one model that is warm in it.

    `_demand` is what is asked of it now, `_default` what the configuration asks for before any song does.
    """

    def __init__(self, config: Config, post: Callable[[Said | Died], None], start: StartWorker) -> None:
        self._config = config
        self._demand = self._default = Demand.of(config.model.name, config.defaults.stems)
        self._is_outdated = False
        self._warm: Demand | None = None
        """What was demanded when that came which is warm now."""
        self._post = post
        self._start_worker = start
        self.process: Worker | None = None
        self.state = "starting"
        self.ready: Ready | None = None
        """What the worker last said of the engine that it has."""
        self._missing = MissingModels()
        self.message = ""
        self._retry_at = 0.0
        self._deaths = 0
        self._heard = 0.0
        self._had_gpu = False
        self._gpu_tries = 0
        self._warm_since = self._heard_of_songs = 0.0
        self._segments: list[float] = []

    @property
    def engine(self) -> EngineFacts | None:
        """The facts of the engine that is warm."""
        return self.ready.engine if self.ready else None

    @property
    def device(self) -> str | None:
        return self.engine.device if self.engine else None

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    @property
    def is_settled(self) -> bool:
        """Whether the worker is warm, or it is known what keeps it from that (a long download or tuning included)."""
        return self.state != "starting"

    @property
    def is_outdated(self) -> bool:
        """Whether the warm model was demanded by a former configuration; `renew` ends that."""
        return self._is_outdated

    def reconfigure(self, config: Config, now: float) -> None:
        """Go by another configuration. Missing models are asked for again, since they may be there now."""
        demand = Demand.of(config.model.name, config.defaults.stems)
        if (Warm.of(config, demand), demand) != (Warm.of(self._config, self._default), self._default):
            self._is_outdated = True
        self._config, self._default = config, demand
        self._missing.ask_at_once(now)

    def renew(self, now: float) -> None:
        """Start anew with the present configuration. Only while no song is in flight."""
        self._is_outdated = False
        self._demand = self._default
        if self.state == "asleep":
            return
        log.info("worker: begins anew, since the configuration of the model has changed")
        self._restart(now, "The configuration of the model has changed")

    @property
    def status(self) -> WorkerStatus:
        pid = self.process.pid if self.process else None
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
            runtime=engine.runtime if engine else None,
            batch=self.ready.batch if self.ready else None,
            memory_bytes=self.process.resident_bytes() if self.process else None,
            gpu_peak_bytes=self.ready.gpu_peak_bytes if self.ready else None,
        )

    def send(self, message: ToWorker) -> None:
        """Send the worker a message; without a worker it is lost, as is everything that one had."""
        if self.process is not None:
            self.process.send(message)

    def serves(self, options: Options) -> bool:
        """Whether the warm model will do for a song with these options."""
        if not self.is_ready or self.engine is None or self._is_outdated:
            return False
        demand = _demand(options)
        return demand == self._warm or demand.model == self.engine.model

    def lacks(self, options: Options, now: float) -> bool:
        """Whether the model for a song is missing, and it is not time to ask for it again."""
        return self._missing.lacks(_demand(options), now)

    def want(self, options: Options, now: float) -> Have:
        """Whether the model for a song can be used; what makes it ready is begun. Only while no song is in flight."""
        if self.serves(options):
            return Have.READY
        if self.lacks(options, now):
            return Have.MISSING
        demand = _demand(options)
        if self.state in ("ready", "missing-model"):
            self._load(demand, now)
        elif self.state in ("dead", "asleep"):
            self._demand = demand
            self._wake(now)
        return Have.BUSY

    def why_missing(self, options: Options) -> str:
        return self._missing.why(_demand(options))

    def tick(self, now: float, *, busy: bool) -> None:
        """Start the worker where there is none, ask again for what was missing, end an idle worker. `busy`: songs wait or run."""
        self._missing.look(self._config.repo or self._config.models, now)
        if self.state in ("starting", "fetching", "tuning") and self.process and now > self._heard + WARM_STALL_S:
            self.kill(now, "it was silent for too long while warming up")
        if busy:
            self._heard_of_songs = now
        elif self.is_ready:
            self._rest(now)
        if self.process is None and self.state != "asleep" and now >= self._retry_at:
            self._start(now)
        elif self.state == "missing-model" and not self._missing.lacks(self._demand, now):
            self._load(self._demand, now)

    def _start(self, now: float) -> None:
        """Start the process; where the machine has no room for it, try again later."""
        try:
            self.process = self._start_worker(self._post)
        except OSError as error:
            self._log_death(f"the worker cannot be started: {error}")
            self._drop(f"The worker cannot be started: {error.strerror}")
            self._put_off(now)
        else:
            self._load(self._demand, now)

    def _put_off(self, now: float) -> None:
        self._retry_at = now + pause_s(self._deaths)
        self._deaths += 1

    def _rest(self, now: float) -> None:
        """End an idle worker after `keep_alive_s`, or for a new one that may have the GPU again."""
        idle_s = now - max(self._heard_of_songs, self._warm_since)
        if 0 <= self._config.model.keep_alive_s <= idle_s:
            self._drop(f"Asleep after {idle_s:.0f} s without a song; the next one wakes it")
            self.state = "asleep"
            log.info("worker: %s", self.message)
        elif self._misses_gpu and now >= self._warm_since + GPU_RETRY_S[min(self._gpu_tries, len(GPU_RETRY_S) - 1)]:
            self._gpu_tries += 1
            log.info("worker: begins anew, since the CPU stands in for a GPU that may be back")
            self._restart(now, "Looking for the GPU")

    @property
    def _misses_gpu(self) -> bool:
        """Whether the worker is on the CPU, though a GPU was asked for or was there before."""
        if self.ready is None or self.ready.engine.device != "cpu":
            return False
        return self.ready.on_stand_in or (self._had_gpu and self._config.model.device != "cpu")

    def _wake(self, now: float) -> None:
        if self.state == "asleep":
            self.state, self.message, self._retry_at = "starting", "Waking up", now

    def _load(self, demand: Demand, now: float) -> None:
        """Have the worker load and warm what is demanded."""
        assert self.process is not None
        self._demand, self.state, self._heard = demand, "starting", now
        self.message = f"Loading {demand.model}"
        self.process.send(Warm.of(self._config, demand))

    def on_message(self, said: Said, now: float) -> bool:
        """Take in a message about the worker itself; False where it comes from a former process."""
        if self.process is None or said.pid != self.process.pid:
            return False
        self.process.heard()
        self._heard = now
        match said.message:
            case Fetching(message=message) if self.state in ("starting", "fetching"):
                self.state, self.message = "fetching", message
            case Tuning(message=message) if self.state in ("starting", "fetching", "tuning"):
                self.state, self.message = "tuning", message
            case Ready() as ready:
                self._on_ready(ready, now)
                log.info("worker %d: %s (%.1f s)", said.pid, self.message, ready.seconds)
            case Finished(gpu_peak_bytes=int() as gpu_peak_bytes) if self.ready is not None:
                self.ready = msgspec.structs.replace(self.ready, gpu_peak_bytes=gpu_peak_bytes)
            case Unready(error=error):
                self._miss(error, now)
                log.warning("worker %d: %s", said.pid, error.message)
            case Progressed(at=Tick(segment_s=float() as segment_s)):
                self._segments = [*self._segments[-99:], segment_s]
            case _:
                pass  # of the job, which is the runner's
        return True

    def _on_ready(self, ready: Ready, now: float) -> None:
        """The worker is warm."""
        self._warm_since = now
        if ready.engine.device.startswith("cuda"):
            self._had_gpu, self._gpu_tries = True, 0
        self.state, self.ready, self._warm, self._deaths, self._segments = "ready", ready, self._demand, 0, []
        self._missing.found(self._demand)
        engine = ready.engine
        self.message = f"{engine.model} is warm on {engine.device_name} in {engine.precision}"

    def _miss(self, error: Error, now: float) -> None:
        """The demanded model cannot be had; a model that was warm before still is."""
        self._missing.add(self._demand, error, now)
        self.message = error.message
        self.state = "missing-model" if self.ready is None else "ready"

    def on_death(self, died: Died, now: float) -> bool:
        """Take in a worker's death; False where it is that of a former process."""
        if self.process is None or died.pid != self.process.pid:
            return False
        self._log_death(f"worker {died.pid}: {died.how}")
        was_ready = self.is_ready
        self._drop(died.how)
        if was_ready:
            self._retry_at = now
        else:
            self._put_off(now)
        return True

    def kill(self, now: float, why: str) -> None:
        """End the process, which is of no use any more; the next `tick` starts another."""
        self._log_death(f"worker: ended, since {why}")
        self._restart(now, why)

    def _restart(self, now: float, why: str) -> None:
        self._drop(why)
        self._retry_at = now

    def _log_death(self, sentence: str) -> None:
        log.warning(sentence, extra=journal.about_worker(self.device))

    def patience_s(self, *, is_finishing: bool) -> float:
        """How long a song in the worker may get no further; `is_finishing` once it needs the model no more."""
        if is_finishing:
            return WRITING_STALL_S
        return max(STALL_FLOOR_S, STALL_FACTOR * median(self._segments)) if self._segments else STALL_FLOOR_S

    def close(self) -> None:
        """End the worker for good."""
        self._drop("stopped")

    def _end(self) -> None:
        if self.process:
            self.process.close()
            self.process = None

    def _drop(self, why: str) -> None:
        self._end()
        self.state, self.message, self.ready = "dead", why, None


def _demand(options: Options) -> Demand:
    return Demand.of(options.model, options.stems)
