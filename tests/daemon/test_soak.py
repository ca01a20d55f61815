"""A random walk against a model of the protocol: whatever is done, what the contract says holds at every moment."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from walk import Walk

STEPS, EVERY = 60, 30
"""The walk of each day; and after how many steps it rests."""


def test_a_short_walk(tmp_path: Path, day: int, record_property: Callable[[str, object], None]) -> None:
    """So many steps at random, others each day: every drop is answered as the contract says, and nothing else is seen."""
    with Walk(tmp_path, day).begun() as walk:
        for _ in range(STEPS // EVERY):
            for _ in range(EVERY):
                walk.step()
            walk.rest()
    record_property("soak steps", walk.steps)


@pytest.mark.soak
@pytest.mark.parametrize("real", [False, True], ids=["fake", "real"])
def test_soak(
    tmp_path: Path, day: int, real: bool, soak_s: float, record_property: Callable[[str, object], None]
) -> None:
    """For so many minutes; a quarter of them with the real worker."""
    end = time.monotonic() + soak_s * (0.25 if real else 0.75)
    with Walk(tmp_path, day, real=real).begun() as walk:
        while time.monotonic() < end:
            for _ in range(EVERY):
                walk.step()
            walk.rest()
    record_property("soak steps", walk.steps)
