"""From a model's name to a warm engine: find the model's files, or fetch them, load them, run the model once."""

from collections.abc import Callable
from pathlib import Path

from demixd.engine import device as devices
from demixd.engine.engine import Engine
from demixd.engine.families.demucs import LoadedModel, load
from demixd.engine.models.catalog import AUTO, PUBLISHED, Demand
from demixd.engine.models.fetch import fetch
from demixd.engine.openvino import converter, runtime
from demixd.errors import AudioProcessingError, Code, ModelTooLargeError
from demixd.worker.messages import Warm
from demixd.worker.tuning import recalled


def warm(order: Warm, tell: Callable[[str], None]) -> Engine:
    """The engine for `order`: with the first of the models that suit that can be had and fits into the GPU's memory.

    `tell` gets sentences for people while a model is fetched. Raises `AudioProcessingError` (MODEL_MISSING, BAD_MODEL ...).
    """
    names = Demand(model=order.model, wide=order.wide).candidates(devices.free_mib(order.device))
    too_large: list[str] = []
    for name in names:
        try:
            loaded = _load(name, order, tell)
        except AudioProcessingError as error:
            if order.model != AUTO or name == names[-1] or error.code is not Code.MODEL_MISSING:
                raise
            tell(f"{error.message} Trying the next best.")
            continue
        try:
            return _noted(_engine(loaded, name, order, order.device), too_large, name)
        except ModelTooLargeError:
            too_large.append(name)
    # None fits, since other programs have the GPU's memory: until that changes, the CPU runs the best of them.
    devices.give_back()
    engine = _noted(_engine(_load(names[0], order, tell), names[0], order, "cpu"), too_large, names[0])
    engine.on_stand_in = True
    return engine


def _load(name: str, order: Warm, tell: Callable[[str], None]) -> LoadedModel:
    try:
        files = order.where(name).locate()
    except AudioProcessingError as error:
        can_be_fetched = order.may_fetch and order.repo is None and name in PUBLISHED
        if error.code is not Code.MODEL_MISSING or not can_be_fetched:
            raise
        files = fetch(name, Path(order.models), progress=lambda at: tell(str(at)))
    return load(files, allow_pickle=order.allow_pickle)


def _engine(loaded: LoadedModel, name: str, order: Warm, device: str) -> Engine:
    engine = Engine.warm(
        loaded.model, name=name, sha256=loaded.sha256, device=device, precision=order.precision, batch=order.batch
    )
    if order.device == converter.GRAPHICS and not (converter.is_installed() and runtime.has_device("GPU")):
        return engine.with_fallback(f"{order.device} is not available on this machine; using the CPU")
    return recalled(engine, order)


def _noted(engine: Engine, too_large: list[str], name: str) -> Engine:
    """The engine, with a note and a warning for each model that the GPU could not hold."""
    for other in too_large:
        instead = f"{name} was used" if name != other else "the CPU was used"
        engine = engine.with_fallback(f"the GPU's memory does not hold {other}; {instead}")
        engine.warnings = (*engine.warnings, f"model-too-large: the GPU's memory does not hold {other}; {instead}.")
    return engine
