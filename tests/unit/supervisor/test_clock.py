"""The daemon's own time."""

from demixd.spool.child_process import PAUSE_S
from demixd.supervisor.clock import AwakeClock
from simulated_clock import SimulatedClock


def test_it_stands_still_while_the_process_does() -> None:
    """A pause is left out of `now`, and of nothing else; what is shorter is none."""
    real = SimulatedClock()
    clock = AwakeClock(real)
    now, up = clock.now(), clock.uptime()
    real.pause(PAUSE_S - 1)
    assert clock.now() == now + PAUSE_S - 1
    real.pause(1000.0)
    assert clock.now() == now + PAUSE_S - 1
    real.pause(1.0)
    assert clock.now() == now + PAUSE_S
    assert clock.uptime() == up + PAUSE_S + 1000.0
