"""Whose turn it is, and why the others wait: the scheduler on a real table, told what the worker and the folders are like."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demixd.config import Config, Paths
from demixd.protocol.job import Job, Reason, State, Step
from demixd.protocol.options import Options
from demixd.protocol.status import DaemonFacts
from demixd.spool.tree import Spool
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.ledger import Ledger
from demixd.supervisor.runs.scheduler import Scheduler
from demixd.supervisor.workers.manager import Have
from jobs import job


class Workers:
    """What is warm, what cannot be had, and what was asked for."""

    def __init__(self) -> None:
        self.warm = "htdemucs"
        self.missing: set[str] = set()
        self.state, self.message = "ready", ""
        self.asked: list[str] = []

    def serves(self, options: Options) -> bool:
        return options.model == self.warm

    def lacks(self, options: Options, _: float) -> bool:
        return options.model in self.missing

    def want(self, options: Options, _: float) -> Have:
        self.asked.append(options.model)
        return Have.READY if self.serves(options) else Have.MISSING if options.model in self.missing else Have.BUSY

    def why_missing(self, options: Options) -> str:
        return f"no {options.model}" if options.model in self.missing else ""


class Stage:
    """Everything that a scheduler decides by, and what it decided."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(Config(paths=Paths(spool=str(folder / "spool"), state=str(folder / "state"))))
        self.spool.status.mkdir(parents=True)
        self.ledger = Ledger(folder / "state" / "ledger", pytest.fail)
        self.jobs = JobTable(self.spool, self.ledger, DaemonFacts(instance="i", version="v"), lambda: 1000.0)
        self.workers = Workers()
        self.folders = self
        self.missing: dict[str, str] = {}
        self.elsewhere: set[str] = set()
        """Songs that the inbox, which is another one now, does not show."""
        self.pausing: set[str] = set()
        self.has_room_beside = False
        self.started: list[str] = []
        self.prepared: list[str | None] = []
        self.pauses_ended = 0
        self.scheduler = Scheduler(self, self)  # type: ignore[arg-type]

    # as folders and as a runner

    def may_hold(self, name: str) -> bool:
        return name not in self.elsewhere

    def pauses(self, job: Job, _: float) -> bool:
        return job.job_id in self.pausing

    def end_pauses(self) -> None:
        self.pauses_ended += 1
        self.pausing.clear()

    def start(self, job: Job) -> None:
        self.started.append(job.job_id)
        self.jobs.update(job, State.RUNNING, step=Step.SNAPSHOT)

    def prepare(self, job: Job | None) -> None:
        self.prepared.append(job.job_id if job else None)

    # what a test says

    def queue(self, *names: str, **facts: Any) -> None:
        """Songs become ready, one after the other; each has its name's first letter for an id."""
        for name in names:
            ready_at = self.jobs.next_place()
            self.jobs.add([job(f"{name}.wav", job_id=name, ready_at=ready_at, **facts)])

    def finish(self) -> None:
        """The jobs in flight are over."""
        for each in self.jobs.running:
            self.jobs.close(msgspec.structs.replace(each, state=State.DONE))

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
