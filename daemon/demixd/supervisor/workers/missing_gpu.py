"""Whether a worker is on the CPU in place of a GPU, and when the GPU is looked for again."""

from demixd.supervisor.workers.place import Place
from demixd.worker.messages import Ready

RETRY_S = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""How long the CPU serves in place of a GPU that was lost before an idle worker is started anew to look for it."""


class MissingGpu:
    """What is known of the GPU of one worker."""

    def __init__(self) -> None:
        self._was_there = False
        self._tries = 0

    def note(self, ready: Ready) -> None:
        """A worker is warm."""
        if ready.engine.device.startswith("cuda"):
            self._was_there, self._tries = True, 0

    def is_missed(self, ready: Ready | None, place: Place) -> bool:
        """Whether the worker is on the CPU, though a GPU was asked for or was there before."""
        if ready is None or ready.engine.device != "cpu":
            return False
        return ready.on_stand_in or (self._was_there and place.device != "cpu")

    @property
    def pause_s(self) -> float:
        """How long to wait before it is looked for."""
        return RETRY_S[min(self._tries, len(RETRY_S) - 1)]

    def look(self) -> None:
        """It is being looked for."""
        self._tries += 1
