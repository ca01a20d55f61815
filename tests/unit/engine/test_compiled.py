"""A network that torch compiles: the same sound, found once on a machine, and never in the way of a song.

There is no GPU here. What compiles is an argument: mostly nothing, so that the graph that was traced runs as it is; one test
has torch's own compiler, which takes a minute on a CPU.
"""

import os
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from demucs.apply import BagOfModels
from demucs.hdemucs import HDemucs
from torch.fx.experimental.proxy_tensor import make_fx

from demixd.engine import cache, device, host
from demixd.engine.engine import Engine
from demixd.engine.families.demucs_core import Core, bare, keep_positions
from demixd.engine.inductor import autotune, runtime
from demixd.engine.inductor.autotune import Rules
from demixd.engine.inductor.runtime import RUNTIME, Compiled
from demixd.engine.networks import Reduced, never
from demixd.worker.messages import Warm
from demixd.worker.tuning import tuned
from processes import children
from separations import SMALL, SOURCES, Reference, generated, htdemucs, loud, ours, separated, short_bag, warm, worst

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's compiler imports it

ORDER = Warm(model="demo", device="auto", models="/nowhere", repo=None, allow_pickle=False)


def tiny_bag() -> BagOfModels:
    """Of one member, with few layers: they take long to trace."""
    small = {**SMALL, "depth": 2, "dconv_depth": 1, "nfft": 512}
    return BagOfModels([htdemucs(1, segment=Fraction(39, 160), **small)])


def as_it_is(graph: torch.nn.Module) -> Any:
    """A compiler that does nothing."""
    return graph


def compiled(engine: Engine, batch: int) -> Engine:
    """The engine with compiled networks in float32."""
    networks = [
        Compiled(Reduced(member, engine.device, "float32"), engine.segment(place), batch, as_it_is)
        for place, member in enumerate(engine.members)
    ]
    other = engine.with_networks(networks)
    other.batch = batch
    return other


@pytest.fixture(autouse=True)
def _caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a test sets of the environment is gone after it."""
    for variable in runtime.CACHES:
        monkeypatch.setenv(variable, str(tmp_path / "before"))


# ---- the sound


@pytest.mark.parametrize("seconds", [0.1, 0.93], ids=["shorter than a segment", "longer"])
@pytest.mark.parametrize("batch", [1, 4])
def test_equals_demucs(batch: int, seconds: float, tmp_path: Path) -> None:
    """A compiled network in float32 has Demucs' sound, and a last batch that is padded has it too."""
    bag, song = tiny_bag(), generated(seconds)
    stems, facts = separated(bag, song, 44100, tmp_path, engine=compiled(warm(bag), batch))
    assert (facts.runtime, facts.fallback) == (RUNTIME, None)
    assert worst(Reference(bag).separate_tensor(song)[1], stems) > 80


def test_one_shape_is_enough(tmp_path: Path) -> None:
    """Whatever the song's length, the graph is called with the batch that it was made for; half a batch does without it."""
    bag = tiny_bag()
    engine = compiled(warm(bag), 4)
    network = engine.networks[0]
    assert isinstance(network, Compiled)
    graph, shapes = network._core, set()

    def watched(*tensors: torch.Tensor) -> Any:
        shapes.add(tuple(tensor.shape[0] for tensor in tensors))
        return graph(*tensors)

    network._core = watched
    for seconds in (0.1, 0.5, 0.93, 1.1):
        ours(bag, generated(seconds), 44100, tmp_path, engine=engine)
    assert shapes == {(4, 4)}
    network._core = None
    assert network(engine.segment(0), never).shape[0] == 1


def test_windows_of_another_length(tmp_path: Path) -> None:
    """HDemucs takes shorter windows at the end of a song, which are not compiled."""
    torch.manual_seed(3)
    bag = BagOfModels([loud(HDemucs(sources=SOURCES, channels=4, depth=6, nfft=4096, segment=1))])
    song = generated(2.6)
    stems = ours(bag, song, 44100, tmp_path, engine=compiled(warm(bag), 2))
    assert worst(Reference(bag).separate_tensor(song)[1], stems) > 80


