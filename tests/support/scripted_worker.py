"""The other end of a WorkerManager: it says what a test wants, and keeps what it is told."""

from typing import Any

from demixd import config
from demixd.config.sections import Model
from demixd.protocol.job import EngineFacts
from demixd.protocol.options import Defaults
from demixd.supervisor.workers.line import Died, Said
from demixd.supervisor.workers.manager import WorkerManager
from demixd.supervisor.workers.missing import MissingModels
from demixd.supervisor.workers.place import places
from demixd.worker.messages import Ready


class Worker:
    """The other end of a manager: it says what a test wants, and the manager's orders are in `sent`."""

    def __init__(self, **model: Any) -> None:
        self.sent: list[Any] = []
        self.started = 0
        settings = config.Config(model=Model(**model))
        (self.place,) = places(settings, 0)
        self.manager = WorkerManager(settings, lambda _: None, self._start, self.place, MissingModels())

    def _start(self, post: Any, threads: int | None = None) -> "Worker":
        self.post, self.threads = post, threads
        self.started += 1
        self.pid = 1000 + self.started
        return self

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def heard(self) -> None:
        """There is room for any number of lines."""

    def resident_bytes(self) -> int:
        return 1

    def close(self) -> None:
        """Nothing is left to end."""

    def ready(self, now: float, device: str = "cpu", model: str = "htdemucs", **more: Any) -> None:
        facts = EngineFacts(model=model, model_sha256="0", device=device, device_name="x", precision="float32")
        self.manager.on_message(Said(self.pid, Ready(engine=facts, sources=(), seconds=0.0, **more)), now)

    def die(self, now: float) -> None:
        self.manager.on_death(Died(self.pid, "killed"), now)


def options(model: str, *stems: str) -> Any:
    return Defaults(stems=stems or ("vocals",)).of(model, None)
