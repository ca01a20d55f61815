"""OpenVINO against float32 eager: same weights, same windows; and what becomes of conversions on disk."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from demucs.apply import BagOfModels
from demucs.demucs import Demucs
from torch import Tensor

from demixd.engine import accuracy, cache, host
from demixd.engine.accuracy import LIMIT
from demixd.engine.cache import Conversion, Run
from demixd.engine.families.demucs import load
from demixd.engine.models import store
from demixd.engine.networks import Eager, Network, never
from demixd.engine.openvino import autotune, convert, converter, runtime
from demixd.engine.openvino.converter import ConversionError
from demixd.errors import StopProcessingError
from members import packed, put
from processes import children, is_over
from separations import SMALL, SOURCES, full_size, hdemucs, htdemucs, unequal_bag

installed = pytest.mark.skipif(
    not converter.is_installed(),
    reason="no OpenVINO: pip install --require-hashes --no-deps -r config/requirements-openvino.lock",
)

PATIENCE_S = float(os.environ.get("PATIENCE_S", "240"))


def demo() -> BagOfModels:
    files = store.locate("demo", repo=None, models=Path("/nowhere"), allow_pickle=False)
    return load(files, allow_pickle=False).model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conversions of these tests' models, each made once."""
    return tmp_path_factory.mktemp("conversions")


def converted(make: Callable[[], BagOfModels], root: Path) -> tuple[list[Eager], Path]:
    """The members of a model, by torch, and its conversion."""
    if cache.find(root, make.__name__) is None:
        with cache.making(root, make.__name__) as folder:
            convert.convert(list(make().models), folder)
    found = cache.find(root, make.__name__)
    assert found is not None
    cpu = torch.device("cpu")
    return [Eager(member, cpu) for member in make().models], found


def compiled(make: Callable[[], BagOfModels], root: Path) -> tuple[list[Eager], list[Network]]:
    members, folder = converted(make, root)
    networks = autotune.build(members, folder, precision="float32")
    assert {network.precision for network in networks} == {"float32"}
    assert {network.runtime for network in networks} == {"openvino"}
    return members, networks


def windows(member: Any, count: int = 1, seed: int = 0) -> Tensor:
    """`[count, 2, T]` of noise, a segment of the member each."""
    length = int(member.samplerate * member.segment)
    return 0.5 * torch.randn(count, 2, length, generator=torch.Generator().manual_seed(seed))


def error(answer: Tensor, expected: Tensor) -> float:
    return float((answer - expected).norm() / expected.norm())


def small() -> BagOfModels:
    return BagOfModels([htdemucs(4, segment=Fraction(39, 10), **SMALL)])


def stop() -> None:
    raise StopProcessingError("stop")


# ---- against eager


@installed
@pytest.mark.parametrize(
    "make", [small, *(pytest.param(each, marks=pytest.mark.daily) for each in (unequal_bag, hdemucs, demo))]
)
def test_equals_eager(make: Callable[[], BagOfModels], root: Path) -> None:
    """Every member, on a segment, on a batch, and on the test segment: what calls itself float32 is it."""
    for eager, network in zip(*compiled(make, root), strict=True):
        batch = windows(eager.member, 3)
        assert error(network(batch, never), eager(batch, never)) < LIMIT["float32"]
        segment = accuracy.noise_and_tones(2, batch.shape[-1])
        assert accuracy.measure(network, segment, eager(segment, never)).fault is None


@pytest.mark.daily
@installed
def test_two_calls_are_equal(root: Path) -> None:
    """The same window twice gives the same samples, with another one between them; answers stay as they were."""
    ((eager,), (network,)) = compiled(small, root)
    first, other = windows(eager.member), windows(eager.member, seed=1)
    answer = network(first, never)
    kept = answer.clone()
    network(other, never)
    assert torch.equal(answer, kept)
    assert torch.equal(network(first, never), kept)


@pytest.mark.daily
@installed
def test_other_lengths_are_done_by_torch(root: Path) -> None:
    """The end of a song is a shorter window for HDemucs, for which nothing is converted."""
    ((eager,), (network,)) = compiled(hdemucs, root)
    end = windows(eager.member)[..., :50_000]
    assert torch.equal(network(end, never), eager(end, never))
    with pytest.raises(StopProcessingError):
        network(end, stop)


@pytest.mark.daily
@installed
def test_a_member_that_is_named_twice_is_converted_once(root: Path) -> None:
    """A bag may name a member more than once."""

    def twice() -> BagOfModels:
        (member,) = small().models
        return BagOfModels([member, member])

    (eager, _), networks = compiled(twice, root)
    assert networks[0] is networks[1]
    assert sorted(path.name for path in (root / "twice").glob("*.xml")) == ["0.xml"]
    window = windows(eager.member)
    assert error(networks[1](window, never), eager(window, never)) < LIMIT["float32"]


