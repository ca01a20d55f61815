"""Which way to run a model is taken: only an accurate one, only a faster one, and at once at the next start."""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from demucs.apply import BagOfModels
from demucs.demucs import Demucs

from daemons import Daemon, make_song, running
from demixd.engine import cache, host
from demixd.engine.cache import Run
from demixd.engine.engine import Engine
from demixd.engine.models.store import Where
from demixd.engine.openvino import autotune, convert, converter, runtime
from demixd.engine.openvino.autotune import Rules
from demixd.worker.messages import Warm
from demixd.worker.tuning import tuned
from demixd.worker.warm import warm as warm_up
from processes import children, is_over
from separations import SOURCES, Reference, generated, nothing, ours, separated, short_bag, warm, worst

installed = pytest.mark.skipif(
    not converter.is_installed(),
    reason="no OpenVINO: pip install --require-hashes --no-deps -r config/requirements-openvino.lock",
)


NOWHERE = Where(name="test", repo=None, models="/nowhere", allow_pickle=False)


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
    best = autotune._fastest([run(*each) for each in runs], Rules(root=Path("/nowhere"), precision=precision))
    assert (best.precision if best else None) == winner


def test_graphics_win_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`openvino:GPU` is a wish, like a precision by its name."""
    runs = [run("torch", "float32", 0.5), run("openvino", "float16", 0.8), run("openvino", "float32", 0.9)]
    best = autotune._fastest(runs, Rules(root=Path("/nowhere"), precision="auto", target="GPU"))
    assert best is not None
    assert best.precision == "float16"


def test_when_a_model_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With OpenVINO, on a CPU, where the device is left to us; never for plain torch, a GPU, float16 or a model without core."""
    engine = warm(short_bag())
    monkeypatch.setattr(converter, "is_installed", lambda: True)
    root = str(tmp_path)
    assert autotune.rules(engine, "auto", "auto", root) is not None
    assert autotune.rules(engine, "cpu", "auto", root) is None
    assert autotune.rules(engine, "auto", "auto", None) is None
    assert autotune.rules(engine, "auto", "float16", root) is None
    monkeypatch.setattr(converter, "is_installed", lambda: False)
    assert autotune.rules(engine, "auto", "auto", root) is None
    monkeypatch.setattr(converter, "is_installed", lambda: True)
    engine.accelerated = True
    assert autotune.rules(engine, "auto", "auto", root) is None
    old = BagOfModels([Demucs(SOURCES, channels=4, depth=2, lstm_layers=0, segment=1)])
    assert autotune.rules(warm(old), "auto", "auto", root) is None


@pytest.fixture(scope="module")
def conversion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short bag, converted."""
    root = tmp_path_factory.mktemp("conversion")
    with cache.making(root, "made") as folder:
        convert.convert(list(short_bag().models), folder)
    return root / "made"


@pytest.fixture
def converted(conversion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, Rules]:
    """A warm engine whose model has been converted, on a processor that has no bfloat16."""
    monkeypatch.setattr(host, "has_bfloat16", lambda: False)
    engine = warm(short_bag())
    rules = Rules(root=tmp_path / "compiled", precision="auto")
    shutil.copytree(conversion, rules.root / cache.key(engine.facts.model_sha256))
    return engine, rules


def record(engine: Engine, rules: Rules, *runs: Run) -> None:
    folder = rules.root / cache.key(engine.facts.model_sha256)
    cache.write_runs(folder, runs, processor=autotune._machine(engine, rules), threads=host.threads())


@pytest.mark.daily
@installed
def test_the_winner_is_known_at_the_next_start(converted: tuple[Engine, Rules], tmp_path: Path) -> None:
    """A record and a conversion: the winner serves at once, and its stems are Demucs' own to 80 dB."""
    engine, rules = converted
    assert autotune.is_due(engine, rules)
    assert autotune.recall(engine, rules) is engine, "no record yet"
    record(engine, rules, run("torch", "float32", 2.0), run("openvino", "float32", 1.0))
    assert not autotune.is_due(engine, rules)
    faster = autotune.recall(engine, rules)
    assert (faster.facts.runtime, faster.facts.precision, faster.facts.fallback) == ("openvino", "float32", None)
    song = generated(3.7)
    stems, facts = separated(short_bag(), song, 44100, tmp_path, engine=faster)
    assert facts == faster.facts
    assert worst(Reference(short_bag()).separate_tensor(song)[1], stems) > 80
    record(engine, rules, run("torch", "float32", 1.0), run("openvino", "float32", 2.0))
    assert autotune.recall(engine, rules) is engine, "torch had won"


