"""Whose turn it is, and why the others wait: the scheduler on a real table, told what the worker and the folders are like."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from demixd.config import Config
from demixd.config.sections import Paths
from demixd.protocol.job import Job, Reason, State, Step
from demixd.protocol.options import Options
from demixd.protocol.status import DaemonFacts
from demixd.spool.tree import Spool
from demixd.supervisor.clock import SystemClock
from demixd.supervisor.jobs.pause import Pause
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.ledger import Ledger
from demixd.supervisor.runs.scheduler import Scheduler
from demixd.supervisor.workers.manager import Have
from jobs import job


class Worker:
    """What is warm, what cannot be had, and what was asked for."""

    takes_songs = True

    def __init__(self, warm: str = "htdemucs", missing: set[str] | None = None) -> None:
        self.warm = warm
        self.missing: set[str] = set() if missing is None else missing
        self.state, self.message = "ready", ""
        self.asked: list[str] = []

    @property
    def is_ready(self) -> bool:
        return self.state == "ready" and bool(self.warm)

    def serves(self, options: Options) -> bool:
        return options.model == self.warm

    def lacks(self, options: Options, _: float) -> bool:
        return options.model in self.missing

    def want(self, options: Options, _: float) -> Have:
        self.asked.append(options.model)
        return Have.READY if self.serves(options) else Have.MISSING if options.model in self.missing else Have.BUSY

    def why_missing(self, options: Options) -> str:
        return f"no {options.model}" if options.model in self.missing else ""


class Lane:
    """A worker, the songs that it has, and the one that was prepared for it last."""

    def __init__(self, stage: "Stage", worker: Worker) -> None:
        self._stage, self.worker = stage, worker
        self._started: list[str] = []
        self.prepared: str | None = None
        self.failed_at = 0.0

    @property
    def runs(self) -> list[Job]:
        return [job for job in self._stage.jobs.running if job.job_id in self._started]

    @property
    def has_room_beside(self) -> bool:
        return self._stage.has_room_beside

    @property
    def prepares(self) -> str | None:
        return self.prepared

    def has_prepared(self, job: Job) -> bool:
        return self.prepared == job.job_id

    def prepare(self, job: Job | None) -> None:
        self.prepared = job.job_id if job else None
        self._stage.prepared.append(self.prepared)

    def start(self, job_id: str) -> None:
        self._started.append(job_id)
        self.prepared = None


class Stage:
    """Everything that a scheduler decides by, and what it decided."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(Config(paths=Paths(spool=str(folder / "spool"), state=str(folder / "state"))))
        self.spool.status.mkdir(parents=True)
        self.ledger = Ledger(folder / "state" / "ledger", pytest.fail)
        self.jobs = JobTable(self.spool, self.ledger, DaemonFacts(instance="i", version="v"), lambda: 1000.0)
        self.wall = 1000.0
        self.lanes = [Lane(self, Worker())]
        self.folders = self
        self.missing: dict[str, str] = {}
        self.elsewhere: set[str] = set()
        """Songs that the inbox, which is another one now, does not show."""
        self.pausing: set[str] = set()
        self.pause = Pause(Config(), self.spool, SystemClock())
        self.has_room_beside = False
        self.started: list[str] = []
        self.prepared: list[str | None] = []
        self.pauses_ended = 0
        self.scheduler = Scheduler(self, self)  # type: ignore[arg-type]

    @property
    def workers(self) -> Worker:
        return self.lanes[0].worker

    def second(self, warm: str = "htdemucs") -> Lane:
        """Another worker joins."""
        self.lanes.append(Lane(self, Worker(warm, self.workers.missing)))
        return self.lanes[1]

    # as folders, as a pool, as a clock, and as a runner

    @property
    def pool(self) -> "Stage":
        return self

    @property
    def clock(self) -> Any:
        return SimpleNamespace(wall=lambda: self.wall)

    @property
    def best(self) -> Worker:
        return next((lane.worker for lane in self.lanes if lane.worker.is_ready), self.workers)

    def why_missing(self, options: Options) -> str:
        return self.workers.why_missing(options)

    def may_hold(self, name: str) -> bool:
        return name not in self.elsewhere

    def pauses(self, job: Job, _: float) -> bool:
        return job.job_id in self.pausing

    def end_pauses(self) -> None:
        self.pauses_ended += 1
        self.pausing.clear()

    def start(self, job: Job, lane: Lane) -> None:
        self.started.append(job.job_id)
        lane.start(job.job_id)
        for other in self.lanes:
            if other.prepared == job.job_id:
                other.prepared = None
        self.jobs.update(job, State.RUNNING, step=Step.SNAPSHOT)

    # what a test says

    def queue(self, *names: str, **facts: Any) -> None:
        """Songs become ready, one after the other; each has its name's first letter for an id."""
        for name in names:
            ready_at = self.jobs.next_place()
            self.jobs.add([job(f"{name}.wav", job_id=name, ready_at=ready_at, **facts)])

    def finish(self) -> None:
        """The jobs in flight are over."""
        for each in self.jobs.running:
            self.finish_one(each.job_id)

    def finish_one(self, job_id: str) -> None:
        (job,) = (each for each in self.jobs.running if each.job_id == job_id)
        self.jobs.close(msgspec.structs.replace(job, state=State.DONE))

    def begin(self) -> list[str]:
        """What is started now."""
        self.started = []
        self.scheduler.begin(1.0)
        return self.started

    def reason(self, name: str) -> tuple[str, str]:
        told = json.loads(self.spool.sidecar(f"{name}.wav").read_bytes())
        return told["reason"], told["message"]


