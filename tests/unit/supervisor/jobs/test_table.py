"""The jobs of each name: which one its sidecar shows, what is written down, and what follows when one ends."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demixd.config import Config
from demixd.config.sections import Paths
from demixd.protocol.job import IllegalMoveError, Job, Reason, Stage, State, Step
from demixd.protocol.status import DaemonFacts
from demixd.spool.tree import Spool
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.ledger import Ledger
from jobs import identity, job


class Home:
    """A table on a spool and a ledger of its own; `now` is the time of day."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(Config(paths=Paths(spool=str(folder / "spool"), state=str(folder / "state"))))
        self.spool.status.mkdir(parents=True)
        self.ledger = Ledger(folder / "state" / "ledger", pytest.fail)
        self.now = 1_000_000.0
        self.table = JobTable(self.spool, self.ledger, DaemonFacts(instance="i", version="v"), lambda: self.now)

    def shown(self, name: str = "song.wav") -> dict[str, Any]:
        """The sidecar; {} where there is none."""
        path = self.spool.sidecar(name)
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def end(self, job: Job, state: State = State.CANCELLED) -> Job:
        """As an ending does: final, shown, finished."""
        job = self.table.commit(msgspec.structs.replace(job, state=state, reason=None, step=None), Stage.FINAL)
        self.table.write_sidecar(job)
        job = self.table.commit(job, Stage.FINISHED)
        self.table.close(job)
        return job

    def run(self, job: Job) -> Job:
        return self.table.update(job, State.RUNNING, step=Step.SEPARATE)


@pytest.fixture
def home(tmp_path: Path) -> Any:
    home = Home(tmp_path)
    yield home
    home.ledger.close()


def test_a_new_job(home: Home) -> None:
    """It is in the ledger, shown, and in the queue."""
    home.table.add([job()])
    assert (home.shown()["state"], home.shown()["progress"]["queue_position"]) == ("waiting", 1)
    assert [each.job_id for each in home.table.queue()] == [each.job_id for each in home.ledger.unfinished()]
    assert home.table.waiting("song.wav") == home.table.newest("song.wav") == job()


def test_a_newer_drop_waits_behind(home: Home) -> None:
    """While the old job runs its sidecar names the new one; after it the new one's names the old."""
    home.table.add([job(job_id="a")])
    old = home.run(home.table.active["song.wav"])
    home.table.add([job(job_id="b", identity=identity(inode=9))])
    assert (home.shown()["job_id"], home.shown()["next"]) == ("a", "b")
    assert home.table.newest("song.wav") == home.table.successors["song.wav"] == home.table.waiting("song.wav")
    home.end(home.table.active["song.wav"], State.DONE)
    assert (home.shown()["job_id"], home.shown()["next"]) == ("b", None)
    assert home.shown()["previous"] == {"job_id": old.job_id, "state": "done", "output": None}
    assert (home.table.successors, home.table.newest("song.wav").job_id) == ({}, "b")  # type: ignore[union-attr]


def test_whoever_changes_the_old_job_need_not_know_of_the_new(home: Home) -> None:
    """A value of the old job from before the drop does not take `next` away."""
    home.table.add([job(job_id="a")])
    old = home.run(home.table.active["song.wav"])
    home.table.add([job(job_id="b")])
    home.table.update(old, State.RUNNING, step=Step.ENCODE)
    assert (home.shown()["step"], home.shown()["next"]) == ("encode", "b")


def test_a_newer_drop_that_ends_first(home: Home) -> None:
    """It is not shown while the old job runs; afterwards the sidecar is its own."""
    home.table.add([job(job_id="a")])
    home.run(home.table.active["song.wav"])
    home.table.add([job(job_id="b")])
    home.end(home.table.successors["song.wav"], State.FAILED)
    assert home.shown()["job_id"] == "a"
    home.end(home.table.active["song.wav"], State.DONE)
    assert (home.shown()["job_id"], home.shown()["state"]) == ("b", "failed")
    assert home.shown()["previous"]["job_id"] == "a"
    assert home.table.active == {}