@installed
def test_every_way_is_measured(converted: tuple[Engine, Rules]) -> None:
    """Every way is in the record, and the engine is what the record says."""
    engine, rules = converted
    winner = autotune.tune(engine, rules, NOWHERE, nothing)
    runs = autotune._record(engine, rules)
    assert runs is not None
    assert [(each.runtime, each.precision, each.fault) for each in runs] == [
        ("torch", "float32", None),
        ("openvino", "float32", None),
    ]
    best = autotune._fastest(runs, rules)
    assert winner.facts.runtime == (best.runtime if best else "torch")
    assert not autotune.is_due(engine, rules)


@installed
@pytest.mark.parametrize("at", ["the first start", "the next start"])
def test_a_wrong_way_is_not_taken(
    at: str, converted: tuple[Engine, Rules], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fast and wrong: torch serves; where it has become wrong since it was measured, the sidecar says so."""
    engine, rules = converted
    right: Callable[..., Any] = runtime.Compiled.__call__

    def noise(self: Any, windows: torch.Tensor, check: Any) -> torch.Tensor:
        return torch.randn_like(right(self, windows, check))

    if at == "the next start":
        record(engine, rules, run("torch", "float32", 2.0), run("openvino", "float32", 1.0))
    monkeypatch.setattr(runtime.Compiled, "__call__", noise)
    if at == "the first start":
        assert autotune.tune(engine, rules, NOWHERE, nothing) is engine
        return
    chosen = autotune.recall(engine, rules)
    assert chosen.facts.runtime == "torch"
    assert "float32 by openvino is off by" in (chosen.facts.fallback or "")
    song = generated(2.0)
    expected = ours(short_bag(), song, 44100, tmp_path)
    stems = ours(short_bag(), song, 44100, tmp_path, engine=chosen)
    assert all(torch.equal(stems[name], expected[name]) for name in SOURCES)


@installed
def test_a_damaged_conversion_is_removed(converted: tuple[Engine, Rules]) -> None:
    """Torch serves, and the model is converted again."""
    engine, rules = converted
    record(engine, rules, run("torch", "float32", 2.0), run("openvino", "float32", 1.0))
    folder = cache.find(rules.root, cache.key(engine.facts.model_sha256))
    assert folder is not None
    (folder / "0.xml").write_text("<net>")
    assert autotune.recall(engine, rules).facts.runtime == "torch"
    assert not folder.exists()
    assert autotune.is_due(engine, rules)


def worker(daemon: Daemon) -> dict[str, Any]:
    told: dict[str, Any] = daemon.read("_daemon.json")["worker"]
    return told


def demo(folder: Path) -> Warm:
    """To warm up the demo model, and to tune it."""
    return Warm(
        model="demo", device="auto", models="/nowhere", repo=None, allow_pickle=False, compiled=str(folder / "compiled")
    )


@installed
def test_a_failed_conversion_is_not_tried_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch serves, and after a day it is tried again."""
    monkeypatch.setattr(converter, "PROGRAM", [sys.executable, "-c", "import sys; sys.exit('out of memory')"])
    order, told = demo(tmp_path), list[str]()
    engine = warm_up(order, told.append)
    key = cache.key(engine.facts.model_sha256)
    for _ in range(2):
        assert tuned(engine, order, told.append) is engine
    assert len(told) == 1
    assert told[0].startswith("Finding the fastest way to run demo on this machine, once; it takes about ")
    assert [path.name for path in (tmp_path / "compiled").iterdir()] == [f"{key}.tries"]
    assert cache.has_failed(tmp_path / "compiled", key, time.time())
    assert not cache.has_failed(tmp_path / "compiled", key, time.time() + cache.FAILED_S)


def test_what_is_interrupted_again_and_again_is_given_up(tmp_path: Path) -> None:
    """A process that does not live to see the end of its tries; a record ends the count."""
    for _ in range(cache.MAX_TRIES):
        assert not cache.has_failed(tmp_path, "one", time.time())
        cache.count_try(tmp_path, "one")
    assert cache.has_failed(tmp_path, "one", time.time())
    cache.forget_tries(tmp_path, "one")
    assert not cache.has_failed(tmp_path, "one", time.time())


@installed
def test_without_memory_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told and nothing is counted: the next start may have the memory."""
    monkeypatch.setattr(host, "room", lambda: 0)
    order, told = demo(tmp_path), list[str]()
    engine = warm_up(order, told.append)
    assert tuned(engine, order, told.append) is engine
    assert told == []
    assert not (tmp_path / "compiled").exists()


@pytest.mark.daily
@installed
def test_a_daemon_finds_the_fastest_once(tmp_path: Path) -> None:
    """A song waits meanwhile, is told why and how long, and is done in the fastest way; the next start knows it."""
    (tmp_path / "state").mkdir(0o700)  # without the conversion of another test
    with running(tmp_path, model={"name": "demo", "device": "auto"}) as daemon:
        daemon.until(lambda: worker(daemon)["state"] == "tuning", "tuning")
        make_song(daemon.inbox / "meanwhile.wav", 1.0)
        make_song(daemon.inbox / "next.wav", 1.0)
        daemon.until(lambda: "Finding" in daemon.song("next.wav").get("message", ""), "the reason")
        waiting = daemon.song("next.wav")
        assert (waiting["state"], waiting["reason"]) == ("waiting", "queued")
        assert waiting["message"] == worker(daemon)["message"]
        assert re.search(
            r"^Finding the fastest way to run demo on this machine, once; it takes about \d+ s$", waiting["message"]
        )
        songs = [daemon.final(name) for name in ("meanwhile.wav", "next.wav")]
        found = worker(daemon)
        assert [(song["state"], song["engine"]["runtime"]) for song in songs] == [("done", found["runtime"])] * 2
        (key,) = [path for path in (tmp_path / "state" / "compiled").iterdir() if path.is_dir()]
        assert (key / cache.RUNS).is_file()
        assert daemon.stop() == 0
        daemon.start().ready()
        again = worker(daemon)
        assert (again["state"], again["runtime"]) == ("ready", found["runtime"]), "known at once"


@pytest.mark.daily
@installed
def test_a_stop_ends_the_tuning(tmp_path: Path) -> None:
    """At once, with the process that converts; a cancel is obeyed meanwhile; nothing half-made counts or stays."""
    compiled = tmp_path / "state" / "compiled"
    compiled.parent.mkdir(0o700)  # without the conversion of another test
    with running(tmp_path, model={"name": "demo", "device": "auto"}) as daemon:
        daemon.until(lambda: list(compiled.glob(".*")), "a conversion that has begun")
        (converting,) = children(worker(daemon)["pid"])
        os.kill(converting, signal.SIGSTOP)  # it would end before the test does
        make_song(daemon.inbox / "song.wav", 1.0)
        daemon.until(lambda: daemon.song("song.wav").get("reason") == "queued", "waiting")
        (daemon.inbox / "song.wav.cancel").touch()
        assert daemon.final("song.wav")["state"] == "cancelled"
        assert worker(daemon)["state"] == "tuning"
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() < began + 5
        while not is_over(converting):
            assert time.monotonic() < began + 10
            time.sleep(0.01)
        assert not [path for path in compiled.iterdir() if path.is_dir() and not path.name.startswith(".")]
        daemon.start()
        daemon.until(lambda: worker(daemon)["state"] == "ready", "ready")
        assert [path.name for path in compiled.iterdir() if not path.is_dir()] == []
        assert len(list(compiled.iterdir())) == 1, "the conversion alone"


@pytest.mark.daily
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
