"""The order of work: priority, then the time that a song became ready, then its name."""

import random

import msgspec

from demixd.protocol.job import Job, Reason, State, Step
from demixd.supervisor.jobs.queue import JobQueue
from jobs import job


def filled(*jobs: Job) -> JobQueue:
    queue = JobQueue()
    for each in jobs:
        queue.put(each)
    return queue


def test_the_order() -> None:
    """High priority first, then who became ready first, then by name."""
    wanted = [
        job("z.wav", job_id="a", priority=5, ready_at=9.0),
        job("z.wav", job_id="b", ready_at=1.0),
        job("a.wav", job_id="c", ready_at=2.0),
        job("b.wav", job_id="d", ready_at=2.0),
        job("a.wav", job_id="e", priority=-1, ready_at=1.0),
    ]
    shuffled = random.Random(1).sample(wanted, len(wanted))
    queue = filled(*shuffled)
    assert list(queue) == [each.job_id for each in wanted]
    assert [queue.position(each.job_id) for each in wanted] == [1, 2, 3, 4, 5]


def test_only_what_is_ready_has_a_place() -> None:
    """A job that is not ready, or runs, or is not known has none; one that stops being ready loses it."""
    queue = filled(job(job_id="a"), job(job_id="b", ready_at=0.0))
    queue.put(job(job_id="c", state=State.RUNNING, reason=None, step=Step.SNAPSHOT))
    assert (list(queue), queue.position("b"), queue.position("c"), queue.position("d")) == (["a"], None, None, None)
    queue.put(job(job_id="a", ready_at=0.0, reason=Reason.CHANGING))
    assert (len(queue), list(queue)) == (0, [])


def test_another_place() -> None:
    """A job whose priority changes moves; the others close up."""
    first, second = job("a.wav", job_id="a", ready_at=1.0), job("b.wav", job_id="b", ready_at=2.0)
    queue = filled(first, second)
    queue.put(msgspec.structs.replace(second, priority=1))
    assert (list(queue), queue.position("a")) == (["b", "a"], 2)
    queue.drop("b")
    queue.drop("b")  # it is not there any more
    assert (len(queue), queue.position("a")) == (1, 1)


def test_it_can_change_while_it_is_gone_through() -> None:
    """Whoever goes through it sees it as it was at the beginning."""
    queue = filled(job(job_id="a", ready_at=1.0), job(job_id="b", ready_at=2.0))
    seen = []
    for job_id in queue:
        queue.drop(job_id)
        seen.append(job_id)
    assert (seen, len(queue)) == (["a", "b"], 0)


def test_a_thousand_at_random() -> None:
    """Whatever is put and dropped, it is what sorting would give."""
    draw = random.Random(7)
    queue, there = JobQueue(), dict[str, Job]()
    for _ in range(3000):
        job_id = str(draw.randrange(200))
        if draw.random() < 0.3:
            queue.drop(job_id)
            there.pop(job_id, None)
        else:
            facts = {"priority": draw.randint(-2, 2), "ready_at": float(draw.randint(0, 5))}
            there[job_id] = job(f"{draw.randrange(9)}.wav", job_id=job_id, **facts)
            queue.put(there[job_id])
    ready = sorted((each for each in there.values() if each.ready_at), key=lambda each: (*each.order, each.job_id))
    assert list(queue) == [each.job_id for each in ready]
    assert [queue.position(each.job_id) for each in ready] == list(range(1, len(ready) + 1))
