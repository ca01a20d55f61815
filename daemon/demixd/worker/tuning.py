"""Finds the fastest way to run a model, once on a machine, when the model is warmed up there for the first time.

    warm in torch --> converted for OpenVINO (a process of its own) --> every way measured, and recorded --> the fastest

Songs wait meanwhile, as they do while a model is fetched. Whatever fails here, torch serves.
"""

import contextlib
import logging
import time
from collections.abc import Callable

from demixd.engine.engine import Engine
from demixd.engine.openvino import autotune, cache, converter
from demixd.engine.openvino.autotune import Rules
from demixd.engine.openvino.cache import Conversion
from demixd.worker.messages import Warm

log = logging.getLogger(__name__)


def tuned(engine: Engine, order: Warm, tell: Callable[[str], None]) -> Engine:
    """`engine`, warmed up by `order`, or a faster one. `tell` gets a sentence for people whenever a step begins."""
    rules = autotune.rules(engine, order.device, order.precision, order.compiled)
    if rules is None:
        return engine
    cache.tidy(rules.root, time.time())
    if not autotune.is_due(engine, rules):
        return engine
    try:
        return _tuned(engine, order, rules, tell)
    except Exception as error:  # noqa: BLE001 - the boundary: OpenVINO and the disk fail as they please, and torch serves
        log.warning("%s stays with torch: %s: %s", engine.facts.model, type(error).__name__, error)
        with contextlib.suppress(OSError):  # a disk that cannot take this has not taken the conversion either
            cache.count_try(rules.root, cache.key(engine.facts.model_sha256), tries=cache.MAX_TRIES)
        return engine


def _tuned(engine: Engine, order: Warm, rules: Rules, tell: Callable[[str], None]) -> Engine:
    model, sha256 = order.where(engine.facts.model), engine.facts.model_sha256
    conversion = Conversion(model=model, sha256=sha256, folder=str(rules.root))
    if (reason := converter.reason_not(conversion, model.locate())) is not None:
        log.info("%s stays with torch: %s", engine.facts.model, reason)
        return engine
    seconds = autotune.seconds(engine, rules)
    sentence = (
        f"Finding the fastest way to run {engine.facts.model} on this machine, once; it takes about {seconds:.0f} s"
    )
    tell(sentence)
    cache.count_try(rules.root, cache.key(sha256))
    folder = converter.convert(conversion)
    tell(sentence)
    try:
        faster = autotune.tune(engine, rules)
    except ValueError:
        cache.discard(folder)
        raise
    cache.forget_tries(rules.root, cache.key(sha256))
    log.info("%s runs by %s in %s", faster.facts.model, faster.facts.runtime, faster.facts.precision)
    return faster
