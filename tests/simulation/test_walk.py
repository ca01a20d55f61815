"""A random walk over a simulated daemon against a model of the protocol: what the contract says holds at every moment."""

from collections.abc import Callable
from pathlib import Path

import pytest

from simulated_walk import SimulatedWalk

STEPS, EVERY = 600, 20
"""The steps of each walk, and after how many of them it rests."""

WALKS = 6
"""So many each day."""


@pytest.mark.parametrize("number", range(WALKS))
def test_a_walk(tmp_path: Path, day: int, number: int, record_property: Callable[[str, object], None]) -> None:
    """So many steps at random, others each day: every drop is answered as the contract says, and nothing else is seen."""
    again = f"tests/run --day {day} 'tests/simulation/test_walk.py::test_a_walk[{number}]'"
    with SimulatedWalk(tmp_path, day * WALKS + number, again).begun() as walk:
        for _ in range(STEPS // EVERY):
            for _ in range(EVERY):
                walk.step()
            walk.rest()
    record_property("simulated steps", walk.steps)
