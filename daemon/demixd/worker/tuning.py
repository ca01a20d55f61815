"""Finds the fastest way to run a model, once on a machine, when the model is warmed up there for the first time.

    CPU   warm in torch --> converted for OpenVINO (a process of its own) --> every way measured, and recorded --> the fastest
    GPU   warm in torch --> compiled by torch ------------------------------> measured, and recorded -----------> the faster

Songs wait meanwhile, as they do while a model is fetched. Whatever fails here, torch serves as it is.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from demixd.engine import cache
from demixd.engine.engine import Engine
from demixd.engine.inductor import autotune as inductor
from demixd.engine.openvino import autotune as openvino
from demixd.worker.messages import Warm

log = logging.getLogger(__name__)

Tuner = tuple[ModuleType, Any]
"""`openvino.autotune` or `inductor.autotune`, and its rules.

Both have `key`, `is_due`, `seconds`, `reason_not`, `tune` and `recall`.
"""


def tuner_for(engine: Engine, order: Warm) -> Tuner | None:
    """What can make `engine`, warmed up by `order`, faster; None where nothing can."""
    if engine.accelerated:
        rules: Any = inductor.rules(engine, order.precision, order.batch, order.compiled)
        return (inductor, rules) if rules is not None else None
    rules = openvino.rules(engine, order.device, order.precision, order.compiled)
    return (openvino, rules) if rules is not None else None


def recalled(engine: Engine, order: Warm) -> Engine:
    """`engine`, or the faster one that was found at a former start."""
    tuner = tuner_for(engine, order)
    if tuner is None:
        return engine
    faster: Engine = tuner[0].recall(engine, tuner[1])
    return faster


def tuned(engine: Engine, order: Warm, tell: Callable[[str], None], tuner: Tuner | None = None) -> Engine:
    """`engine`, warmed up by `order`, or a faster one. `tell` gets a sentence for people, again and again.

    `tuner` is what the device has, unless it is given.
    """
    tuner = tuner or tuner_for(engine, order)
    if tuner is None:
        return engine
    module, rules = tuner
    cache.tidy(rules.root, time.time())
    if not module.is_due(engine, rules):
        return engine
    try:
        return _tuned(engine, order, tuner, tell)
    except Exception as error:  # noqa: BLE001 - the boundary: compilers and the disk fail as they please, and torch serves
        log.warning("%s stays with torch: %s: %s", engine.facts.model, type(error).__name__, error)
        with contextlib.suppress(OSError):  # a disk that cannot take this has not taken what was made either
            cache.count_try(rules.root, module.key(engine), tries=cache.MAX_TRIES)
        return engine


def _tuned(engine: Engine, order: Warm, tuner: Tuner, tell: Callable[[str], None]) -> Engine:
    (module, rules), model = tuner, order.where(engine.facts.model)
    if (reason := module.reason_not(engine, rules, model)) is not None:
        log.info("%s stays with torch: %s", engine.facts.model, reason)
        return engine
    seconds = module.seconds(engine, rules)
    sentence = (
        f"Finding the fastest way to run {engine.facts.model} on this machine, once; it takes about {seconds:.0f} s"
    )
    tell(sentence)
    cache.count_try(rules.root, module.key(engine))
    faster: Engine = module.tune(engine, rules, model, lambda: tell(sentence))
    cache.forget_tries(rules.root, module.key(engine))
    log.info("%s runs by %s in %s", faster.facts.model, faster.facts.runtime, faster.facts.precision)
    return faster
