"""Progress: what of it stays once a run is over, and its one throttle."""

import pytest

from demixd.protocol.job import FINAL, Reason, State, move
from demixd.protocol.progress import Progress, Step, Throttle
from jobs import running


@pytest.mark.parametrize("state", sorted(FINAL | {State.WAITING}))
def test_a_run_that_is_over_has_no_speed_and_no_time_left(state: State) -> None:
    """However it ended, and also where the song waits again."""
    job = running(progress=Progress(fraction=0.4, step_fraction=0.5, eta_s=94.0, speed_x=7.4))
    over = move(job, state, at="", **({"reason": Reason.RETRY} if state is State.WAITING else {}))
    assert (over.progress.eta_s, over.progress.speed_x) == (None, None)
    assert over.progress.fraction == {State.DONE: 1.0, State.WAITING: 0.0}.get(state, 0.4)


def test_within_a_step_one_passes_in_its_time() -> None:
    """The first passes, then one in half a second; what did not pass does not put off the next."""
    throttle = Throttle(0.5)
    passed = [at / 10 for at in range(20) if throttle.passes(at / 10, Step.SEPARATE)]
    assert passed == [0.0, 0.5, 1.0, 1.5]


def test_a_new_step_passes_at_once() -> None:
    """Step and message belong together, however rarely progress is written."""
    throttle = Throttle(3600.0)
    steps = [Step.DECODE, Step.DECODE, Step.SEPARATE, Step.SEPARATE, Step.DECODE]
    assert [throttle.passes(1.0, step) for step in steps] == [True, False, True, False, True]


def test_without_a_topic_only_time_counts() -> None:
    """As `separate_audio` promises: at most two strings a second, whatever they say."""
    throttle = Throttle(0.5)
    assert [throttle.passes(now) for now in (7.0, 7.4, 7.5, 7.9, 8.0)] == [True, False, True, False, True]