def stopped_at(network: Network, window: Tensor, moment: float) -> float:
    """Want the network to stop `moment` seconds after it began; the seconds until it has."""
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() > began + moment:
            raise StopProcessingError("stop")

    with contextlib.suppress(StopProcessingError):
        network(window, check)
    return time.monotonic() - began - moment


@pytest.mark.daily
@installed
def test_a_stop_within_a_segment(root: Path) -> None:
    """Ten times at random moments; the network is as good as before."""
    ((eager,), (network,)) = compiled(small, root)
    window = windows(eager.member)
    expected = network(window, never)
    began = time.monotonic()
    network(window, never)
    dice, usual = random.Random(1), time.monotonic() - began
    for _ in range(10):
        stopped_at(network, window, dice.random() * usual)
        assert torch.equal(network(window, never), expected)
    with pytest.raises(StopProcessingError):
        network(window, stop)


@installed
def test_others_are_heard_meanwhile(root: Path) -> None:
    """Threads that listen for orders run while OpenVINO works."""
    ((eager,), (network,)) = compiled(small, root)
    done, turns = threading.Event(), []

    def listen() -> None:
        while not done.wait(0.002):
            turns.append(time.monotonic())

    thread = threading.Thread(target=listen)
    thread.start()
    began = time.monotonic()
    network(windows(eager.member, 4), never)
    seconds = time.monotonic() - began
    done.set()
    thread.join()
    assert len(turns) > 20 * seconds


@installed
def test_a_damaged_conversion_says_so(root: Path, tmp_path: Path) -> None:
    """What is cut or is no conversion at all is a `ValueError` that names the file; torch is as good as before."""
    members, found = converted(small, root)
    folder = shutil.copytree(found, tmp_path / "made")
    window = windows(members[0].member)
    expected = members[0](window, never)
    for name, data in (("0.bin", b""), ("0.xml", b"<net"), ("0.xml", b"")):
        (folder / name).write_bytes(data)
        with pytest.raises(ValueError, match=r"0\.xml"):
            autotune.build(members, folder, precision="float32")
    assert torch.equal(members[0](window, never), expected)
    cache.discard(folder)
    assert cache.find(tmp_path, "made") is None
    assert list(tmp_path.iterdir()) == []


@installed
def test_there_is_a_cpu() -> None:
    """OpenVINO knows this processor, and nothing that does not exist."""
    assert runtime.has_device("CPU")
    assert not runtime.has_device("PU")


@installed
def test_openvino_keeps_to_itself() -> None:
    """The package that tells its maker of every import is not loaded, also where it is installed."""
    code = "import sys; from demixd.engine.openvino import runtime; runtime.has_device('CPU'); "
    code += "print(sys.modules['openvino_telemetry'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def test_precisions_worth_a_try() -> None:
    """bfloat16 only on processors that have it; what was asked for and is not there is nothing."""

    def tried(wanted: str, target: str, bfloat16: bool) -> tuple[str, ...]:
        return autotune.precisions(wanted, target, bfloat16=bfloat16)

    assert tried("auto", "CPU", True) == ("bfloat16", "float32")
    assert (
        tried("auto", "CPU", False) == tried("float32", "CPU", True) == tried("float32", "GPU", False) == ("float32",)
    )
    assert tried("auto", "GPU", False) == ("float16", "float32")
    assert tried("bfloat16", "CPU", True) == ("bfloat16",)
    assert tried("bfloat16", "CPU", False) == tried("bfloat16", "GPU", True) == ()


# ---- the process that converts


@pytest.fixture
def order(tmp_path: Path) -> Conversion:
    """To convert a small model that lies on disk."""
    models = tmp_path / "models"
    models.mkdir()
    arguments = {"sources": SOURCES, "dconv_mode": 3, "segment": Fraction(39, 10), **SMALL}
    put(models, "mine", {"a": packed(small().models[0], arguments)})
    return ordered(models, "mine", tmp_path)


def ordered(models: Path, name: str, folder: Path) -> Conversion:
    files = store.locate(name, repo=None, models=models, allow_pickle=False)
    sha256 = load(files, allow_pickle=False).sha256
    where = store.Where(name=name, models=str(models), repo=None, allow_pickle=False)
    return Conversion(model=where, sha256=sha256, folder=str(folder / "compiled"))


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def half_made(order: Conversion) -> list[Path]:
    return list(Path(order.folder).glob(".*"))


