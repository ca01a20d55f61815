"""What the engine does when something fails it: smaller batches, float32, the CPU; and what it believes of a fast way.

There is no GPU here: an engine on the CPU is told that it is accelerated, and its networks fail when a test wants it.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from demucs.apply import BagOfModels

from demixd.audio.budget import Budget
from demixd.audio.pcm import Shelf
from demixd.engine import accuracy, device
from demixd.engine.engine import Engine
from demixd.engine.networks import Network, Reduced
from demixd.errors import AudioProcessingError, Code, DeviceLostError
from demixd.pipeline.separate import _OnDevice
from separations import SOURCES, generated, ours, separated, short_bag, unequal_bag, warm

SHORT = 3.33
"""Seconds: five segments of the short models."""


class Failing:
    """A network that fails at the calls that `faults` names, from 1, and at all from `always` on."""

    def __init__(self, inner: Network, faults: dict[int, Exception | str], always: int = 10**9) -> None:
        self.runtime, self.precision = inner.runtime, inner.precision
        self.inner, self.faults, self.always = inner, faults, always
        self.sizes: list[int] = []

    def __call__(self, windows: torch.Tensor, check: Any, mix: Any = None) -> torch.Tensor:
        self.sizes.append(len(windows))
        fault = self.faults.get(min(len(self.sizes), self.always))
        if isinstance(fault, Exception):
            raise fault
        answer = self.inner(windows, check, mix)
        return answer * math.nan if fault == "nan" else answer


def out_of_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory")


def failing(engine: Engine, faults: dict[int, Exception | str], always: int = 10**9) -> Failing:
    """The engine's first network fails from now on."""
    network = Failing(engine.networks[0], faults, always)
    networks: list[Network] = [network, *engine.networks[1:]]
    if engine.networks == engine.eager:
        engine.eager = networks
    engine.networks = networks
    return network


def accelerated(**how: Any) -> Engine:
    engine = warm(short_bag(), **how)
    engine.accelerated = True
    return engine


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(one[name], other[name], atol=1e-6) for name in SOURCES)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return ours(short_bag(), generated(SHORT), 44100, tmp_path_factory.mktemp("expected"))


# ---- memory


