"""The other end of a WorkerManager: it says what a test wants, and keeps what it is told."""

from typing import Any

import pytest

from demixd import config
from demixd.protocol.job import EngineFacts
from demixd.protocol.options import Defaults
from demixd.supervisor.workers.manager import WorkerManager
from demixd.supervisor.workers.process import Died, Said
from demixd.worker.messages import Ready


class Worker:
    """The other end of a keeper: it says what a test wants, and the keeper's orders are in `sent`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **model: Any) -> None:
        self.sent: list[Any] = []
        self.started = 0
        monkeypatch.setattr("demixd.supervisor.workers.manager.WorkerProcess", self._start)
        self.keeper = WorkerManager(config.Config(model=config.Model(**model)), lambda _: None)

    def _start(self, _post: Any) -> "Worker":
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
        self.keeper.hear(Said(self.pid, Ready(engine=facts, sources=(), seconds=0.0, **more)), now)

    def die(self, now: float) -> None:
        self.keeper.bury(Died(self.pid, "killed"), now)


def options(model: str, *stems: str) -> Any:
    return Defaults(stems=stems or ("vocals",)).of(model, None)