def conversion(order: Conversion) -> Path | None:
    return cache.find(Path(order.folder), cache.key(order.sha256))


@pytest.mark.daily
@installed
def test_a_conversion_in_a_process_of_its_own(order: Conversion) -> None:
    """It is found under its key, and runs as the model that it was made of; a second call finds it at once."""
    assert converter.reason_not(order, order.model.locate()) is None
    folder = converter.convert(order)
    assert folder == conversion(order)
    assert half_made(order) == []
    began = time.monotonic()
    assert converter.convert(order) == folder
    assert time.monotonic() < began + 0.1
    mine = load(order.model.locate(), allow_pickle=False).model
    members = [Eager(member, torch.device("cpu")) for member in mine.models]
    (network,) = autotune.build(members, folder, precision="float32")
    window = windows(members[0].member)
    assert error(network(window, never), members[0](window, never)) < LIMIT["float32"]


@installed
def test_an_interrupted_conversion_is_none(order: Conversion) -> None:
    """Killed in the middle: nothing is found, and nothing stays."""

    def interrupt() -> None:
        until(lambda: half_made(order))
        os.kill(children()[0], signal.SIGKILL)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(ConversionError, match="ended with status -9"):
        converter.convert(order)
    thread.join()
    assert conversion(order) is None
    assert half_made(order) == []


