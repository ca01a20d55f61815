"""What the worker does while it has no songs: it has the model converted for a faster runtime, and takes what wins.

songs wait --> nothing          none --> the conversion goes on (a process of its own, stopped while songs run)
                                     --> the race, given up as soon as a song comes, and run again later
"""

import logging
from collections.abc import Callable

from demixd.engine.engine import Engine
from demixd.engine.openvino import autotune
from demixd.engine.openvino.cache import Conversion
from demixd.engine.openvino.converter import Improver, State
from demixd.errors import StopProcessingError
from demixd.worker.messages import Warm

log = logging.getLogger(__name__)


class Tuning:
    """For one warm engine. `is_improving` until there is nothing left to find out."""

    def __init__(self, order: Warm, engine: Engine) -> None:
        self._order = order
        self._improver: Improver | None = None
        self._rules = autotune.rules(engine, order.device, order.precision, order.compiled)
        self.is_improving = self._rules is not None and autotune.is_due(engine, self._rules)

    def pause(self) -> None:
        """A song comes: it has the processor to itself."""
        if self._improver is not None:
            self._improver.pause()

    def step(self, engine: Engine, is_wanted: Callable[[], bool]) -> Engine:
        """Go on; the engine to use from now on. `is_wanted` says that an order has come."""
        assert self._rules is not None
        if self._improver is None:
            self._improver = Improver(self._conversion(engine))
            if (reason := self._improver.start()) is not None:
                self._end(reason)
            return engine
        self._improver.resume()
        match self._improver.poll():
            case State.RUNNING:
                return engine
            case State.FAILED:
                self._end(self._improver.reason)
                return engine

        def check() -> None:
            if is_wanted():
                raise StopProcessingError("a song comes first")

        try:
            engine = autotune.tune(engine, self._rules, check)
        except StopProcessingError:
            return engine
        self._end(f"{engine.facts.runtime} in {engine.facts.precision} is the fastest here")
        return engine

    def close(self) -> None:
        """Another model, or the end."""
        if self._improver is not None:
            self._improver.close()
        self.is_improving = False

    def _end(self, reason: str) -> None:
        log.info("%s", reason)
        self.close()

    def _conversion(self, engine: Engine) -> Conversion:
        facts = engine.facts
        return Conversion(
            model=self._order.where(facts.model), sha256=facts.model_sha256, folder=self._order.compiled or ""
        )
