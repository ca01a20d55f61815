"""Which way of running a model is taken: only what is right, only what is faster, and at once at the next start."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from daemons import make_song, running
from demixd.engine import host
from demixd.engine.engine import Engine
from demixd.engine.openvino import autotune, cache, convert
from demixd.engine.openvino import runtime as openvino
from demixd.engine.openvino.autotune import Rules
from demixd.engine.openvino.cache import Run
from demixd.errors import StopProcessingError
from separations import SOURCES, Reference, generated, ours, separated, short_bag, warm, worst

installed = pytest.mark.skipif(
    not openvino.is_installed(),
    reason="no OpenVINO: pip install --require-hashes --no-deps -r config/requirements-openvino.lock",
)


def run(runtime: str, precision: str, seconds: float, fault: str | None = None) -> Run:
    return Run(runtime=runtime, precision=precision, seconds=seconds, error=0.0, fault=fault)


@pytest.mark.parametrize(
    ("precision", "runs", "winner"),
    [
        ("auto", [("torch", "float32", 2.0), ("openvino", "float32", 1.5), ("openvino", "bfloat16", 0.8)], "bfloat16"),
        ("float32", [("torch", "float32", 2.0), ("openvino", "float32", 1.5)], "float32"),
        ("auto", [("torch", "float32", 2.0), ("openvino", "float32", 1.95)], None),
        ("auto", [("torch", "float32", 2.0), ("openvino", "float32", 1.0, "off")], None),
        ("bfloat16", [("torch", "float32", 0.5), ("openvino", "bfloat16", 0.8)], "bfloat16"),
        ("bfloat16", [("torch", "bfloat16", 0.5), ("openvino", "bfloat16", 0.8)], None),
    ],
    ids=["the fastest", "of float32", "hardly faster", "wrong", "asked for by name", "torch has it too"],
)
def test_who_wins(precision: str, runs: list[Any], winner: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest that is right and clearly faster than torch; what is asked for by name need not be faster."""
    monkeypatch.setattr(host, "has_bfloat16", lambda: True)
    best = autotune._winner([run(*each) for each in runs], Rules(root=Path("/nowhere"), precision=precision))
    assert (best.precision if best else None) == winner


def test_graphics_win_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`openvino:GPU` is a wish, like a precision by its name."""
    runs = [run("torch", "float32", 0.5), run("openvino", "float16", 0.8), run("openvino", "float32", 0.9)]
    best = autotune._winner(runs, Rules(root=Path("/nowhere"), precision="auto", target="GPU"))
    assert best is not None
    assert best.precision == "float16"


def test_when_there_is_a_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With OpenVINO, on a CPU, where the device is left to us; never for plain torch, a GPU or float16."""
    engine = warm(short_bag())
    monkeypatch.setattr(openvino, "is_installed", lambda: True)
    root = str(tmp_path)
    assert autotune.rules(engine, "auto", "auto", root) is not None
    assert autotune.rules(engine, "cpu", "auto", root) is None
    assert autotune.rules(engine, "auto", "auto", None) is None
    assert autotune.rules(engine, "auto", "float16", root) is None
    monkeypatch.setattr(openvino, "is_installed", lambda: False)
    assert autotune.rules(engine, "auto", "auto", root) is None
    monkeypatch.setattr(openvino, "is_installed", lambda: True)
    engine.accelerated = True
    assert autotune.rules(engine, "auto", "auto", root) is None


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, Rules]:
    """A warm engine whose model has been converted, on a processor that has no bfloat16."""
    monkeypatch.setattr(host, "has_bfloat16", lambda: False)
    engine = warm(short_bag())
    rules = Rules(root=tmp_path / "compiled", precision="auto")
    with cache.making(rules.root, cache.key(engine.facts.model_sha256)) as folder:
        convert.convert(list(short_bag().models), folder)
    return engine, rules


def record(engine: Engine, rules: Rules, *runs: Run) -> None:
    cache.write_race(
        rules.root,
        cache.key(engine.facts.model_sha256),
        runs,
        processor=autotune._where(engine, rules),
        threads=host.threads(),
    )


def never() -> None:
    """Nobody wants to stop."""


@installed
def test_the_winner_is_known_at_the_next_start(converted: tuple[Engine, Rules], tmp_path: Path) -> None:
    """A record and a conversion: the winner serves at once, and its stems are Demucs' own to 80 dB."""
    engine, rules = converted
    assert autotune.is_due(engine, rules)
    assert autotune.known(engine, rules) is engine, "no record yet"
    record(engine, rules, run("torch", "float32", 2.0), run("openvino", "float32", 1.0))
    assert not autotune.is_due(engine, rules)
    faster = autotune.known(engine, rules)
    assert (faster.facts.runtime, faster.facts.precision, faster.facts.fallback) == ("openvino", "float32", None)
    song = generated(3.7)
    stems, facts = separated(short_bag(), song, 44100, tmp_path, engine=faster)
    assert facts == faster.facts
    assert worst(Reference(short_bag()).separate_tensor(song)[1], stems) > 80
    record(engine, rules, run("torch", "float32", 1.0), run("openvino", "float32", 2.0))
    assert autotune.known(engine, rules) is engine, "torch had won"


