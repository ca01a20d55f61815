"""How long a model stays warm, what serves meanwhile, and which model it is."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from demixd.engine.engine import Engine
from demixd.engine.families.demucs import LoadedModel
from demixd.engine.models.catalog import Demand
from demixd.errors import AudioProcessingError, Code, ModelTooLargeError
from demixd.protocol.job import Error
from demixd.supervisor.workers.line import Said
from demixd.supervisor.workers.manager import Have
from demixd.supervisor.workers.missing_gpu import RETRY_S
from demixd.worker import warm as warming
from demixd.worker.messages import Tuning, Unready, Warm
from scripted_worker import Worker, options
from separations import unequal_bag

# ---- the manager, told the time


def test_a_lost_gpu_is_looked_for_again() -> None:
    """While the CPU stands in, an idle worker is started anew now and then, ever more rarely, until the GPU is back."""
    worker = Worker()
    worker.manager.tick(0.0, busy=False)
    worker.ready(1.0, device="cuda:0")
    worker.die(2.0)
    worker.manager.tick(2.0, busy=True)
    worker.ready(3.0)  # the driver is gone: torch knows no GPU any more
    assert worker.started == 2
    worker.manager.tick(3.0 + RETRY_S[0] - 1, busy=False)
    assert worker.started == 2
    worker.manager.tick(3.0 + RETRY_S[0], busy=True)
    assert worker.started == 2, "songs come first"
    worker.manager.tick(70.0, busy=False)
    assert worker.started == 3
    worker.ready(71.0)
    worker.manager.tick(71.0 + RETRY_S[0], busy=False)
    assert worker.started == 3, "the second time it waits longer"
    worker.manager.tick(71.0 + RETRY_S[1], busy=False)
    assert worker.started == 4
    worker.ready(400.0, device="cuda:0")
    worker.manager.tick(10_000.0, busy=False)
    assert worker.started == 4


def test_a_worker_that_tunes_is_not_idle() -> None:
    """Tuning is shown, no song is begun meanwhile, and idle time counts from its end."""
    worker = Worker(keep_alive_s=10.0)
    worker.manager.tick(0.0, busy=False)
    worker.manager.on_message(Said(worker.pid, Tuning(message="about 30 s")), 1.0)
    worker.manager.tick(60.0, busy=False)
    assert (worker.manager.state, worker.manager.message) == ("tuning", "about 30 s")
    assert worker.manager.is_settled, "systemd is told that the daemon is ready"
    assert worker.manager.want(options("htdemucs"), 60.0) is Have.BUSY
    worker.ready(61.0)
    worker.manager.tick(62.0, busy=False)
    assert worker.manager.want(options("htdemucs"), 62.0) is Have.READY
    worker.manager.tick(72.0, busy=False)
    assert worker.manager.state == "asleep"


def test_a_gpu_that_failed_at_warm_up_is_looked_for_again() -> None:
    """The worker says itself that the CPU stands in; where no GPU was wanted or there, nobody looks for one."""
    worker = Worker()
    worker.manager.tick(0.0, busy=False)
    worker.ready(1.0)
    worker.manager.tick(10_000.0, busy=False)
    assert worker.started == 1
    worker.ready(1.0, on_stand_in=True)
    worker.manager.tick(20_000.0, busy=False)
    assert worker.started == 2


def test_a_model_that_is_missing_does_not_pass_for_the_warm_one() -> None:
    """The model that is warm serves on; the one that cannot be had does not."""

    worker = Worker()
    worker.manager.tick(0.0, busy=False)
    worker.ready(1.0)
    assert worker.manager.want(options("mdx"), 2.0) is Have.BUSY
    error = Error(code=Code.MODEL_MISSING, message="not here")
    worker.manager.on_message(Said(worker.pid, Unready(error=error)), 3.0)
    assert worker.manager.want(options("mdx"), 3.0) is Have.MISSING
    assert worker.manager.why_missing(options("mdx")) == "not here"
    assert worker.manager.want(options("htdemucs"), 3.0) is Have.READY


def test_auto_is_warm_for_auto() -> None:
    """What was taken for `auto` serves songs that ask for auto or for it by name; guitar needs another."""
    worker = Worker(name="auto")
    worker.manager.tick(0.0, busy=False)
    worker.ready(1.0, model="htdemucs_ft", device="cuda:0")
    assert worker.manager.want(options("auto"), 2.0) is Have.READY
    assert worker.manager.want(options("htdemucs_ft"), 2.0) is Have.READY
    assert worker.manager.want(options("auto", "guitar"), 2.0) is Have.BUSY
    assert (worker.sent[-1].model, worker.sent[-1].wide) == ("auto", True)
    worker.ready(3.0, model="htdemucs_6s", device="cuda:0")
    assert worker.manager.want(options("auto", "no_piano"), 4.0) is Have.READY
    assert worker.manager.want(options("auto"), 4.0) is Have.BUSY


# ---- which model


@pytest.mark.parametrize(
    ("model", "stems", "free_mib", "candidates"),
    [
        ("auto", ("vocals",), None, ("htdemucs",)),
        ("auto", ("vocals",), 3000, ("htdemucs",)),
        ("auto", ("vocals",), 5000, ("htdemucs",)),
        ("auto", ("vocals",), 7000, ("htdemucs_ft", "htdemucs")),
        ("auto", ("guitar",), 7000, ("htdemucs_6s",)),
        ("auto", ("no_piano",), 9000, ("htdemucs_6s",)),
        ("auto", ("piano",), None, ("htdemucs_6s",)),
        ("htdemucs", ("vocals",), 1000, ("htdemucs",)),
        ("htdemucs_ft", ("vocals",), 1000, ("htdemucs_ft", "htdemucs")),
        ("htdemucs_6s", ("vocals",), 1000, ("htdemucs_6s", "htdemucs")),
        ("htdemucs_6s", ("guitar",), 1000, ("htdemucs_6s",)),
        ("my_own", ("vocals",), 1000, ("my_own",)),
    ],
)
def test_which_models_will_do(
    model: str, stems: tuple[str, ...], free_mib: int | None, candidates: tuple[str, ...]
) -> None:
    """`auto` takes the best that fits; a named model is tried, and then htdemucs, where that has the stems."""
    assert Demand.of(model, stems).candidates(free_mib) == candidates


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A GPU, as far as the choice of a model goes; the models that it cannot hold are what a test puts in here."""
    too_large: set[str] = set()
    right = Engine.warm.__func__  # type: ignore[attr-defined]

    def warm(cls: type[Engine], bag: Any, *, name: str, device: str, **how: Any) -> Engine:
        if device != "cpu" and name in too_large:
            raise ModelTooLargeError("CUDA out of memory")
        engine: Engine = right(cls, bag, name=name, device="cpu", **how)
        engine.facts = msgspec.structs.replace(engine.facts, device="cpu" if device == "cpu" else "cuda:0")
        return engine

    monkeypatch.setattr(warming.devices, "free_mib", lambda _: 9000)
    monkeypatch.setattr(warming, "_load", lambda *_: LoadedModel(model=unequal_bag(), sha256="0"))
    monkeypatch.setattr(Engine, "warm", classmethod(warm))
    return too_large