def test_smaller_batches(expected: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Out of memory: half the batch, and half again, for the rest of this song; the next one has the whole again."""
    engine = accelerated(batch=4)
    network = failing(engine, {1: out_of_memory(), 2: out_of_memory()})
    stems, facts = separated(short_bag(), generated(SHORT), 44100, tmp_path, engine=engine)
    assert same(stems, expected)
    assert network.sizes[:3] == [4, 2, 1]
    assert set(network.sizes[2:]) == {1}
    assert facts.fallback == "out of memory with 2 segments at once; 1 from then on"
    network.sizes, network.faults = [], {}
    _, facts = separated(short_bag(), generated(SHORT), 44100, tmp_path, engine=engine)
    assert network.sizes[0] == 4
    assert facts.fallback is None


def test_a_stretch_of_the_song_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory while a stretch of the song is copied to the GPU: only as much as is needed just then is copied."""
    copied: list[int] = []

    def to_device(block: torch.Tensor, _device: torch.device) -> torch.Tensor:
        copied.append(len(block))
        if len(block) > 300:
            raise out_of_memory()
        return block

    monkeypatch.setattr(device, "to_device", to_device)
    song = generated(1.0)
    with Shelf(Budget(1 << 30), (tmp_path,)) as shelf:
        pcm = shelf.new(song.shape[1], 2)
        pcm.append(song.T.numpy())
        seen = _OnDevice(pcm, torch.device("cuda"))
        assert torch.equal(seen.read(100, 400), song[:, 100:400])
        assert copied == [44000, 300]
        with pytest.raises(torch.OutOfMemoryError):
            seen.read(0, 500)


def test_the_cache_is_emptied(
    expected: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory with one segment: the cache is emptied, and the segment is tried again."""
    emptied: list[int] = []
    monkeypatch.setattr(device, "give_back", lambda: emptied.append(1))
    engine = accelerated()
    network = failing(engine, {2: out_of_memory()})
    stems, facts = separated(short_bag(), generated(SHORT), 44100, tmp_path, engine=engine)
    assert same(stems, expected)
    assert emptied == [1]
    assert facts.fallback == "out of memory with one segment; done once the cache was emptied"
    assert facts.device == "cpu"
    assert len(network.sizes) == 6, "five segments, one of them twice"


def test_out_of_memory_is_done_on_the_cpu(expected: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Out of memory whatever is tried: this song is done on the CPU, the same, and the next on the GPU again."""
    engine = accelerated(batch=2)
    network = failing(engine, {3: out_of_memory()}, always=3)
    stems, facts = separated(short_bag(), generated(SHORT), 44100, tmp_path, engine=engine)
    assert same(stems, expected)
    assert network.sizes == [2, 2, 1, 1]
    assert facts.fallback == "out of memory on cpu in float32; this song was done on the CPU"
    network.sizes, network.faults = [], {}
    _, facts = separated(short_bag(), generated(SHORT), 44100, tmp_path, engine=engine)
    assert facts == engine.facts, "the next song is its own again"
    assert network.sizes, "and on the GPU"


def test_out_of_memory_on_the_cpu(tmp_path: Path) -> None:
    """Where there is nothing else, the error is what it is."""
    engine = warm(short_bag())
    failing(engine, {1: out_of_memory()}, always=1)
    with pytest.raises(torch.OutOfMemoryError):
        ours(short_bag(), generated(0.75), 44100, tmp_path, engine=engine)


# ---- numbers


def in_half() -> Engine:
    """An engine that runs in bfloat16, as a GPU would."""
    engine = warm(short_bag())
    return engine.with_networks([Reduced(member, engine.device, "bfloat16") for member in engine.members])


def test_not_a_number_in_half_precision(expected: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """NaN in bfloat16: the song is done in float32, and is the same as ever."""
    engine = in_half()
    failing(engine, {3: "nan"})
    stems, facts = separated(short_bag(), generated(SHORT), 44100, tmp_path, engine=engine)
    assert same(stems, expected)
    assert facts.precision == "float32"
    assert facts.fallback == "samples that are not numbers on cpu in bfloat16; this song was done in float32"
    assert engine.facts.precision == "bfloat16", "the next song is in bfloat16 again"


def test_not_a_number_on_the_gpu(expected: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """NaN in half precision and in float32: the CPU does it, and both reasons are told."""
    engine = in_half()
    engine.accelerated = True
    failing(engine, {1: "nan"})
    engine.eager = [Failing(engine.eager[0], {2: "nan"}), engine.eager[1]]
    stems, facts = separated(short_bag(), generated(SHORT), 44100, tmp_path, engine=engine)
    assert same(stems, expected)
    assert facts.fallback is not None
    assert [each.split("; ")[-1] for each in facts.fallback.split("; ")] == [
        "samples that are not numbers on cpu in bfloat16",
        "this song was done in float32",
        "samples that are not numbers on cpu in float32",
        "this song was done on the CPU",
    ]


def test_a_gpu_that_fails_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error after which the device does not answer any more ends the process; one that passes is done on the CPU."""
    engine = accelerated()
    failing(engine, {1: RuntimeError("CUDA error: an illegal memory access was encountered")}, always=1)
    _, facts = separated(short_bag(), generated(0.75), 44100, tmp_path, engine=engine)
    assert facts.fallback == "an error on cpu in float32; this song was done on the CPU"
    monkeypatch.setattr(device, "answers", lambda _: False)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        ours(short_bag(), generated(0.75), 44100, tmp_path, engine=engine)


# ---- what is believed of a fast way


def mild_bag() -> BagOfModels:
    """Its branches have so little weight that bfloat16 is half as far off as it may be, on processors with AMX as well."""
    bag = unequal_bag()
    for member in bag.models:
        for module in member.modules():
            if type(module).__name__ == "LayerScale":
                module.scale.data.fill_(0.01)
    return bag


def noisy(engine_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer answers noise in bfloat16, as convolutions of some shapes do on some processors."""
    layer = type(engine_of.models[0].encoder[0].conv)
    right = layer.forward

    def forward(self: Any, x: torch.Tensor) -> Any:
        answer = right(self, x)
        return torch.randn_like(answer) if answer.dtype == torch.bfloat16 else answer

    monkeypatch.setattr(layer, "forward", forward)


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_a_wrong_fast_way_is_caught(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that answers noise in bfloat16 is caught at warm-up: float32 is used, and the sidecar will say why."""
    bag = mild_bag()
    monkeypatch.setattr(device, "has", lambda _: True)
    right = warm(bag, precision="bfloat16")
    assert (right.facts.precision, right.facts.fallback) == ("bfloat16", None)
    noisy(bag, monkeypatch)
    if precision == "auto":
        monkeypatch.setattr("demixd.engine.engine.HALVES", ("bfloat16",))
        engine = Engine._eager(bag, device.CPU, "test", "0", None)
        engine.accelerated = True
        engine = engine._accurate("auto")[0]
    else:
        engine = warm(bag, precision=precision)
    assert engine.facts.precision == "float32"
    assert "bfloat16 by torch is off by" in (engine.facts.fallback or "")
    engine.accelerated = False
    _, facts = separated(bag, generated(3.0), 44100, tmp_path, engine=engine)
    assert facts == engine.facts


def test_a_precision_that_the_processor_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 without the instructions for it would take a hundred times as long: float32, and why."""
    monkeypatch.setattr("demixd.engine.host.has_bfloat16", lambda: False)
    facts = warm(unequal_bag(), precision="bfloat16").facts
    assert (facts.precision, facts.fallback) == ("float32", "this processor has no bfloat16; float32 is used")


@pytest.mark.daily
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_fast_precision_is_forty_decibels_below_the_song(precision: str, tmp_path: Path) -> None:
    """What a half precision gets wrong in any stem has less than a ten-thousandth of the song's energy."""
    bag, song = short_bag(), generated(SHORT)
    engine = warm(bag)
    exact = ours(bag, song, 44100, tmp_path, engine=engine)
    engine = engine.with_networks([Reduced(member, engine.device, precision) for member in engine.members])
    stems, facts = separated(bag, song, 44100, tmp_path, engine=engine)
    assert facts.precision == precision
    assert not same(stems, exact), "it is another precision"
    energy = float((song.double() ** 2).sum())
    for name in SOURCES:
        wrong = float(((stems[name] - exact[name]).double() ** 2).sum())
        assert 10 * math.log10(energy / wrong) > 40, name


def test_float32_means_float32() -> None:
    """A network that calls itself float32 and errs by a thousandth may not be used."""
    engine = warm(unequal_bag())

    class Coarse:
        runtime, precision = "other", "float32"

        def __call__(self, windows: torch.Tensor, check: Any, mix: Any = None) -> torch.Tensor:
            return engine.eager[0](windows, check, mix) * 1.001

    verdict = accuracy.measure(Coarse(), engine._segments[0], engine.expected[0])
    assert verdict.fault is not None
    assert "float32 by other is off by 0.001" in verdict.fault
    assert accuracy.measure(engine.eager[0], engine._segments[0], engine.expected[0]).fault is None


def test_a_model_that_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence and NaN from float32 itself are no model."""
    for bad in (0.0, math.nan):
        bag = unequal_bag()
        monkeypatch.setattr(bag.models[1], "forward", lambda windows, bad=bad: windows[:, None] * bad)
        with pytest.raises(AudioProcessingError) as error:
            warm(bag)
        assert error.value.code is Code.BAD_MODEL
