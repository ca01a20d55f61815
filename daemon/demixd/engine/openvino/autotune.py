"""Which way to run a model is the fastest here: torch as it is against all that OpenVINO offers, on the test segments.

    conversion --candidates--> proof of each, RUNS times --> the fastest that is right --> engine
                                        |
                                        +--> the record, by which the next start has the winner at once (`known`)

A candidate has to be clearly faster than what is there, so that nothing is ever made slower by this. Where a precision
is asked for by name, only it takes part.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from demixd.engine import accuracy, host
from demixd.engine.engine import Engine
from demixd.engine.networks import Check, Network
from demixd.engine.openvino import cache, runtime
from demixd.engine.openvino.cache import Run
from demixd.engine.openvino.candidates import build, precisions

log = logging.getLogger(__name__)

RUNS = 3
"""How often each candidate runs each test segment: the median counts."""

GRAPHICS = "openvino:GPU"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is STATE/compiled, `precision` the configuration's, `target` OpenVINO's `CPU` or `GPU`."""

    root: Path
    precision: str
    target: str = "CPU"

    @property
    def entrants(self) -> tuple[str, ...]:
        return precisions(self.precision, self.target, bfloat16=host.has_bfloat16())


def rules(engine: Engine, device: str, precision: str, compiled: str | None) -> Rules | None:
    """How to race for `engine`; None where there is nothing to race: a GPU, no OpenVINO, or plain torch is wanted."""
    wanted = compiled is not None and device in ("auto", GRAPHICS) and not engine.accelerated
    if not wanted or compiled is None or not runtime.is_installed():
        return None
    made = Rules(root=Path(compiled), precision=precision, target="GPU" if device == GRAPHICS else "CPU")
    return made if made.entrants and (made.target == "CPU" or runtime.has_device(made.target)) else None


def is_due(engine: Engine, rules: Rules) -> bool:
    """Whether it is not known yet which way is the fastest, or the winner's conversion is not there."""
    key = cache.key(engine.facts.model_sha256)
    if cache.reason_not(rules.root, key) is not None:
        return False
    runs = _record(engine, rules)
    if runs is None:
        return True
    return _winner(runs, rules) is not None and cache.find(rules.root, key) is None


def known(engine: Engine, rules: Rules) -> Engine:
    """The engine with what won a former race, proved again; or as it is."""
    folder = cache.find(rules.root, cache.key(engine.facts.model_sha256))
    runs = _record(engine, rules)
    best = _winner(runs, rules) if runs is not None else None
    if folder is None or best is None:
        return engine
    for networks in _built(engine, folder, rules, best.precision):
        faults = [verdict.fault for verdict in engine.judge(networks) if verdict.fault]
        return engine.but(f"{faults[0]}; it is not used") if faults else _with(engine, networks, rules)
    return engine


def race(engine: Engine, rules: Rules, check: Check) -> Engine:
    """Run it, write the record, and take the winner. `check` ends it by raising: then there is no record."""
    key = cache.key(engine.facts.model_sha256)
    folder = cache.find(rules.root, key)
    if folder is None:
        return engine
    runs = [_run(engine, engine.networks, check)]
    found: dict[str, list[Network]] = {}
    for precision in rules.entrants:
        for networks in _built(engine, folder, rules, precision):
            runs.append(_run(engine, networks, check))
            found[precision] = networks
    cache.write_race(rules.root, key, tuple(runs), processor=_where(engine, rules), threads=host.threads())
    for run in runs:
        log.info(
            "%s %s: %.3f s for a segment of each member, %s",
            run.runtime,
            run.precision,
            run.seconds,
            run.fault or "right",
        )
    best = _winner(runs, rules)
    return _with(engine, found[best.precision], rules) if best is not None else engine


def _built(engine: Engine, folder: Path, rules: Rules, precision: str) -> Sequence[list[Network]]:
    """The networks of one precision; none where the conversion cannot be used, which is thrown away then."""
    try:
        made = build(engine.eager, folder, wanted=precision, threads=host.threads(), target=rules.target)
        return [networks for _, networks in made]
    except (ValueError, RuntimeError, ImportError) as error:
        log.warning("the converted model is thrown away: %s", error)
        cache.discard(folder)
        return []


def _run(engine: Engine, networks: list[Network], check: Check) -> Run:
    verdicts = engine.judge(networks, runs=RUNS, check=check)
    error = max(verdict.error for verdict in verdicts)
    return Run(
        runtime=networks[0].runtime,
        precision=networks[0].precision,
        seconds=sum(verdict.seconds for verdict in verdicts),
        error=error if error < float("inf") else None,
        fault=next((verdict.fault for verdict in verdicts if verdict.fault), None),
    )


def _record(engine: Engine, rules: Rules) -> tuple[Run, ...] | None:
    """A former race with all that would take part now; None: there was none."""
    runs = cache.read_race(
        rules.root,
        cache.key(engine.facts.model_sha256),
        processor=_where(engine, rules),
        threads=host.threads(),
    )
    ran = {run.precision for run in runs or () if run.runtime == "openvino"}
    return runs if runs and set(rules.entrants) <= ran else None


def _winner(runs: Sequence[Run], rules: Rules) -> Run | None:
    """The entrant to use; None: what is there already, where no entrant is clearly faster.

    Torch is no rival where it could not give the precision or the device that was asked for by name.
    """
    right = [run for run in runs if run.runtime == "openvino" and run.fault is None and run.precision in rules.entrants]
    best = min(right, key=lambda run: run.seconds, default=None)
    rivals = [
        run.seconds
        for run in runs
        if run.runtime == "torch" and rules.target == "CPU" and rules.precision in ("auto", run.precision)
    ]
    return best if best is None or not rivals or best.seconds < accuracy.FASTER * min(rivals) else None


def _with(engine: Engine, networks: list[Network], rules: Rules) -> Engine:
    return engine.using(networks, device=GRAPHICS if rules.target == "GPU" else None)


def _where(engine: Engine, rules: Rules) -> str:
    return f"{engine.facts.device_name} {rules.target}"