def test_two_newer_drops_of_which_one_has_ended(home: Home) -> None:
    """The last one is shown, with the one before it as `previous`."""
    home.table.add([job(job_id="a")])
    home.run(home.table.active["song.wav"])
    for job_id in "bc":
        home.table.add([job(job_id=job_id)])
        if job_id == "b":
            home.end(home.table.successors["song.wav"])
    home.end(home.table.active["song.wav"], State.DONE)
    assert (home.shown()["job_id"], home.shown()["previous"]["job_id"]) == ("c", "b")


def test_seq_grows(home: Home, tmp_path: Path) -> None:
    """Within a life by one, and from one life to the next by more than any life can count."""
    first = home.table.seq()
    assert home.table.seq() == first + 1
    home.ledger.close()
    home.ledger = Ledger(tmp_path / "state" / "ledger", pytest.fail)
    again = JobTable(home.spool, home.ledger, DaemonFacts(instance="i", version="v"), lambda: 0.0)
    assert again.seq() >> 32 == (first >> 32) + 1


def test_places_in_the_queue_go_on(home: Home) -> None:
    """Who becomes ready later is behind, also where the time of day has been put back."""
    places = []
    for now in (1000.0, 2000.0, 500.0, 500.0):
        home.now = now
        places.append(home.table.next_place())
        home.table.add([job(f"{len(places)}.wav", job_id=str(len(places)), ready_at=places[-1])])
    assert places == sorted(set(places))
    assert [each.job_id for each in home.table.queue()] == ["1", "2", "3", "4"]


def test_a_kept_original(home: Home) -> None:
    """A finished job whose original lies in the inbox is remembered until its name has another job."""
    home.table.add([job(job_id="a", kept=identity())])
    home.end(home.table.active["song.wav"], State.DONE)
    assert home.table.kept["song.wav"].job_id == "a"
    home.table.save(msgspec.structs.replace(home.table.kept["song.wav"], tag="noted"))
    assert (home.table.kept["song.wav"].tag, home.table.active) == ("noted", {})
    home.table.add([job(job_id="b")])
    assert home.table.kept == {}


def test_a_job_of_a_former_life_that_was_outlived(home: Home) -> None:
    """A newer drop that had ended first is shown after the old job also where the daemon died in between."""
    home.ledger.put([job(job_id="a", stage=Stage.STARTED)])
    over = {"state": State.FAILED, "reason": None, "stage": Stage.FINISHED}
    home.ledger.put([job(job_id="b", **over)])
    found = home.ledger.unfinished()[0]
    assert home.table.recall_newer(found)
    home.table.add([found])
    home.end(found)
    assert (home.shown()["job_id"], home.shown()["state"]) == ("b", "failed")


def test_nothing_newer(home: Home) -> None:
    """A job that is the last of its name, or has one behind it that is not finished, was not outlived."""
    home.ledger.put([job(job_id="a")])
    assert not home.table.recall_newer(job(job_id="a"))
    home.ledger.put([job(job_id="b")])
    assert not home.table.recall_newer(job(job_id="a"))


def test_counts(home: Home) -> None:
    """Each end is counted once."""
    for number, state in enumerate((State.DONE, State.DONE, State.FAILED, State.CANCELLED)):
        home.table.add([job(f"{number}.wav", job_id=str(number))])
        home.end(home.table.active[f"{number}.wav"], state)
    assert home.table.counts == {"done": 2, "failed": 1, "cancelled": 1, "retries": 0}


def test_illegal_moves(home: Home) -> None:
    """What is final stays so; waiting has a reason, and running a step."""
    done = job(state=State.DONE, reason=None)
    for state, changes in ((State.WAITING, {"reason": Reason.RETRY}), (State.RUNNING, {"step": Step.MIX})):
        with pytest.raises(IllegalMoveError):
            home.table.update(done, state, **changes)
    for state in (State.WAITING, State.RUNNING):
        with pytest.raises(IllegalMoveError):
            home.table.update(job(reason=None), state)
    assert home.shown() == {}


def test_status_that_cannot_be_written(home: Home) -> None:
    """It says so, and does not stop the work: the job goes on."""
    home.table.add([job()])
    home.spool.sidecar("song.wav").unlink()
    home.spool.status.rmdir()
    assert not home.table.write_sidecar(home.table.active["song.wav"])
    assert home.run(home.table.active["song.wav"]).state is State.RUNNING
    assert not home.spool.status.exists()
