"""Whether a model that torch has compiled is faster on this GPU. The functions are those of `openvino.autotune`.

    compiled for the precision and batch of the engine --> RUNS times on the test segments --> the faster of the two
                                                                    |
                                                                    +--> KEY/runs.json, which decides at every later start

Compiling takes a minute or more, once: torch finds what it has compiled in KEY at every later start.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from demixd.engine import cache, host
from demixd.engine import device as devices
from demixd.engine.batch import SHARE
from demixd.engine.cache import Run
from demixd.engine.engine import Engine
from demixd.engine.families.demucs_core import can_split
from demixd.engine.inductor.runtime import RUNTIME, Compiled, Compiler, inductor, keep_caches_in
from demixd.engine.models.store import Where
from demixd.engine.networks import Network, Reduced, never

log = logging.getLogger(__name__)

RUNS = 5
"""The median counts: the first run compiles, and the second one records CUDA's graph."""

FASTER = 0.95
"""The compiled model has to need less than this share of the other's time: measured times vary."""

COMPILING_S = (90.0, 20.0)
"""How long the first member takes, and each other one, most of which is like the first. For people."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is STATE/compiled, `precision` and `batch` are the configuration's; `compiler` is torch's, or a test's."""

    root: Path
    precision: str = "auto"
    batch: int | str = "auto"
    compiler: Compiler = inductor

    def allows(self, run: Run) -> bool:
        """Whether this is a compiled model as the configuration wants it."""
        return (
            run.runtime == RUNTIME and self.precision in ("auto", run.precision) and self.batch in ("auto", run.batch)
        )


def rules(engine: Engine, precision: str, batch: int | str, compiled: str | None) -> Rules | None:
    """How to autotune `engine`; None on other devices than CUDA GPUs, without a folder `compiled`, and without a core.

    Also None without the programs that compile, which `demixd check` names.
    """
    if compiled is None or engine.device.type != "cuda" or host.lacks_for_compiling():
        return None
    if not all(can_split(member) for member in engine.members):
        return None
    return Rules(root=Path(compiled), precision=precision, batch=batch)


def key(engine: Engine) -> str:
    """The KEY of the engine's model."""
    return cache.key(engine.facts.model_sha256, cache.INDUCTOR)


def is_due(engine: Engine, rules: Rules) -> bool:
    """Whether there is no record for this GPU yet, and to make one has not failed within a day."""
    return _record(engine, rules) is None and not cache.has_failed(rules.root, key(engine), time.time())


def seconds(engine: Engine, _rules: Rules) -> float:
    """About how long it takes from here to the record."""
    first, other = COMPILING_S
    return first + other * (len(engine.members) - 1)


def reason_not(_engine: Engine, _rules: Rules, _model: Where) -> str | None:
    """Why it should not be begun: there is no reason."""
    return None


def recall(engine: Engine, rules: Rules) -> Engine:
    """The engine with the compiled networks that the record names, after one more check of their accuracy; else `engine`."""
    runs = _record(engine, rules)
    best = _fastest(runs, rules) if runs is not None else None
    if best is None:
        return engine
    folder = rules.root / key(engine)
    cache.use(folder)
    try:
        networks = _built(engine, rules, best.precision, best.batch, lambda: None)
        faults = [each.fault for each in engine.measure(networks, batch=best.batch) if each.fault]
    except torch.OutOfMemoryError as error:
        faults = [f"{best.precision} by {RUNTIME} needs more memory than there is ({error})"]
    except Exception as error:  # noqa: BLE001 - the boundary: a compiler fails as it pleases, and what it left may be damaged
        faults = [f"{best.precision} by {RUNTIME} failed at warm-up ({type(error).__name__}: {error})"]
        with contextlib.suppress(OSError):
            cache.discard(folder)
    if not faults:
        return _with(engine, networks, best.batch)
    networks = []
    _forget_graphs()
    log.warning("%s: %s", engine.facts.model, faults[0])
    return engine.with_fallback(f"{faults[0].splitlines()[0]}; it is not used")