def test_out_of_memory_is_done_without_the_graph(tmp_path: Path) -> None:
    """The rest of the song is done in half the batch, which is not padded and takes half the memory, in the same precision."""
    bag, song = tiny_bag(), generated(0.93)
    engine = compiled(warm(bag), 4)
    engine.accelerated = True
    expected = ours(bag, song, 44100, tmp_path)

    def fails(*_: torch.Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine.networks[0]._core = fails  # type: ignore[attr-defined]
    stems, facts = separated(bag, song, 44100, tmp_path, engine=engine)
    assert facts.fallback == "out of memory with 4 segments at once; 2 from then on"
    assert all(torch.allclose(stems[name], expected[name], atol=1e-5) for name in SOURCES)


def test_an_error_of_the_graph_is_done_in_float32(tmp_path: Path) -> None:
    """This song alone is done by the simplest engine."""
    bag = tiny_bag()
    engine = compiled(warm(bag), 2)

    def fails(*_: torch.Tensor) -> Any:
        raise RuntimeError("a kernel has failed")

    engine.networks[0]._core = fails  # type: ignore[attr-defined]
    _, facts = separated(bag, generated(0.5), 44100, tmp_path, engine=engine)
    assert (facts.runtime, facts.precision) == ("torch", "float32")
    assert "this song was done in float32" in (facts.fallback or "")


@pytest.mark.parametrize("kind", ["as it comes", "kept"])
def test_position_embeddings_do_not_come_from_the_cpu(kind: str) -> None:
    """Demucs makes them on the CPU for every batch, which no CUDA graph can hold: they are made once."""
    member = bare(short_bag().models[0])
    core = Core(member) if kind == "kept" else _without(Core(member))
    core = core.to("meta")
    spectrogram, windows = torch.zeros(2, 4, 2048, 42, device="meta"), torch.zeros(2, 2, 42997, device="meta")
    with torch.no_grad():
        core(spectrogram, windows)
        graph = make_fx(core)(spectrogram, windows)
    made = {str(node.kwargs["device"]) for node in graph.graph.nodes if "device" in node.kwargs}
    assert made == ({"meta"} if kind == "kept" else {"meta", "cpu"})


def _without(core: Core) -> Core:
    """As Demucs has it."""
    del core.member.crosstransformer.forward
    return core


def test_kept_positions_are_those_of_demucs() -> None:
    """For each shape its own."""
    member = bare(short_bag().models[0]).crosstransformer
    mine = bare(short_bag().models[0])
    keep_positions(mine)
    torch.manual_seed(0)
    for frames in (11, 42, 11):
        spectrogram, wave = torch.randn(1, 32, 8, frames), torch.randn(1, 32, 170)
        with torch.inference_mode():
            pairs = zip(mine.crosstransformer(spectrogram, wave), member(spectrogram, wave), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_a_batch_that_mixes_its_windows_is_found() -> None:
    """The copies of the test segment differ, so that a network which answers with another window's stems is off."""
    engine = warm(short_bag())
    right = engine.eager

    def swapped(windows: torch.Tensor, check: Any, mix: Any = None) -> torch.Tensor:
        return right[0](windows, check, mix).flip(0)

    swapped.runtime, swapped.precision = "other", "bfloat16"  # type: ignore[attr-defined]
    assert [each.fault for each in engine.measure(list(right), batch=4)] == [None, None]
    assert engine.measure([swapped, right[1]], batch=4)[0].fault  # type: ignore[list-item]


# ---- which one is taken, and what is kept


@pytest.fixture
def engine() -> Engine:
    """A warm engine in float32 that takes four segments at once, as on a GPU."""
    engine = warm(tiny_bag())
    engine.accelerated, engine.batch = True, 4
    return engine


def any_speed_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "FASTER", 1e9)


class Counting:
    """A compiler that counts, and fails as often as it is told."""

    def __init__(self, *faults: Exception) -> None:
        self.faults, self.calls = list(faults), 0

    def __call__(self, graph: torch.nn.Module) -> Callable[..., Any]:
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        return graph


def test_it_is_measured_once(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start compiles, tells that, and writes a record; the next one goes by the record, and proves the sound."""
    any_speed_wins(monkeypatch)
    rules, told = Rules(root=tmp_path / "compiled", compiler=as_it_is), list[str]()
    assert autotune.recall(engine, rules) is engine, "no record yet"
    faster = tuned(engine, ORDER, told.append, (autotune, rules))
    assert (faster.facts.runtime, faster.batch) == (RUNTIME, 4)
    assert set(told) == {"Finding the fastest way to run test on this machine, once; it takes about 90 s"}
    assert not autotune.is_due(engine, rules)
    told.clear()
    again = autotune.recall(engine, rules)
    assert (again.facts.runtime, again.batch) == (RUNTIME, 4)
    assert tuned(again, ORDER, told.append, (autotune, rules)) is again
    assert told == []


def test_another_wish_is_measured_anew(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record counts only for the precision and the batch that the configuration has now."""
    any_speed_wins(monkeypatch)
    rules = Rules(root=tmp_path / "compiled", compiler=as_it_is)
    tuned(engine, ORDER, lambda _: None, (autotune, rules))
    for wish, due in (({"batch": 4}, False), ({"batch": 2}, True), ({"precision": "bfloat16"}, True)):
        assert autotune.is_due(engine, Rules(root=rules.root, **wish)) is due  # type: ignore[arg-type]


def test_a_slower_one_is_not_taken(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the first start nor at the next one, which compiles nothing."""
    monkeypatch.setattr(autotune, "FASTER", 0.0)
    rules = Rules(root=tmp_path / "compiled", compiler=Counting())
    assert tuned(engine, ORDER, lambda _: None, (autotune, rules)) is engine
    assert not autotune.is_due(engine, rules)
    assert autotune.recall(engine, rules) is engine
    assert rules.compiler.calls == 1  # type: ignore[attr-defined]


@pytest.mark.daily
def test_a_wrong_one_is_not_taken(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast and wrong: torch serves; where it has become wrong since it was measured, the sidecar says so."""
    any_speed_wins(monkeypatch)

    def noise(graph: torch.nn.Module) -> Any:
        return lambda *tensors: tuple(torch.randn_like(each) for each in graph(*tensors))

    rules = Rules(root=tmp_path / "first", compiler=noise)
    assert tuned(engine, ORDER, lambda _: None, (autotune, rules)) is engine
    rules = Rules(root=tmp_path / "second", compiler=as_it_is)
    tuned(engine, ORDER, lambda _: None, (autotune, rules))
    later = autotune.recall(engine, Rules(root=tmp_path / "second", compiler=noise))
    assert later.facts.runtime == "torch"
    assert "float32 by torch-compiled is off by" in (later.facts.fallback or "")


def test_a_compiler_that_fails(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Torch serves as it is, the log says why, and it is not tried at every start."""
    rules = Rules(root=tmp_path / "compiled", compiler=Counting(RuntimeError("gcc has failed")))
    for _ in range(2):
        assert tuned(engine, ORDER, lambda _: None, (autotune, rules)) is engine
    assert rules.compiler.calls == 1  # type: ignore[attr-defined]
    assert "test stays with torch: RuntimeError: gcc has failed" in caplog.text
    assert cache.has_failed(rules.root, autotune.key(engine), time.time())
    assert not cache.has_failed(rules.root, autotune.key(engine), time.time() + cache.FAILED_S)


def test_damaged_caches_are_removed(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that fails at a later start: torch serves, and the model is compiled anew."""
    any_speed_wins(monkeypatch)
    root = tmp_path / "compiled"
    tuned(engine, ORDER, lambda _: None, (autotune, Rules(root=root, compiler=as_it_is)))
    later = autotune.recall(engine, Rules(root=root, compiler=Counting(AssertionError("damaged"))))
    assert later.facts.runtime == "torch"
    assert "float32 by torch-compiled failed at warm-up (AssertionError: damaged)" in (later.facts.fallback or "")
    assert not (root / autotune.key(engine)).exists()
    assert autotune.is_due(engine, Rules(root=root))


@pytest.mark.daily
def test_the_batch_becomes_smaller_where_memory_is_short(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is compiled, and where the graphs keep more than their share; with one segment torch serves as it is."""
    any_speed_wins(monkeypatch)
    out_of_memory = torch.OutOfMemoryError("CUDA out of memory")
    rules = Rules(root=tmp_path / "one", compiler=Counting(out_of_memory))
    assert tuned(engine, ORDER, lambda _: None, (autotune, rules)).batch == 2
    free = iter((1000, 100, 1000, 900))
    monkeypatch.setattr(device, "unreserved_bytes", lambda _: next(free))
    rules = Rules(root=tmp_path / "two", compiler=as_it_is)
    assert tuned(engine, ORDER, lambda _: None, (autotune, rules)).batch == 2
    monkeypatch.setattr(device, "unreserved_bytes", lambda _: 1000)
    rules = Rules(root=tmp_path / "three", compiler=Counting(*[out_of_memory] * 3))
    assert tuned(engine, ORDER, lambda _: None, (autotune, rules)) is engine
    assert rules.compiler.calls == 3  # type: ignore[attr-defined]


def test_memory_that_is_short_at_a_later_start(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch serves as it is, the sidecar says why, and what was compiled is kept."""
    any_speed_wins(monkeypatch)
    root = tmp_path / "compiled"
    tuned(engine, ORDER, lambda _: None, (autotune, Rules(root=root, compiler=as_it_is)))
    later = autotune.recall(engine, Rules(root=root, compiler=Counting(torch.OutOfMemoryError("no"))))
    assert later.facts.fallback == "float32 by torch-compiled needs more memory than there is (no); it is not used"
    assert not autotune.is_due(engine, Rules(root=root))


def test_where_it_is_compiled(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CUDA GPU, with a folder for it and all that compiles; never on a CPU, where OpenVINO is faster."""
    monkeypatch.setattr(host, "lacks_for_compiling", lambda: ())
    assert autotune.rules(engine, "auto", "auto", str(tmp_path)) is None
    engine.device = torch.device("cuda", 0)
    assert autotune.rules(engine, "auto", 4, str(tmp_path)) == Rules(root=tmp_path, batch=4)
    assert autotune.rules(engine, "auto", "auto", None) is None
    monkeypatch.setattr(host, "lacks_for_compiling", lambda: ("Triton",))
    assert autotune.rules(engine, "auto", "auto", str(tmp_path)) is None


def test_what_is_compiled_is_closed_to_others(tmp_path: Path) -> None:
    """It is run: nobody else may write there, also where the folder was there before with a mode of its own."""
    root = tmp_path / "compiled"
    root.mkdir()
    root.chmod(0o777)
    with cache.making(root, "conversion"):
        pass
    runtime.keep_caches_in(cache.private(cache.private(root) / "key"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (root, *root.rglob("*"))}
    assert sorted(modes) == ["compiled", "conversion", "inductor", "key", "triton"]
    assert set(modes.values()) == {0o700}
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(root / "key" / "inductor")
    assert os.environ["TRITON_CACHE_DIR"] == str(root / "key" / "triton")


@pytest.mark.daily
def test_the_compiler_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network is as right as torch's own, its caches are where they belong, and it leaves no process behind."""
    any_speed_wins(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    bag = tiny_bag()
    engine = warm(bag)
    engine.accelerated, engine.batch = True, 2
    rules = Rules(root=tmp_path / "compiled")
    faster = tuned(engine, ORDER, lambda _: None, (autotune, rules))
    assert (faster.facts.runtime, faster.facts.fallback) == (RUNTIME, None)
    faster.accelerated = False
    song = generated(0.5)
    stems = ours(bag, song, 44100, tmp_path, engine=faster)
    assert worst(Reference(bag).separate_tensor(song)[1], stems) > 80
    assert list((rules.root / autotune.key(engine) / "inductor").iterdir())
    assert list((tmp_path / "tmp").iterdir()) == []
    assert children(os.getpid()) == []
