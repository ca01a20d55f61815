"""Precision and batch are chosen by speed, from trials that stay within memory, a cancel's patience and a few seconds."""

from collections.abc import Callable

import msgspec
import pytest
import torch

from demixd.engine import batch, device
from demixd.engine.batch import Trial
from separations import short_bag, warm

H200 = {
    "float16": {1: 0.0629, 2: 0.0276, 4: 0.0193, 8: 0.0136, 16: 0.0135, 32: 0.0097, 64: 0.0097},
    "bfloat16": {1: 0.0592, 2: 0.0266, 4: 0.0189, 8: 0.0136, 16: 0.0100, 32: 0.0081, 64: 0.0080},
}
"""Seconds a segment, htdemucs, measured; those of 64 are assumed."""


def measured(seconds: dict[int, float], tried: list[int] | None = None) -> Callable[[int], Trial]:
    def trial(size: int) -> Trial:
        if tried is not None:
            tried.append(size)
        return Trial(seconds=seconds[size] * size, bytes=250 * size)

    return trial


def chosen(free: int = 10**9, **seconds: dict[int, float]) -> tuple[str, int]:
    choice = batch.choose({name: measured(each) for name, each in seconds.items()}, free)
    return choice.precision, choice.batch


def constant(seconds: float) -> dict[int, float]:
    """A processor that is busy with one segment."""
    return {2**k: seconds for k in range(7)}


def test_precision_and_batch_are_chosen_together() -> None:
    """On an H200 bfloat16 with 32 segments at once is 1.7 times as fast as float16 with 8, beyond which 16 stands still."""
    assert chosen(**H200) == ("bfloat16", 32)
    assert chosen(float16=H200["float16"]) == ("float16", 32)


def test_the_smallest_batch_that_is_fast_enough() -> None:
    """Three hundredths of the time are not worth a batch of twice the size, nor another precision of the same size."""
    assert chosen(float16=constant(0.001), bfloat16=constant(0.00098)) == ("float16", 1)
    assert chosen(float16=constant(0.001), bfloat16=constant(0.0009)) == ("bfloat16", 1)
    assert chosen(float16={**constant(0.001), 1: 0.002, 64: 0.00098}) == ("float16", 2)


def test_memory_limits_the_batch() -> None:
    """What is foreseen not to fit is not tried: 0.7 x 3000 bytes hold 8 segments of 250, and not 16."""
    tried: list[int] = []
    batch.choose({"float16": measured(H200["float16"], tried)}, free=3000)
    assert tried == [1, 2, 4, 8]
    assert chosen(free=3000, **H200) == ("float16", 8)


def test_a_cancel_limits_the_batch() -> None:
    """What is foreseen to take longer than half a second is not tried."""
    tried: list[int] = []
    batch.choose({"float16": measured({1: 0.2, 2: 0.12, 4: 0.1}, tried)}, free=10**9)
    assert tried == [1, 2, 4], "8 would take 0.4 s + 2 x 0.16 s"


def test_a_batch_that_is_too_long_after_all() -> None:
    """What took longer than was foreseen is not used, however fast a segment was."""
    seconds = {1: 0.2, 2: 0.15, 4: 0.13}
    assert chosen(float16=seconds) == ("float16", 2)


def test_two_plateaus_end_the_search() -> None:
    """Nor are larger sizes tried for ever: the warm-up is waited for."""
    tried: list[int] = []
    batch.choose({"float16": measured(constant(0.001), tried)}, free=10**9)
    assert tried == [1, 2, 4]


def test_trials_end_after_some_seconds() -> None:
    """A slow GPU that gains by every size is not tried with all of them."""
    tried: list[int] = []
    batch.choose({"float16": measured({2**k: 0.25 / 2**k for k in range(7)}, tried)}, free=10**9)
    assert tried == [1, 2, 4, 8, 16, 32]


def test_the_batch_where_the_forecast_was_wrong() -> None:
    """Out of memory during the trial: what was possible before. With one segment it is the model that is too large."""

    def trial(size: int) -> Trial:
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Trial(seconds=0.01, bytes=1)

    assert batch.choose({"float16": trial}, free=10**9).batch == 4

    def never_fits(_size: int) -> Trial:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        batch.choose({"float16": never_fits}, free=10**9)


@pytest.mark.parametrize(
    ("wanted", "size", "expected"), [("auto", "auto", ("float16", 2)), ("auto", 3, ("float32", 3))]
)
def test_the_engine_takes_what_is_fastest(
    wanted: str, size: int | str, expected: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the precisions that are accurate, with the batch that was found; a batch that is configured is not looked for."""
    engine = warm(short_bag())
    fast = engine.with_networks(list(engine.eager))
    fast.facts = msgspec.structs.replace(engine.facts, precision="float16")
    seconds = {"float32": constant(0.002), "float16": {**constant(0.001), 1: 0.003}}
    monkeypatch.setattr(engine, "_accurate", lambda _: [engine, fast])
    names = iter(("float32", "float16"))
    monkeypatch.setattr(batch, "trial_on", lambda *_: measured(seconds[next(names)]))
    monkeypatch.setattr(device, "free_bytes", lambda _: 10**9)
    found = engine._by_speed(wanted, size)
    assert (found.facts.precision, found.batch) == expected
