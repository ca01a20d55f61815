"""Keeps a worker alive and warm, and knows when it has stalled. It is told the time (monotonic, seconds).

starting --> ready <--> (a song)        starting --> fetching, tuning, missing-model; no-worker: no machine has room
   ^           |  keep_alive_s without a song: the process ends, and the GPU is free to the last byte
   |           v
   +-------- asleep                      dead: it is started again, at once if it was warm
"""

import logging
from enum import StrEnum

import msgspec

from demixd.config import Config
from demixd.engine.models.catalog import Demand
from demixd.protocol.job import EngineFacts, Error
from demixd.protocol.options import Options
from demixd.protocol.progress import Tick
from demixd.supervisor import journal
from demixd.supervisor.workers.line import Died, Post, Said, StartWorker, Worker
from demixd.supervisor.workers.missing import MissingModels, pause_s
from demixd.supervisor.workers.missing_gpu import MissingGpu
from demixd.supervisor.workers.patience import Patience
from demixd.supervisor.workers.place import Place
from demixd.worker.messages import Fetching, Finished, Placed, Progressed, Ready, ToWorker, Tuning, Unready, Warm

log = logging.getLogger(__name__)

WARM_STALL_S = 900.0
"""Loading can be slow (a cold disk, a slow hub); this long without a word it is taken for hung."""

WITHOUT_GPU = "without-gpu"
NO_WORKER = "no-worker"


class Have(StrEnum):
    """Whether a model can be used."""

    READY = "ready"
    BUSY = "busy"
    """Something is being loaded; come back."""
    MISSING = "missing"