def of(model: str) -> dict[str, Any]:
    return {"options": msgspec.structs.replace(Config().options, model=model)}


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    stage = Stage(tmp_path)
    yield stage
    stage.ledger.close()


def test_the_first_in_the_queue(stage: Stage) -> None:
    """One at a time; the next one is prepared meanwhile."""
    stage.queue("a", "b")
    assert stage.begin() == ["a"]
    assert stage.begin() == []
    assert stage.prepared[-1] == "b"


def test_a_twin_of_one_in_flight(stage: Stage) -> None:
    """It is passed over until that one is over; a model that another song lacks does not take away what it says."""
    stage.queue("a", "b", result_key="same")
    stage.queue("c", "d")
    stage.queue("e", **of("mdx"))
    stage.workers.missing.add("mdx")
    stage.second()
    stage.jobs.update(stage.jobs.queue()[1], State.WAITING, reason=Reason.QUEUED, message="The same song as a.wav")
    assert stage.begin() == ["a", "c"]
    stage.finish_one("c")
    assert stage.begin() == ["d"]
    stage.finish_one("d")
    assert stage.begin() == []
    assert stage.reason("e")[0] == "model-missing"
    stage.queue("f")
    assert stage.begin() == ["f"]
    assert stage.reason("b") == ("queued", "The same song as a.wav")
    stage.finish_one("a")
    assert stage.begin() == ["b"]


def test_beside_one_that_is_finishing(stage: Stage) -> None:
    """Once the model is free the next one starts, and the one after it is prepared."""
    stage.queue("a", "b", "c")
    stage.begin()
    stage.has_room_beside = True
    assert stage.begin() == ["b"]
    assert stage.prepared[-1] == "c"


def test_nothing_to_do(stage: Stage) -> None:
    """Whatever was prepared is dropped."""
    assert (stage.begin(), stage.prepared, stage.workers.asked) == ([], [None], [])


def test_one_that_pauses(stage: Stage) -> None:
    """A song that has hit an obstacle not long ago is passed over."""
    stage.queue("a", "b")
    stage.pausing.add("a")
    assert stage.begin() == ["b"]
    stage.finish()
    stage.pausing.clear()
    assert stage.begin() == ["a"]


def test_one_behind_an_older_job_of_its_name(stage: Stage) -> None:
    """A new drop of a running song waits for that one's end, whatever its place."""
    stage.queue("a")
    stage.begin()
    stage.jobs.add([job("a.wav", job_id="new", ready_at=stage.jobs.next_place(), priority=9)])
    stage.queue("b")
    stage.has_room_beside = True
    assert stage.begin() == ["b"]


def test_a_missing_folder(stage: Stage) -> None:
    """Everything waits and says for what; once it has returned nobody pauses any more, and the reasons are as before."""
    stage.queue("a", "b")
    stage.missing = {"outbox": "The outbox is gone."}
    stage.pausing.add("a")
    assert stage.begin() == []
    assert stage.reason("a") == stage.reason("b") == ("outbox-missing", "The outbox is gone.")
    stage.missing = {}
    assert (stage.begin(), stage.pauses_ended) == (["a"], 1)
    assert stage.reason("b") == ("queued", "")
    stage.begin()
    assert stage.pauses_ended == 1


def test_a_folder_that_goes_meanwhile(stage: Stage) -> None:
    """Beside a song in flight none is started or prepared then."""
    stage.queue("a", "b")
    stage.begin()
    stage.missing, stage.has_room_beside = {"outbox": "gone"}, True
    assert (stage.begin(), stage.prepared[-1]) == ([], None)


