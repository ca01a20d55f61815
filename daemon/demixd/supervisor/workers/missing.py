"""The models that could not be had, and when each is asked for again. `now` is monotonic, in seconds."""

from pathlib import Path

import msgspec

from demixd.engine.models.catalog import Demand
from demixd.protocol.job import Error

RETRY_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""How long to wait before asking for a missing model again, or starting a worker that died while it warmed up."""


def pause_s(tries: int) -> float:
    """How long to wait after so many failed tries, in seconds."""
    return RETRY_S[min(tries, len(RETRY_S) - 1)]


class _Missing(msgspec.Struct, frozen=True, kw_only=True):
    error: Error
    tries: int
    ask_again: float


class MissingModels:
    """The models that could not be had, by what was demanded."""

    def __init__(self) -> None:
        self._known: dict[Demand, _Missing] = {}
        self._changed_ns: int | None = None
        """When the folder of models was last changed."""

    def look(self, folder: Path, now: float) -> None:
        """Have every missing model asked for again if something came into the folder of models, or went from it."""
        before, self._changed_ns = self._changed_ns, _changed_ns(folder)
        if before != self._changed_ns:
            self.ask_at_once(now)

    def add(self, demand: Demand, error: Error, now: float) -> None:
        """`demand` could not be met, once more."""
        known = self._known.get(demand)
        tries = known.tries if known else 0
        self._known[demand] = _Missing(error=error, tries=tries + 1, ask_again=now + pause_s(tries))

    def found(self, demand: Demand) -> None:
        self._known.pop(demand, None)

    def lacks(self, demand: Demand, now: float) -> bool:
        """Whether `demand` could not be met, and it is not time to ask again."""
        known = self._known.get(demand)
        return known is not None and now < known.ask_again

    def why(self, demand: Demand) -> str:
        """A sentence about why `demand` could not be met; empty where it could, or was never made."""
        known = self._known.get(demand)
        return known.error.message if known else ""

    def ask_at_once(self, now: float) -> None:
        """Have every missing model asked for again: it may be there now."""
        self._known = {each: msgspec.structs.replace(known, ask_again=now) for each, known in self._known.items()}


def _changed_ns(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None