def order(model: str, *, wide: bool = False) -> Warm:
    return Warm(model=model, device="auto", models="/nowhere", repo=None, allow_pickle=False, wide=wide)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU of this machine starts")
@pytest.mark.parametrize("wanted", ["auto", "cuda:0"])
def test_a_gpu_that_does_not_start(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there and cannot be used: the CPU serves, says why, and the GPU is worth another look later."""
    monkeypatch.setattr(warming.devices, "choose", lambda _: (torch.device("cuda", 0), None))
    engine = warming.warm(msgspec.structs.replace(order("demo"), device=wanted), lambda _: None)
    assert engine.facts.device == "cpu"
    assert (engine.facts.fallback or "").startswith("cuda:0 failed at warm-up (")
    assert engine.on_stand_in


@pytest.mark.skipif(Path("/dev/dri").exists(), reason="this machine has graphics")
def test_graphics_that_are_not_there() -> None:
    """`openvino:GPU` without Intel's graphics, or without OpenVINO: the CPU, and why."""
    engine = warming.warm(msgspec.structs.replace(order("demo"), device="openvino:GPU"), lambda _: None)
    assert (engine.facts.device, engine.facts.runtime) == ("cpu", "torch")
    assert engine.facts.fallback == "openvino:GPU is not available on this machine; using the CPU"


def test_a_gpu_that_is_not_there() -> None:
    """A GPU that is asked for by number."""
    engine = warming.warm(msgspec.structs.replace(order("demo"), device="cuda:63"), lambda _: None)
    assert engine.facts.fallback == "cuda:63 is not available on this machine; using the CPU"
    assert engine.on_stand_in


def test_a_named_model_that_does_not_fit(gpu: set[str]) -> None:
    """htdemucs in its place, with a warning for every song's sidecar."""
    gpu.add("htdemucs_ft")
    engine = warming.warm(order("htdemucs_ft"), lambda _: None)
    assert (engine.facts.model, engine.facts.device) == ("htdemucs", "cuda:0")
    assert engine.facts.fallback == "the GPU's memory does not hold htdemucs_ft; htdemucs was used"
    assert engine.warnings == ("model-too-large: the GPU's memory does not hold htdemucs_ft; htdemucs was used.",)


def test_no_model_fits(gpu: set[str]) -> None:
    """The CPU has room: it does what was asked for, until the GPU has room again, for which the manager looks."""
    gpu.update(("htdemucs_ft", "htdemucs", "htdemucs_6s"))
    engine = warming.warm(order("htdemucs_6s", wide=True), lambda _: None)
    assert (engine.facts.model, engine.facts.device) == ("htdemucs_6s", "cpu")
    assert engine.warnings == ("model-too-large: the GPU's memory does not hold htdemucs_6s; the CPU was used.",)
    assert engine.on_stand_in


def test_the_best_cannot_be_had(gpu: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` without the files of the best, and no hub to fetch them from: the next best. A named one is missing."""

    def load(name: str, *_: Any) -> LoadedModel:
        if name == "htdemucs_ft":
            raise AudioProcessingError(Code.MODEL_MISSING, "htdemucs_ft is not here.")
        return LoadedModel(model=unequal_bag(), sha256="0")

    monkeypatch.setattr(warming, "_load", load)
    told: list[str] = []
    assert warming.warm(order("auto"), told.append).facts.model == "htdemucs"
    assert told == ["htdemucs_ft is not here. Trying the next best."]
    with pytest.raises(AudioProcessingError) as error:
        warming.warm(order("htdemucs_ft"), told.append)
    assert error.value.code is Code.MODEL_MISSING


def test_a_missing_model_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is asked for again and again, and the log does not fill with it."""
    worker = Worker()
    worker.manager.tick(0.0, busy=False)
    for now in (1.0, 10.0, 100.0):
        worker.manager.on_message(
            Said(worker.pid, Unready(error=Error(code=Code.MODEL_MISSING, message="not here"))), now
        )
    assert [each.message for each in caplog.records].count("worker 1: not here") == 1
