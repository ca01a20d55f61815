"""What the ledger forgets, and when."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demixd.config import Config
from demixd.config.sections import Paths
from demixd.errors import StopProcessingError
from demixd.protocol import status
from demixd.protocol.job import Job, Output, Stage, State
from demixd.protocol.status import DaemonFacts
from demixd.spool.tree import ENDS, Spool
from demixd.supervisor.clock import utc
from demixd.supervisor.folders import Folders
from demixd.supervisor.jobs.retention import AT_ONCE, DAY_S, EVERY_S, Retention
from demixd.supervisor.jobs.table import JobTable
from demixd.supervisor.ledger import Ledger
from jobs import identity, job
from simulated_clock import SimulatedClock


class Home:
    """A ledger and a spool that are swept; `look` lets an hour go by."""

    def __init__(self, folder: Path) -> None:
        self.config = Config(paths=Paths(spool=str(folder / "spool"), state=str(folder / "state")))
        self.spool = Spool(self.config)
        self.spool.inbox.parent.mkdir()
        self.path = folder / "state" / "ledger"
        self.ledger = Ledger(self.path, pytest.fail)
        self.clock = SimulatedClock()
        table = JobTable(self.spool, self.ledger, DaemonFacts(instance="i", version="v"), self.clock.wall)
        self.folders = Folders(self.spool, self.ledger)
        self.folders.look()
        self.retention = Retention(self.spool, table, self.clock, self.ledger, self.folders)
        self._count = 0

    def ended(self, name: str, days: float = 31, **facts: Any) -> Job:
        """A job that ended so many days ago; its result was in a folder of that name."""
        self._count += 1
        usual = {"state": State.DONE, "stage": Stage.FINISHED, "reason": None, "output": Output(dir=name, files=())}
        since = utc(self.clock.wall() - days * DAY_S)
        made = job(name, **{"job_id": f"{self._count:032x}", "state_since": since, **usual, **facts})
        self.ledger.put([made])
        return made

    def look(self, times: int = 2) -> None:
        self.clock.sleep(EVERY_S)
        for _ in range(times):
            self.folders.look()
            self.retention.look(self.clock.now(), self.config, lambda: None)

    def known(self) -> list[str]:
        with sqlite3.connect(self.path) as other:
            names = [name.decode() for (name,) in other.execute("SELECT name FROM jobs ORDER BY number")]
        other.close()
        return names


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.ledger.close()


def test_a_job_is_forgotten(home: Home) -> None:
    """When it ended `keep_days` ago and nothing is left of it: neither its song in the inbox, nor sidecar, nor result."""
    for name in ("gone", "song", "sidecar", "result", "young", "running", "last"):
        home.ended(name, **({"stage": Stage.STARTED} if name == "running" else {}), days=29 if name == "young" else 31)
    home.spool.song("song").touch()
    home.spool.sidecar("sidecar").touch()
    (home.spool.outbox / "result").mkdir()
    home.look()
    assert home.known() == ["song", "sidecar", "result", "young", "running", "last"]
    (home.spool.outbox / "result").rmdir()
    home.look()
    assert home.known() == ["song", "sidecar", "young", "running", "last"]


def test_an_older_job_of_a_name(home: Home) -> None:
    """Song and sidecar are the newest one's: a name that is dropped every day does not fill the ledger."""
    for _ in range(3):
        home.ended("song")
    home.ended("last")
    home.spool.sidecar("song").touch()
    home.look()
    assert home.known() == ["song", "last"]


@pytest.mark.parametrize("part", ["inbox", "outbox", "status", "done"])
def test_nothing_is_forgotten_while_a_folder_is_away(home: Home, part: str) -> None:
    """What lies in it cannot be seen. Once it is back, and the song really gone, the next sweep sees to it."""
    home.ended("song")
    home.ended("last")
    folder = home.spool.named[part]
    folder.rename(folder.with_name("away"))
    home.look()
    assert home.known() == ["song", "last"]
    folder.with_name("away").rename(folder)
    home.look()
    assert home.known() == ["last"]


