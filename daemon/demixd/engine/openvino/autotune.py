"""The fastest accurate way to run a model on this machine: torch, or OpenVINO in one of several precisions.

    conversion --> each precision, RUNS times on the test segments --> the fastest accurate one --> engine
                                        |
                                        +--> KEY/runs.json, which decides at every later start (`recall`)

OpenVINO takes torch's place only where it is clearly faster, so autotuning never makes anything slower. Where the
configuration names a precision or Intel's graphics, OpenVINO serves although torch in another precision is faster.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from demixd.engine import cache, host
from demixd.engine.cache import Conversion, Run
from demixd.engine.engine import Engine
from demixd.engine.families.demucs_core import can_split
from demixd.engine.models.store import Where
from demixd.engine.networks import Eager, Network
from demixd.engine.openvino import converter, runtime
from demixd.engine.openvino.converter import GRAPHICS
from demixd.engine.openvino.runtime import Compiled

log = logging.getLogger(__name__)

RUNS = 3
"""How often a network runs each test segment; the median time counts."""

FASTER = 0.95
"""OpenVINO has to need less than this share of torch's time: measured times vary."""

CONVERTING = (8.0, 6.0)
MEASURING = (2.0, 7.0)
"""How long each takes: seconds, and so many times the first run of the model in torch. For people, and measured roughly."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is STATE/compiled, `precision` the configuration's, `target` OpenVINO's `CPU` or `GPU`."""

    root: Path
    precision: str
    target: str = "CPU"

    @property
    def candidates(self) -> tuple[str, ...]:
        return precisions(self.precision, self.target, bfloat16=host.has_bfloat16())


def precisions(wanted: str, target: str, *, bfloat16: bool) -> tuple[str, ...]:
    """The precisions to try, the likely fastest first. `bfloat16`: the processor multiplies it."""
    fast = {"CPU": ("bfloat16",) if bfloat16 else (), "GPU": ("float16",)}[target]
    return tuple(each for each in (*fast, "float32") if wanted in ("auto", each))


def rules(engine: Engine, device: str, precision: str, compiled: str | None) -> Rules | None:
    """How to autotune `engine`, for the configuration's `device` and `precision`.

    None where only torch can serve: on a CUDA GPU, without OpenVINO or a folder `compiled`, for `device = "cpu"`, and for
    models that have no core.
    """
    if compiled is None or device not in ("auto", GRAPHICS) or engine.accelerated or not converter.is_installed():
        return None
    if not all(can_split(member) for member in engine.members):
        return None
    made = Rules(root=Path(compiled), precision=precision, target="GPU" if device == GRAPHICS else "CPU")
    return made if made.candidates and (made.target == "CPU" or runtime.has_device(made.target)) else None


def key(engine: Engine) -> str:
    """The KEY of the engine's model."""
    return cache.key(engine.facts.model_sha256)


def is_due(engine: Engine, rules: Rules) -> bool:
    """Whether there is no record for this machine yet, and to make one has not failed within a day."""
    return _record(engine, rules) is None and not cache.has_failed(rules.root, key(engine), time.time())


def seconds(engine: Engine, rules: Rules) -> float:
    """About how long it takes from here to the record: with CONVERTING, unless the conversion is there."""
    parts = [MEASURING]
    if cache.find(rules.root, key(engine)) is None:
        parts.append(CONVERTING)
    return sum(fixed + factor * engine.first_run_s for fixed, factor in parts)


def recall(engine: Engine, rules: Rules) -> Engine:
    """The engine with the networks that the record names, after one more check of their accuracy; else `engine`."""
    folder = cache.find(rules.root, key(engine))
    runs = _record(engine, rules)
    best = _fastest(runs, rules) if runs is not None else None
    if folder is None or best is None:
        return engine
    try:
        networks = build(engine.eager, folder, precision=best.precision, target=rules.target)
        faults = [each.fault for each in engine.measure(networks) if each.fault]
    except (ValueError, RuntimeError, ImportError) as error:
        log.warning("the converted model is removed: %s", error)
        cache.discard(folder)
        return engine
    return engine.with_fallback(f"{faults[0]}; it is not used") if faults else _with(engine, networks, rules)


def reason_not(engine: Engine, rules: Rules, model: Where) -> str | None:
    """Why it should not be begun; None where it may. `model` is where the engine's model is."""
    return converter.reason_not(_conversion(engine, rules, model), model.locate())


def tune(engine: Engine, rules: Rules, model: Where, tell: Callable[[], None]) -> Engine:
    """Convert the model, measure torch and every candidate, write the record, and take the fastest.

    `tell` is called after each long step: who is silent for long is given up.
    Raises `ConversionError`, and `ValueError` and `RuntimeError` where OpenVINO cannot use the conversion.
    """
    folder = converter.convert(_conversion(engine, rules, model))
    tell()
    runs = [engine.run(engine.networks, runs=RUNS)]
    found: dict[str, list[Network]] = {}
    try:
        for precision in rules.candidates:
            found[precision] = build(engine.eager, folder, precision=precision, target=rules.target)
            runs.append(engine.run(found[precision], runs=RUNS))
    except ValueError:
        cache.discard(folder)
        raise
    cache.write_runs(folder, tuple(runs), processor=_machine(engine, rules), threads=host.threads())
    best = _fastest(runs, rules)
    return _with(engine, found[best.precision], rules) if best is not None else engine


def build(eager: Sequence[Eager], folder: Path, *, precision: str, target: str = "CPU") -> list[Network]:
    """A network for every member, from the conversion in `folder`. `ValueError` where that cannot be used."""
    members = [each.member for each in eager]
    made: dict[int, Network] = {}
    for place in sorted({members.index(member) for member in members}):  # a bag may name a member twice
        made[place] = Compiled.load(
            eager[place],
            cache.core(folder, place),
            target=target,
            precision=precision,
            threads=host.threads(),
            cache=folder / cache.CACHE,
        )
    return [made[members.index(member)] for member in members]


def _record(engine: Engine, rules: Rules) -> tuple[Run, ...] | None:
    """The runs on record, if they have every candidate of today; else None."""
    folder = rules.root / key(engine)
    runs = cache.read_runs(folder, processor=_machine(engine, rules), threads=host.threads())
    measured = {run.precision for run in runs or () if run.runtime == "openvino"}
    return runs if runs and set(rules.candidates) <= measured else None


def _fastest(runs: Sequence[Run], rules: Rules) -> Run | None:
    """The candidate to use; None: torch, where no accurate candidate is clearly faster.

    Torch does not count where it cannot give the precision or the device that the configuration names.
    """
    usable = [
        run for run in runs if run.runtime == "openvino" and run.fault is None and run.precision in rules.candidates
    ]
    best = min(usable, key=lambda run: run.seconds, default=None)
    torch_s = [
        run.seconds
        for run in runs
        if run.runtime == "torch" and rules.target == "CPU" and rules.precision in ("auto", run.precision)
    ]
    return best if best is None or not torch_s or best.seconds < FASTER * min(torch_s) else None


def _with(engine: Engine, networks: list[Network], rules: Rules) -> Engine:
    return engine.with_networks(networks, device=GRAPHICS if rules.target == "GPU" else None)


def _conversion(engine: Engine, rules: Rules, model: Where) -> Conversion:
    return Conversion(model=model, sha256=engine.facts.model_sha256, folder=str(rules.root))


def _machine(engine: Engine, rules: Rules) -> str:
    return f"{engine.facts.device_name} {rules.target}"