def test_a_conversion_that_hangs_is_ended(order: Conversion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Songs wait for it: that has an end."""
    monkeypatch.setattr(converter, "PROGRAM", [sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(converter, "LIMIT_S", 0.3)
    with pytest.raises(ConversionError, match="took longer than 0 s"):
        converter.convert(order)
    assert children() == []


PARENT = """
import sys, msgspec
from demixd.engine.openvino import converter
print("begins", flush=True)
converter.convert(msgspec.json.decode(sys.argv[1], type=converter.Conversion))
"""


@installed
def test_a_conversion_ends_with_its_parent(order: Conversion) -> None:
    """The worker is killed: its conversion goes too, also one that stands still; what it left is removed later."""
    words = [sys.executable, "-c", PARENT, msgspec.json.encode(order).decode()]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"begins\n"
            until(lambda: half_made(order))
            (child,) = children(parent.pid)
            os.kill(child, signal.SIGSTOP)
        finally:
            parent.kill()
    until(lambda: is_over(child))
    assert conversion(order) is None

    def tidied() -> bool:
        """The kernel gives the lock back once the last of the child's threads is gone."""
        cache.tidy(Path(order.folder), time.time())
        return half_made(order) == []

    until(tidied)


@installed
def test_a_model_that_has_changed_is_not_converted(order: Conversion) -> None:
    """The worker's model and the converted one are the same, or there is none."""
    with pytest.raises(ConversionError, match="has changed"):
        converter.convert(msgspec.structs.replace(order, sha256="0" * 64))
    assert list(Path(order.folder).glob("*")) == []


@installed
def test_a_model_without_a_core_is_not_converted(tmp_path: Path) -> None:
    """Demucs' first kind has no spectrogram, and the reason says so."""
    arguments: dict[str, Any] = {"sources": SOURCES, "channels": 4, "depth": 2, "lstm_layers": 0, "segment": 1}
    put(tmp_path, "old", {"a": packed(Demucs(**arguments), arguments)})
    order = ordered(tmp_path, "old", tmp_path)
    with pytest.raises(ConversionError, match="Demucs without a core"):
        converter.convert(order)
    assert conversion(order) is None


def test_a_conversion_needs_room(order: Conversion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short, it is said how much it takes."""
    monkeypatch.setattr(host, "room", lambda: converter.ROOM_BYTES - 100_000_000)
    said = converter.reason_not(order, order.model.locate())
    assert said == "converting mine takes 2.2 GB of free memory, and there are 2.0"
    assert not Path(order.folder).exists()


# ---- conversions on disk


def test_keys_know_the_model_and_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another model, another version of a library or another format is another key."""
    keys = {cache.key("a"), cache.key("b")}
    for name in cache.OPENVINO:
        monkeypatch.setattr(cache, "version", lambda each, name=name: "9" if each == name else "1")
        keys.add(cache.key("a"))
    monkeypatch.setattr(cache, "FORMAT", 0)
    keys.add(cache.key("a"))
    assert len(keys) == 6
    assert all(len(key) == 16 for key in keys)


def made(root: Path, key: str, age_s: float = 0.0) -> Path:
    with cache.making(root, key) as folder:
        cache.core(folder, 0).write_text("<net/>")
    os.utime(root / key, (time.time() - age_s,) * 2)
    return root / key


def test_what_is_not_used_goes(tmp_path: Path) -> None:
    """A conversion that nothing has used for 30 days is removed, and a count of tries; to look for one is to use it."""
    for key in ("old", "found", "new"):
        made(tmp_path, key, 0 if key == "new" else 31 * 86400)
    cache.count_try(tmp_path, "old")
    os.utime(tmp_path / f"old{cache.TRIES}", (0, 0))
    assert cache.find(tmp_path, "found") == tmp_path / "found"
    cache.tidy(tmp_path, time.time())
    assert {path.name for path in tmp_path.iterdir()} == {"found", "new"}
    cache.tidy(tmp_path / "not there", time.time())


def test_what_is_being_made_stays(tmp_path: Path) -> None:
    """Another process that converts is not disturbed, and whoever is second has lost nothing."""
    with cache.making(tmp_path, "one") as folder:
        cache.tidy(tmp_path, time.time())
        assert folder.is_dir()
        made(tmp_path, "one")
        (folder / "0.xml").touch()
    assert (tmp_path / "one" / "0.xml").read_text() == "<net/>"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_the_runs_are_known_on_this_machine(tmp_path: Path) -> None:
    """The record counts for its processor and its number of threads; one that makes no sense is none."""
    runs = (
        Run(runtime="torch", precision="float32", seconds=2.0, error=0.0),
        Run(runtime="openvino", precision="bfloat16", seconds=0.8, error=float("inf"), fault="off"),
    )

    def known(processor: str = "EPYC", threads: int = 2) -> tuple[Run, ...] | None:
        return cache.read_runs(folder, processor=processor, threads=threads)

    folder = made(tmp_path / "compiled", "one")
    assert known() is None
    cache.write_runs(folder, runs, processor="EPYC", threads=2)
    assert known() == (runs[0], msgspec.structs.replace(runs[1], error=None))
    assert known("Xeon") is known(threads=4) is None
    for text in (b"", b"{}", b"\xff", b"[" * 100_000):
        (folder / cache.RUNS).write_bytes(text)
        assert known() is None


# ---- the processor

TWO_OF_EACH = "\n\n".join(
    f"processor\t: {n}\nphysical id\t: {n // 4}\ncore id\t\t: {n % 4 // 2}\nflags\t\t: fpu avx512_bf16 sse"
    for n in range(8)
)
ARM = "processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\nFeatures\t: fp asimd\n"


def test_threads_are_physical_cores() -> None:
    """Two sockets of two cores of two threads each; what we may not use does not count."""
    assert host.cores(TWO_OF_EACH, set(range(8))) == 4
    assert host.cores(TWO_OF_EACH, {0, 1, 2}) == 2
    assert host.cores(TWO_OF_EACH, {5}) == 1
    assert host.cores(ARM, {0, 1}) == 2
    assert host.cores("", {0, 1, 2}) == 3
    assert 1 <= host.threads() <= (os.cpu_count() or 1)


def test_flags_of_processors() -> None:
    """Those that multiply bfloat16 say so."""
    assert host.BFLOAT16 & host.flags(TWO_OF_EACH) == {"avx512_bf16"}
    assert host.flags(ARM) == host.flags("") == frozenset()


def test_quotas_of_a_cgroup() -> None:
    """Whole processors are what counts."""
    assert host.quota("200000 100000\n") == 2
    assert host.quota("150000 100000\n") == 1
    assert host.quota("50000 100000\n") == 0
    assert host.quota("max 100000\n") is host.quota("") is None


def test_room_in_memory() -> None:
    """What the kernel says is available; in a cgroup its limit less what is used, files that make way excepted."""
    assert host.available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n") == 2 << 20
    assert host.available("") is None
    assert host.left("1000\n", "600\n", "anon 1\ninactive_file 100\n") == 500
    assert host.left("1000\n", "600\n", "") == 400
    assert host.left("max\n", "600\n", "") is host.left("", "", "") is None
    assert host.room() > 0


# ---- the real size


@installed
@pytest.mark.slow
def test_the_full_size_model(root: Path) -> None:
    """The published architecture: right to the limit of float32, a stop is heard within a second, and it is good afterwards."""
    ((eager,), (network,)) = compiled(full_size, root)
    window = windows(eager.member)
    expected = eager(window, never)
    assert error(network(window, never), expected) < LIMIT["float32"]
    dice = random.Random(2)
    assert max(stopped_at(network, window, dice.random()) for _ in range(10)) < 1
    assert error(network(window, never), expected) < LIMIT["float32"]
