"""The workers, one for each device: `WorkerManager` looks after one of them, and here is what is true of all.

Where a model has to be fetched, or made faster once on a machine, the first worker does it; the others begin after that.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence

from demixd.config import Config
from demixd.protocol.options import Options
from demixd.protocol.status import JobName, WorkerStatus
from demixd.supervisor.workers.line import Died, Post, Said, StartWorker
from demixd.supervisor.workers.manager import NO_WORKER, WorkerManager
from demixd.supervisor.workers.missing import MissingModels
from demixd.supervisor.workers.place import Place, places
from demixd.worker.messages import Placed, Ready


class Pool:
    """All workers. They are told the time (monotonic, seconds)."""

    def __init__(self, config: Config, post: Post, start: StartWorker) -> None:
        self._config, self._post, self._start = config, post, start
        self._missing = MissingModels()
        self._gpus = 0
        self.members: list[WorkerManager] = []
        self._fit()

    def __iter__(self) -> Iterator[WorkerManager]:
        return iter(self.members)

    def _fit(self) -> tuple[Place, ...]:
        """Have a worker at each place that is wanted; those places."""
        wanted = places(self._config, self._gpus)
        for place in wanted[len(self.members) :]:
            self.members.append(WorkerManager(self._config, self._post, self._start, place, self._missing))
        return wanted

    @property
    def best(self) -> WorkerManager:
        """Who speaks for all where one is asked for: the first that is ready, else the first."""
        return next((each for each in self.members if each.is_ready), self.members[0])

    @property
    def devices(self) -> tuple[str | None, ...]:
        """The device of each worker that takes songs, beginning with the best's."""
        others = [each.device for each in self.members if each.takes_songs and each is not self.best]
        return (self.best.device, *others)

    @property
    def is_settled(self) -> bool:
        """Whether one is warm, or it is known of the first what keeps it from that."""
        return self.best.is_settled

    def why_missing(self, options: Options) -> str:
        """A sentence about why the model for a song cannot be had; empty where it can be, or was never asked for."""
        return self.best.why_missing(options)

    def reconfigure(self, config: Config, now: float) -> None:
        self._config = config
        wanted = self._fit()
        for number, member in enumerate(self.members):
            member.is_retired = number >= len(wanted)
            member.reconfigure(config, member.place if member.is_retired else wanted[number], now)

    def put_off(self, busy: set[str]) -> Iterator[str]:
        """A sentence for each worker that goes by the present configuration only once its songs, as one of `busy`, are over."""
        for member in self.members:
            if member.place.id in busy and (member.is_retired or member.is_outdated):
                what = "ends" if member.is_retired else "begins anew with the new configuration"
                yield f"{member.name}: {what} once its songs in flight are over, and takes no other before"

    def tick(self, now: float, *, busy: set[str], waiting: bool) -> None:
        """Start who is not there, ask for what was missing, end who is idle. `busy`: the places of those that have songs."""
        self._missing.look(self._config.repo or self._config.models, now)
        first = self.members[0]
        for member in list(self.members):
            has_song = member.place.id in busy
            if member.is_retired and not has_song:
                member.close()
                self.members.remove(member)
                continue
            if member.is_outdated and not has_song:
                member.renew(now)
            member.tick(now, busy=waiting or has_song, may_start=member is first or first.lets_others_start)

    def on_message(self, said: Said, now: float) -> WorkerManager | None:
        """Take in a message about a worker itself; the worker, None where it comes from a former process."""
        if (member := self._from(said)) is not None:
            member.on_message(said, now)
            if isinstance(said.message, Ready | Placed) and said.message.gpus > self._gpus:
                self._gpus = said.message.gpus
                self.reconfigure(self._config, now)
        return member

    def on_death(self, died: Died, now: float) -> WorkerManager | None:
        """Take in a worker's death; the worker, None where it is that of a former process."""
        if (member := self._from(died)) is not None:
            member.on_death(died, now)
        return member

    def _from(self, event: Said | Died) -> WorkerManager | None:
        return next((each for each in self.members if each.process and each.process.pid == event.pid), None)

    def status(self, in_flight: Mapping[str, Sequence[JobName]]) -> tuple[WorkerStatus, ...]:
        """What others see of the workers; `in_flight`: the songs of each, by its id."""
        return tuple(_status(member, tuple(in_flight.get(member.place.id, ()))) for member in self.members)

    def close(self) -> None:
        for member in self.members:
            member.close()


def _status(member: WorkerManager, in_flight: tuple[JobName, ...]) -> WorkerStatus:
    process, engine, ready = member.process, member.engine, member.ready
    return WorkerStatus(
        state=member.state,
        pid=process.pid if process and process.pid > 0 else None,
        message=member.message,
        model=engine.model if engine else None,
        device=engine.device if engine else None,
        device_name=engine.device_name if engine else None,
        precision=engine.precision if engine else None,
        fallback=engine.fallback if engine else None,
        runtime=engine.runtime if engine else None,
        batch=ready.batch if ready else None,
        memory_bytes=process.resident_bytes() if process else None,
        gpu_peak_bytes=ready.gpu_peak_bytes if ready else None,
        id=member.place.id,
        host="" if member.state == NO_WORKER else member.host or socket.gethostname(),
        in_flight=in_flight,
    )