def tune(engine: Engine, rules: Rules, _model: Where, tell: Callable[[], None]) -> Engine:
    """Compile the model, measure it against the engine as it is, write the record, and take the faster one.

    `tell` is called after each long step: who is silent for long is given up. Raises whatever the compiler raises.
    """
    folder = cache.private(rules.root / key(engine))
    before = engine.run(engine.networks, runs=RUNS, batch=engine.batch)
    networks, batch = _largest(engine, rules, tell)
    after = engine.run(networks, runs=RUNS, batch=batch)
    cache.write_runs(folder, (before, after), processor=engine.facts.device_name, threads=0)
    if _fastest((before, after), rules) is not None:
        return _with(engine, networks, batch)
    networks = []
    _forget_graphs()
    return engine


def _largest(engine: Engine, rules: Rules, tell: Callable[[], None]) -> tuple[list[Network], int]:
    """The compiled networks in the engine's precision, and their batch: the engine's, or the next smaller that fits."""
    batch = engine.batch
    while True:
        try:
            return _built(engine, rules, engine.facts.precision, batch, tell), batch
        except torch.OutOfMemoryError:
            if batch == 1 or rules.batch != "auto":
                raise
        _forget_graphs()  # after the handler: its exception holds memory
        batch //= 2


def _built(engine: Engine, rules: Rules, precision: str, batch: int, tell: Callable[[], None]) -> list[Network]:
    """A compiled network for every member, which has run.

    Graphs keep their memory for good, which therefore counts as a batch's does: raises `torch.OutOfMemoryError` where it
    is more than its share, and whatever the compiler raises.
    """
    keep_caches_in(cache.private(rules.root / key(engine)))
    free = devices.unreserved_bytes(engine.device)
    members = engine.members
    made: dict[int, Network] = {}
    for place in sorted({members.index(member) for member in members}):  # a bag may name a member twice
        made[place] = network = _compiled(engine, rules, place, precision, batch)
        for _ in range(2):  # it is compiled in the first run, and CUDA records the second one
            network(engine.segment(place).expand(batch, -1, -1), never)
        tell()
    taken = free - devices.unreserved_bytes(engine.device)
    if taken > SHARE * free:
        raise torch.OutOfMemoryError(f"{batch} segments at once take {taken >> 20} of {free >> 20} MiB")
    return [made[members.index(member)] for member in members]


def _compiled(engine: Engine, rules: Rules, place: int, precision: str, batch: int) -> Compiled:
    """The member at `place` in the bag; its network in the engine is taken where that has the precision."""
    inner = engine.networks[place]
    if not (isinstance(inner, Reduced) and inner.precision == precision):
        inner = Reduced(engine.members[place], engine.device, precision)
    return Compiled(inner, engine.segment(place), batch, rules.compiler)


def _record(engine: Engine, rules: Rules) -> tuple[Run, ...] | None:
    """The runs on record, if the wanted one is among them; else None."""
    runs = cache.read_runs(rules.root / key(engine), processor=engine.facts.device_name, threads=0)
    return runs if runs and any(rules.allows(run) for run in runs) else None


def _fastest(runs: tuple[Run, ...], rules: Rules) -> Run | None:
    """The compiled way, where it is right and clearly faster; else None."""
    best = min(
        (run for run in runs if rules.allows(run) and run.fault is None), key=lambda run: run.seconds, default=None
    )
    others = [run.seconds for run in runs if run.runtime != RUNTIME]
    return best if best is not None and all(best.seconds < FASTER * each for each in others) else None


def _with(engine: Engine, networks: list[Network], batch: int) -> Engine:
    other = engine.with_networks(networks)
    other.batch = batch
    return other


def _forget_graphs() -> None:
    """Give back the memory of graphs that nobody uses; a graph in use would be compiled again."""
    torch.compiler.reset()
    devices.give_back()
