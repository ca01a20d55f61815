"""Many workers and many songs in simulated time: how well the scheduler uses them, against the best that could be."""

from collections.abc import Callable
from statistics import mean

import pytest

from simulated_pool import DECODE_S, RESTART_S, WRITE_S, SimulatedPool

MODEL_S = 30.0
"""Seconds of the model for a song, on average."""

SIZES = [(50, 2_000), pytest.param(400, 100_000, marks=pytest.mark.slow)]
Record = Callable[[str, object], None]


def length_s(pool: SimulatedPool) -> float:
    """Songs are of many lengths: a tenth of them take three times as long as the half."""
    return MODEL_S * pool.random.lognormvariate(-0.32, 0.8)


@pytest.mark.parametrize(("workers", "number"), SIZES)
def test_a_full_box(workers: int, number: int, day: int, record_property: Record) -> None:
    """All songs are there at once: the workers are as good as never idle, and those of high priority are begun first."""
    pool = SimulatedPool(workers, day)
    for each in range(number):
        pool.drop(0.0, 5 if each % 10 == 0 else 0, length_s(pool))
    pool.run()
    whole = sum(song.model_s for song in pool.songs.values())
    longest = max(song.model_s for song in pool.songs.values())
    bound_s = whole / workers
    assert pool.now <= bound_s + longest + DECODE_S + WRITE_S + 0.02 * bound_s
    assert all(song.starts == 1 for song in pool.songs.values())
    urgent = [song.waited_s for song in pool.songs.values() if song.job.priority == 5]
    others = [song.waited_s for song in pool.songs.values() if song.job.priority == 0]
    assert max(urgent) <= min(other for other in others if other > 0) + longest
    record_property(
        f"{workers} workers, {number} songs at once: time, in parts of the bound", round(pool.now / bound_s, 3)
    )
    record_property(
        f"{workers} workers, all at once: share of the time that models worked", round(whole / (workers * pool.now), 3)
    )


@pytest.mark.parametrize(("workers", "number"), SIZES)
def test_songs_that_come_by_and_by(workers: int, number: int, day: int, record_property: Record) -> None:
    """At nine tenths of what the workers can do, urgent songs wait hardly at all, and the others not for long."""
    pool = SimulatedPool(workers, day)
    when, each_s = 0.0, MODEL_S / (0.9 * workers)
    for each in range(number):
        pool.drop(when, 5 if each % 10 == 0 else 0, length_s(pool))
        when += pool.random.expovariate(1 / each_s)
    pool.run()
    waits = {
        priority: [song.waited_s for song in pool.songs.values() if song.job.priority == priority]
        for priority in (0, 5)
    }
    assert mean(waits[5]) <= MODEL_S / workers * 10
    assert mean(waits[5]) <= mean(waits[0])
    assert mean(waits[0]) <= MODEL_S
    used = sum(lane.busy_s for lane in pool.lanes) / (workers * pool.now)
    record_property(f"{workers} workers at 0.9 of their power: seconds an urgent song waits", round(mean(waits[5]), 2))
    record_property(f"{workers} workers at 0.9 of their power: seconds another song waits", round(mean(waits[0]), 2))
    record_property(f"{workers} workers at 0.9 of their power: share of the time that models worked", round(used, 3))


@pytest.mark.parametrize(("workers", "number"), SIZES)
def test_workers_that_die(workers: int, number: int, day: int, record_property: Record) -> None:
    """Each dies once in twenty songs: every song is done once, and no more is lost than what was begun at those moments."""
    pool = SimulatedPool(workers, day)
    for _ in range(number):
        pool.drop(0.0, 0, length_s(pool))
    pool.failing(20 * MODEL_S)
    pool.run()
    whole = sum(song.model_s for song in pool.songs.values())
    longest = max(song.model_s for song in pool.songs.values())
    assert all(song.done_at is not None for song in pool.songs.values())
    assert sum(lane.busy_s for lane in pool.lanes) == pytest.approx(whole)
    bound_s = (whole + pool.lost_s + pool.deaths * (RESTART_S + DECODE_S)) / workers
    assert pool.now <= 1.02 * bound_s + 3 * longest
    record_property(
        f"{workers} workers that die every {20 * MODEL_S:.0f} s: work lost, in parts", round(pool.lost_s / whole, 3)
    )
    record_property(f"{workers} workers that die: time, in parts of the bound", round(pool.now / bound_s, 3))