def test_a_folder_that_goes_away_meanwhile(home: Home) -> None:
    """It is looked for once more before anything is forgotten."""
    home.ended("song")
    home.ended("last")
    home.clock.sleep(EVERY_S)
    home.retention.look(home.clock.now(), home.config, lambda: None)
    home.spool.outbox.rename(home.spool.outbox.with_name("away"))
    home.retention.look(home.clock.now(), home.config, lambda: None)
    assert home.known() == ["song", "last"]


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
def test_a_share_within_the_inbox_that_is_not_mounted(home: Home, is_there: bool) -> None:
    """The songs that were left in it stay known, and their sidecars: it may be mounted again. Others are forgotten."""
    inbox = home.spool.inbox.stat().st_dev
    jobs = [
        home.ended("share/song", kept=identity(device=inbox + 1)),
        home.ended("share/moved"),
        home.ended("album/song", kept=identity(device=inbox)),
        home.ended("song", kept=identity(device=inbox + 1)),
        home.ended("last"),
    ]
    if is_there:
        (home.spool.inbox / "share").mkdir()
    for each in jobs:
        facts = DaemonFacts(instance="i", version="v")
        told = status.sidecar(each, seq=1, position=None, eta_s=None, daemon=facts, now=each.state_since)
        path = home.spool.sidecar(each.name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.encode(told))
        os.utime(path, (0, 0))
    home.look()
    assert home.known() == ["share/song", "last"]
    assert [path.name for path in home.spool.status.rglob("*.json")] == ["song.json"]


def test_few_at_a_time(home: Home) -> None:
    """The loop goes on after each look, however long the ledger is; a sweep comes to its end all the same."""
    for number in range(3 * AT_ONCE):
        home.ended(f"{number}")
    home.ended("last")
    home.look(times=2)
    assert len(home.known()) == 2 * AT_ONCE + 1
    home.look(times=3)
    assert home.known() == ["last"]


def test_a_sweep_of_many_files_can_be_ended(home: Home) -> None:
    """A sweep of sidecars goes on from file to file only as long as its caller lets it."""
    for number in range(5):
        home.ended(f"{number}")
    home.spool.status.mkdir(exist_ok=True)
    for number in range(5):
        path = home.spool.status / f"{number}.json"
        path.write_text("{}")
        os.utime(path, (0, 0))
    asked: list[int] = []

    def go_on() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise StopProcessingError

    home.clock.sleep(EVERY_S)
    with pytest.raises(StopProcessingError):
        home.retention.look(home.clock.now(), home.config, go_on)
    assert len(asked) == 3


def told(home: Home, *ages: float) -> list[str]:
    """A list of ends of so many days ago, an hour younger each: what a sweep has left of it."""
    lines = [f'{{"updated_at": "{utc(home.clock.wall() - age * DAY_S)}", "end": {n}}}\n' for n, age in enumerate(ages)]
    home.spool.status.mkdir(parents=True, exist_ok=True)
    path = home.spool.status / ENDS
    path.write_text("".join(lines))
    home.look()
    left = path.read_text().splitlines(keepends=True)
    assert left == lines[len(lines) - len(left) :]
    return left


def test_old_ends_are_cut_off(home: Home) -> None:
    """Lines go once the first is a day older than `keep_days`, and all that are old go with it; the others stay as they are."""
    assert len(told(home, 30.5, 30.2, 3)) == 3
    assert len(told(home, 31.5, 31, 30.2, 29.9, 29, 0)) == 3
    assert len(told(home, 40, 39)) == 0


def test_what_lies_in_the_place_of_the_list(home: Home) -> None:
    """Junk among old lines goes with them, that among others stays; a link is not followed, and where no list is none is made."""
    home.spool.status.mkdir(parents=True, exist_ok=True)
    path = home.spool.status / ENDS
    old, young = (f'{{"updated_at": "{utc(home.clock.wall() - days * DAY_S)}"}}\n' for days in (40, 1))
    deep = '{"a":' + "[" * 5000 + "]" * 5000 + "}\n"
    path.write_text(old + "junk\n" + deep + old + young + "junk\n" + young)
    home.look()
    assert path.read_text() == young + "junk\n" + young
    path.rename(home.spool.status.parent / "victim")
    victim = home.spool.status.parent / "victim"
    victim.write_text(old)
    path.symlink_to(victim)
    home.look()
    assert victim.read_text() == old
    path.unlink()
    home.look()
    assert not path.exists()