class WorkerManager:
    """One worker, whichever process it is at the moment, and the one model that is warm in it.

    `_demand` is what is asked of it now, `_default` what the configuration asks for before any song does.
    """

    def __init__(self, config: Config, post: Post, start: StartWorker, place: Place, missing: MissingModels) -> None:
        """`missing`: the models that could not be had, by any worker."""
        self._config, self.place = config, place
        self.is_retired = False
        """Whether it takes no more songs: there is no place for it any more."""
        self._demand = self._default = Demand.of(config.model.name, config.defaults.stems)
        self._is_outdated = False
        self._warm: Demand | None = None
        """What was demanded when that came which is warm now."""
        self._post, self._start_worker = post, start
        self.process: Worker | None = None
        self.state = "starting"
        self.host = ""
        """The machine that it is on, where a cluster has told it."""
        self.ready: Ready | None = None
        """What the worker last said of the engine that it has."""
        self._missing = missing
        self.message = ""
        self._retry_at = 0.0
        self._deaths = 0
        self._heard = 0.0
        self._gpu = MissingGpu()
        self._warm_since = self._heard_of_songs = 0.0
        self.patience = Patience()

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"worker {self.place.id}{self.host and f' on {self.host}'}"

    @property
    def engine(self) -> EngineFacts | None:
        """The facts of the engine that is warm."""
        return self.named(self.ready.engine) if self.ready else None

    def named(self, engine: EngineFacts) -> EngineFacts:
        """`engine`, as the one of this worker."""
        return msgspec.structs.replace(engine, worker=self.place.id, host=self.host or None)

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
    def lets_others_start(self) -> bool:
        """Whether it neither fetches a model nor makes it faster, which others would only do as well."""
        return self.state not in ("starting", "fetching", "tuning")

    @property
    def takes_songs(self) -> bool:
        return not self.is_retired and self.state != WITHOUT_GPU

    @property
    def is_outdated(self) -> bool:
        """Whether the warm model was demanded by a former configuration; `renew` ends that."""
        return self._is_outdated

    def reconfigure(self, config: Config, place: Place, now: float) -> None:
        """Go by another configuration. Missing models are asked for again, since they may be there now."""
        before = self._wanted
        self._config, self._default, self.place = config, Demand.of(config.model.name, config.defaults.stems), place
        if self._wanted != before:
            self._is_outdated = True
        self._missing.ask_at_once(now)

    def renew(self, now: float) -> None:
        """Start anew with the present configuration. Only while no song is in flight."""
        self._is_outdated = False
        self._demand = self._default
        if self.state == "asleep":
            return
        log.info("%s: begins anew, since the configuration of the model has changed", self.name)
        self._restart(now, "The configuration of the model has changed")

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

    def tick(self, now: float, *, busy: bool, may_start: bool = True) -> None:
        """Start the worker where there is none, ask again for what was missing, end an idle worker. `busy`: songs wait or run."""
        if self.state in ("starting", "fetching", "tuning") and self.process and now > self._heard + WARM_STALL_S:
            self.kill(now, "it was silent for too long while warming up")
        if busy:
            self._heard_of_songs = now
        elif self.is_ready or self.state == NO_WORKER:
            self._rest(now)
        if self.process is None and self.state != "asleep" and now >= self._retry_at and may_start:
            self._start(now)
        elif self.state == "missing-model" and not self._missing.lacks(self._demand, now):
            self._load(self._demand, now)

    def _start(self, now: float) -> None:
        """Start the process; where the machine has no room for it, try again later."""
        try:
            self.process = self._start_worker(self._post, self.place.threads)
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
            log.info("%s: %s", self.name, self.message)
        elif self._gpu.is_missed(self.ready, self.place) and now >= self._warm_since + self._gpu.pause_s:
            self._gpu.look()
            log.info("%s: begins anew, since the CPU stands in for a GPU that may be back", self.name)
            self._restart(now, "Looking for the GPU")

    def _wake(self, now: float) -> None:
        if self.state == "asleep":
            self.state, self.message, self._retry_at = "starting", "Waking up", now

    @property
    def _wanted(self) -> tuple[Warm, Demand, int | None]:
        """What a process has to be started anew for, if it is another; a share of the memory is not worth that."""
        order = Warm.of(self._config, self._default, self.place.device)
        return order, self._default, self.place.threads

    def _order(self, demand: Demand) -> Warm:
        return Warm.of(self._config, demand, self.place.device, self.place.shares)

    def _load(self, demand: Demand, now: float) -> None:
        """Have the worker load and warm what is demanded."""
        assert self.process is not None
        self._demand, self.state, self._heard = demand, "starting", now
        self.message = f"Loading {demand.model}"
        self.process.send(self._order(demand))

    def on_message(self, said: Said, now: float) -> None:
        """Take in a message about the worker itself, from the process that it is now."""
        assert self.process is not None
        self.process.heard()
        self._heard = now
        match said.message:
            case Fetching(message=message) if self.state in ("starting", "fetching"):
                self.state, self.message = "fetching", message
            case Placed():
                self._on_place(said.message)
            case Tuning(message=message) if self.state in ("starting", "fetching", "tuning"):
                self.state, self.message = "tuning", message
            case Ready() as ready:
                self._on_ready(ready, now)
                log.info("%s: %s (%.1f s)", self.name, self.message, ready.seconds)
            case Finished(gpu_peak_bytes=int() as gpu_peak_bytes) if self.ready is not None:
                self.ready = msgspec.structs.replace(self.ready, gpu_peak_bytes=gpu_peak_bytes)
            case Unready(error=error):
                if self.host:
                    error = msgspec.structs.replace(error, message=f"On {self.host}: {error.message}")
                if error.message != self._missing.why(self._demand):  # it is asked for again and again
                    log.warning("%s: %s", self.name, error.message)
                self._miss(error, now)
            case Progressed(at=Tick(segment_s=float() as segment_s)):
                self.patience.note(segment_s)
            case _:
                pass  # of the job, which is the runner's

    def _on_place(self, told: Placed) -> None:
        """A machine of the cluster has room for the worker, or none has."""
        self.host = told.host or ""
        if told.host is None:
            self.state, self.message = NO_WORKER, told.message
        elif self.state == NO_WORKER:
            self.state, self.message = "starting", f"Loading {self._demand.model} on {told.host}"

    def _on_ready(self, ready: Ready, now: float) -> None:
        """The worker is warm."""
        self._warm_since = now
        self._gpu.note(ready)
        self.state, self.ready, self._warm, self._deaths = "ready", ready, self._demand, 0
        self.patience = Patience()
        self._missing.found(self._demand)
        engine = ready.engine
        self.message = f"{engine.model} is warm on {engine.device_name} in {engine.precision}"
        if self.place.stays_empty and engine.device == "cpu":
            pause_s = self._gpu.pause_s
            self._gpu.look()
            self._drop(f"{self.place.device} is not available; it is looked for again in {pause_s:.0f} s")
            self.state, self._retry_at = WITHOUT_GPU, now + pause_s

    def _miss(self, error: Error, now: float) -> None:
        """The demanded model cannot be had; a model that was warm before still is."""
        self._missing.add(self._demand, error, now)
        self.message = error.message
        self.state = "missing-model" if self.ready is None else "ready"

    def on_death(self, died: Died, now: float) -> None:
        """Take in the death of the process that it is now."""
        self._log_death(f"{self.name}: {died.how}")
        # A machine that goes is followed by the next one; it is the cluster that waits for one.
        was_well = self.state in ("ready", NO_WORKER) or died.is_lost
        self._drop(died.how)
        if was_well:
            self._retry_at = now
        else:
            self._put_off(now)

    def kill(self, now: float, why: str) -> None:
        """End the process, which is of no use any more; the next `tick` starts another."""
        self._log_death(f"{self.name}: ended, since {why}")
        self._restart(now, why)

    def _restart(self, now: float, why: str) -> None:
        self._drop(why)
        self._retry_at = now

    def _log_death(self, sentence: str) -> None:
        log.warning(sentence, extra=journal.about_worker(self.device))

    def close(self) -> None:
        """End the worker for good."""
        self._drop("stopped")

    def _drop(self, why: str) -> None:
        if self.process:
            self.process.close()
            self.process = None
        self.state, self.message, self.ready = "dead", why, None


def _demand(options: Options) -> Demand:
    return Demand.of(options.model, options.stems)