@installed
def test_the_race_itself(converted: tuple[Engine, Rules]) -> None:
    """Everyone who takes part is in the record, and the engine is what the record says."""
    engine, rules = converted
    winner = autotune.race(engine, rules, never)
    runs = autotune._record(engine, rules)
    assert runs is not None
    assert [(each.runtime, each.precision, each.fault) for each in runs] == [
        ("torch", "float32", None),
        ("openvino", "float32", None),
    ]
    best = autotune._winner(runs, rules)
    assert winner.facts.runtime == (best.runtime if best else "torch")
    assert not autotune.is_due(engine, rules)


@installed
def test_a_song_ends_the_race(converted: tuple[Engine, Rules]) -> None:
    """It is given up at once, leaves no record, and is due again."""
    engine, rules = converted
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise StopProcessingError("a song comes first")

    with pytest.raises(StopProcessingError):
        autotune.race(engine, rules, check)
    assert autotune.is_due(engine, rules)


@installed
@pytest.mark.parametrize("at", ["the race", "the next start"])
def test_a_wrong_way_is_not_taken(
    at: str, converted: tuple[Engine, Rules], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fast and wrong: it loses the race; and if it has become wrong since, torch serves, and the sidecar says why."""
    engine, rules = converted
    right: Callable[..., Any] = openvino.Compiled.__call__

    def noise(self: Any, windows: torch.Tensor, check: Any) -> torch.Tensor:
        return torch.randn_like(right(self, windows, check))

    if at == "the next start":
        record(engine, rules, run("torch", "float32", 2.0), run("openvino", "float32", 1.0))
    monkeypatch.setattr(openvino.Compiled, "__call__", noise)
    if at == "the race":
        assert autotune.race(engine, rules, never) is engine
        return
    chosen = autotune.known(engine, rules)
    assert chosen.facts.runtime == "torch"
    assert "float32 by openvino is off by" in (chosen.facts.fallback or "")
    song = generated(2.0)
    expected = ours(short_bag(), song, 44100, tmp_path)
    stems = ours(short_bag(), song, 44100, tmp_path, engine=chosen)
    assert all(torch.equal(stems[name], expected[name]) for name in SOURCES)


@installed
def test_a_damaged_conversion_is_thrown_away(converted: tuple[Engine, Rules]) -> None:
    """Torch serves, and the model is converted again."""
    engine, rules = converted
    record(engine, rules, run("torch", "float32", 2.0), run("openvino", "float32", 1.0))
    folder = cache.find(rules.root, cache.key(engine.facts.model_sha256))
    assert folder is not None
    (folder / "0.xml").write_text("<net>")
    assert autotune.known(engine, rules).facts.runtime == "torch"
    assert not folder.exists()
    assert autotune.is_due(engine, rules)


@installed
def test_an_idle_daemon_finds_the_fastest(tmp_path: Path) -> None:
    """A real daemon: ready in torch, then idle, then as fast as it gets; a song meanwhile is done all the same."""
    with running(tmp_path, model={"name": "demo", "device": "auto"}) as daemon:
        facts = daemon.read("_daemon.json")["worker"]
        assert (facts["runtime"], facts["improving"]) == ("torch", True)
        make_song(daemon.inbox / "meanwhile.wav", 1.0)
        assert daemon.final("meanwhile.wav")["engine"]["precision"] == "float32"
        daemon.until(lambda: not daemon.read("_daemon.json")["worker"]["improving"], "the race is over")
        found = daemon.read("_daemon.json")["worker"]
        make_song(daemon.inbox / "after.wav", 1.0)
        after = daemon.final("after.wav")
        assert after["state"] == "done"
        assert after["engine"]["runtime"] == found["runtime"]
        assert daemon.stop() == 0
        daemon.start().ready()
        again = daemon.read("_daemon.json")["worker"]
        assert (again["runtime"], again["improving"]) == (found["runtime"], False), "known at once"


def test_a_lost_gpu_ends_the_worker(tmp_path: Path) -> None:
    """A CUDA error that sticks ends the worker, not the daemon: the song is tried again by the next, and is done."""
    launch = tmp_path / "lost.py"
    launch.write_text(LOST.format(flag=str(tmp_path / "was lost")))
    with running(tmp_path) as daemon:
        assert daemon.stop() == 0
        daemon.constants["demixd.supervisor.workers.process:PROGRAM"] = [sys.executable, str(launch)]
        daemon.start().ready()
        pid = daemon.read("_daemon.json")["worker"]["pid"]
        make_song(daemon.inbox / "song.wav", 1.0)
        song = daemon.final("song.wav")
        assert (song["state"], song["attempt"]) == ("done", 2)
        assert daemon.read("_daemon.json")["worker"]["pid"] != pid
        assert "does not answer any more (CUDA error: unspecified launch failure)" in daemon.log.read_text()
        assert "it ended with status 75" in daemon.log.read_text()


LOST = """
from pathlib import Path
from demixd.engine import device
from demixd.engine.engine import Engine
from demixd.engine.separation import Separation
from demixd.worker import __main__ as worker

# The first song on a GPU, as it seems, fails with an error that sticks.
right = Separation.blocks
flag = Path("{flag}")

def blocks(self):
    if not flag.exists():
        flag.touch()
        self._engine.accelerated = True
        raise RuntimeError("CUDA error: unspecified launch failure")
    yield from right(self)

Separation.blocks = blocks
device.answers = lambda _: False
worker.main()
"""