def test_a_song_of_another_inbox(stage: Stage) -> None:
    """It waits for its own inbox, and the others do not wait for it."""
    stage.queue("a", "b")
    stage.elsewhere.add("a.wav")
    assert stage.begin() == ["b"]
    assert stage.reason("a") == ("outbox-missing", "The inbox is another folder now, without this song.")


def test_the_log_counts_songs_that_wait_for_the_same(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Thousands may: one line says so, and one that they wait for their turn again; a single song is named."""
    stage.queue("a", "b", "c", "d")
    stage.queue("e", **of("mdx"))
    stage.workers.warm, stage.workers.state, stage.workers.message = "", "no-worker", "No machine has room"
    with caplog.at_level(logging.INFO, "demixd"):
        stage.begin()
        stage.begin()
        assert caplog.messages == ["5 songs: waiting (no-worker): No machine has room"]
        caplog.clear()
        stage.workers.warm, stage.workers.state = "htdemucs", "ready"
        stage.workers.missing.add("mdx")
        assert stage.begin() == ["a"]
        assert caplog.messages == ["a.wav: running (snapshot)", "3 songs: waiting (queued)"]
        caplog.clear()
        for _ in "abcd":
            stage.finish()
            stage.begin()
        assert caplog.messages[-1] == "e.wav: waiting (model-missing): no mdx"


def test_a_model_that_is_missing(stage: Stage) -> None:
    """Its songs say so, and others go before them."""
    stage.workers.missing.add("other")
    stage.queue("a", **of("other"))
    stage.queue("b")
    assert stage.begin() == ["b"]
    assert stage.reason("a") == ("model-missing", "no other")


def test_a_model_that_is_being_loaded(stage: Stage) -> None:
    """The first in the queue decides: nobody goes before it, and nobody asks for another model meanwhile."""
    stage.queue("a", **of("other"))
    stage.queue("b")
    assert stage.begin() == []
    assert stage.workers.asked == ["other"]
    assert stage.reason("a")[0] == stage.reason("b")[0] == "queued"
    stage.workers.warm = "other"
    assert stage.begin() == ["a"]


def test_a_model_that_is_being_fetched(stage: Stage) -> None:
    """All wait for it and say so; once it is there they wait for their turn again."""
    stage.queue("a", "b", **of("other"))
    stage.workers.state, stage.workers.message = "fetching", "Fetching other: 10 %"
    assert stage.begin() == []
    assert stage.reason("a") == stage.reason("b") == ("model-missing", "Fetching other: 10 %")
    stage.workers.state = "starting"
    assert stage.begin() == []
    assert stage.reason("a") == stage.reason("b") == ("queued", "")
    stage.workers.warm, stage.workers.state = "other", "ready"
    assert stage.begin() == ["a"]


def test_a_model_that_is_missing_beside_one_that_is_being_tuned(stage: Stage) -> None:
    """Its song goes on saying so, and says it once."""
    stage.workers.missing.add("gone")
    stage.queue("a", **of("gone"))
    stage.queue("b", **of("other"))
    stage.workers.state, stage.workers.message = "tuning", "Looking for the fastest way"
    stage.begin()
    before = stage.spool.sidecar("a.wav").stat()
    stage.begin()
    assert stage.reason("a") == ("model-missing", "no gone")
    assert stage.reason("b") == ("queued", "Looking for the fastest way")
    assert stage.spool.sidecar("a.wav").stat() == before


def test_another_model_is_not_loaded_beside_a_song(stage: Stage) -> None:
    """The next song wants one: it is not prepared, and none behind it goes before it."""
    stage.queue("a")
    stage.queue("b", **of("other"))
    stage.queue("c")
    stage.begin()
    stage.has_room_beside = True
    assert (stage.begin(), stage.prepared[-1]) == ([], None)
    assert stage.workers.asked == ["htdemucs"]


def test_a_model_that_is_missing_holds_up_nobody_beside_a_song(stage: Stage) -> None:
    """The next song whose model can be had follows."""
    stage.workers.missing.add("other")
    stage.queue("a")
    stage.queue("b", **of("other"))
    stage.queue("c")
    stage.begin()
    stage.has_room_beside = True
    assert stage.begin() == ["c"]


@pytest.mark.parametrize("who", ["in flight", "next"])
def test_one_that_runs_alone(stage: Stage, who: str) -> None:
    """Beside it nothing is started or prepared, and it is not beside another."""
    stage.queue("a", runs_alone=who == "in flight")
    stage.queue("b", runs_alone=who == "next")
    stage.queue("c")
    stage.begin()
    stage.has_room_beside = True
    assert (stage.begin(), stage.prepared[-1]) == ([], None)


def test_reasons_are_said_once(stage: Stage) -> None:
    """A sidecar is not written again where nothing has changed."""
    stage.queue("a")
    stage.missing = {"outbox": "The outbox is gone."}
    stage.begin()
    before = stage.spool.sidecar("a.wav").stat()
    stage.begin()
    assert stage.spool.sidecar("a.wav").stat() == before
    assert stage.jobs.active["a.wav"].reason is Reason.OUTBOX_MISSING


# ---- several workers


def had_by(stage: Stage) -> list[list[str]]:
    """The songs that each worker has."""
    return [[job.job_id for job in lane.runs] for lane in stage.lanes]


def test_two_workers(stage: Stage) -> None:
    """Each takes the first of what is left, and the two that come next are prepared, one for each."""
    stage.second()
    stage.queue("a", "b", "c", "d")
    assert (stage.begin(), had_by(stage)) == (["a", "b"], [["a"], ["b"]])
    stage.begin()
    assert [lane.prepared for lane in stage.lanes] == ["c", "d"]


def test_who_has_prepared_a_song_keeps_it(stage: Stage) -> None:
    """Among songs of equal priority a free worker takes its own; with nothing else left it takes that of the other."""
    second = stage.second()
    stage.queue("a", "b", "c", "d")
    stage.begin()
    stage.begin()
    stage.jobs.close(msgspec.structs.replace(second.runs[0], state=State.DONE))
    assert stage.begin() == ["d"]
    assert stage.lanes[0].prepared == "c"
    stage.jobs.close(msgspec.structs.replace(second.runs[0], state=State.DONE))
    assert (stage.begin(), had_by(stage)) == (["c"], [["a"], ["c"]])


def test_priority_before_what_is_prepared(stage: Stage) -> None:
    """Who is free takes it, also where another worker has prepared it."""
    stage.second()
    stage.queue("a", "b")
    stage.queue("c", priority=1)
    stage.queue("d")
    stage.begin()  # c and a
    stage.queue("e", priority=5)
    stage.begin()
    assert [lane.prepared for lane in stage.lanes] == ["b", "e"]
    stage.jobs.close(msgspec.structs.replace(stage.lanes[0].runs[0], state=State.DONE))
    assert stage.begin() == ["e"]


def test_the_warm_model_first(stage: Stage) -> None:
    """For a minute a worker prefers a song whose model it has; then it loads that of the first."""
    stage.queue("a", **of("other"))
    stage.queue("b", "c")
    stage.second()
    assert stage.begin() == ["b", "c"]
    stage.finish()
    stage.queue("d", "e")
    stage.wall += 61
    assert (stage.begin(), stage.workers.asked[-1]) == (["d"], "other")


def test_the_warm_model_as_long_as_another_worker_has_the_other(stage: Stage) -> None:
    stage.second("other")
    stage.queue("x", **of("other"))
    assert stage.begin() == ["x"]
    stage.queue("a", **of("other"))
    stage.queue("b")
    stage.wall += 3600
    assert stage.begin() == ["b"]
    assert [lane.prepared for lane in stage.lanes] == [None, "a"]


def test_the_warm_model_does_not_go_before_priority(stage: Stage) -> None:
    stage.second()
    stage.queue("a", priority=1, **of("other"))
    stage.queue("b")
    assert (stage.begin(), had_by(stage)) == (["b"], [[], ["b"]])
    assert stage.workers.asked == ["other"]


def test_one_that_runs_alone_waits_for_all_workers(stage: Stage) -> None:
    second = stage.second()
    stage.queue("a")
    stage.begin()
    stage.queue("b", runs_alone=True)
    stage.queue("c")
    assert stage.begin() == []
    stage.finish()
    assert stage.begin() == ["b"]
    assert stage.begin() == []
    assert second.prepared is None


def test_a_worker_that_is_not_warm_holds_up_nobody(stage: Stage) -> None:
    """It gets what the other does not take; and songs do not say that they wait for it."""
    second = stage.second("")
    second.worker.state, second.worker.message = "fetching", "Fetching htdemucs: 10 %"
    stage.queue("a", "b", "c")
    assert (stage.begin(), had_by(stage)) == (["a"], [["a"], []])
    assert stage.reason("b") == stage.reason("c") == ("queued", "")
    stage.begin()
    assert stage.lanes[0].prepared == "b"
    second.worker.takes_songs = False
    stage.finish()
    assert stage.begin() == ["b"]
