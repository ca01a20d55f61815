"""Cancel files: which of them stands, whom it means, and what is remembered of one that cannot be removed."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actions import tick
from demixd.config import Config
from demixd.config.sections import Paths
from demixd.protocol.identity import Identity
from demixd.spool import nofollow
from demixd.spool.tree import Spool
from demixd.supervisor.ledger import Ledger
from demixd.supervisor.runs.cancel_file import CancelFiles
from jobs import job


class Home:
    """Cancel files of an inbox with a song."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(Config(paths=Paths(spool=str(folder / "spool"), state=str(folder / "state"))))
        self.inbox = self.spool.inbox
        self.inbox.mkdir(parents=True)
        self.ledger = Ledger(folder / "state" / "ledger", pytest.fail)
        self.files = CancelFiles(self.spool, self.ledger)
        self.drop()
        self.job = job(identity=self.identity("song.wav"))

    def drop(self) -> None:
        """Another song comes in its place."""
        tick(self.folder)
        (self.folder / "new").write_bytes(os.urandom(10))
        (self.folder / "new").rename(self.inbox / "song.wav")

    def identity(self, name: str) -> Identity:
        return Identity.of((self.inbox / name).lstat())

    def cancel(self, name: str = "song.wav") -> Identity:
        tick(self.folder)
        (self.inbox / f"{name}.cancel").touch()
        return self.identity(f"{name}.cancel")


@pytest.fixture
def home(tmp_path: Path) -> Any:
    home = Home(tmp_path)
    yield home
    home.ledger.close()


def test_none(home: Home) -> None:
    """Without a file nothing is cancelled."""
    assert (home.files.standing(home.job), home.files.mean(home.job)) == (None, False)


def test_of_its_name(home: Home) -> None:
    """A file of the song's name means its job, and no other."""
    seen = home.cancel()
    assert (home.files.standing(home.job), home.files.mean(home.job)) == (seen, True)
    assert not home.files.mean(job("other.wav"))


def test_a_long_name(home: Home) -> None:
    """The cancel of a long name is called as its companions are."""
    long = job("x" * 150 + ".wav")
    home.spool.cancel(long.name).touch()
    assert home.files.mean(long)
    assert len(home.spool.cancel(long.name).name) < 120


def test_the_bare_one(home: Home) -> None:
    """It means every job, until it has been obeyed; a new one means them all again."""
    home.cancel("")
    assert home.files.mean(home.job)
    assert home.files.standing(home.job) is None
    home.files.obeyed_all = home.identity(".cancel")
    assert not home.files.mean(home.job)
    home.cancel("")  # its times have changed
    assert home.files.mean(home.job)


def test_the_bare_one_that_stays_is_remembered(home: Home) -> None:
    """The next start knows it too."""
    home.files.remember_all(home.cancel(""))
    again = CancelFiles(home.spool, home.ledger)
    assert again.obeyed_all == home.identity(".cancel")
    assert not again.mean(home.job)


def test_one_that_was_obeyed(home: Home) -> None:
    """It means nothing more to a job that knows it; another file of the name does."""
    obeyed = msgspec.structs.replace(home.job, cancel_file=home.cancel())
    assert not home.files.mean(obeyed)
    home.cancel()
    assert home.files.mean(obeyed)


def test_for_a_newer_drop(home: Home) -> None:
    """One that came after a new drop of the name is for that; one that was there before it is not."""
    early = home.cancel()
    assert not home.files.is_for_a_newer_drop(home.job, early)  # there is no newer one
    home.drop()
    assert not home.files.is_for_a_newer_drop(home.job, early)
    assert home.files.is_for_a_newer_drop(home.job, home.cancel())
    (home.inbox / "song.wav").unlink()
    assert not home.files.is_for_a_newer_drop(home.job, home.identity("song.wav.cancel"))


def test_removed(home: Home) -> None:
    """The file is gone, and the job needs to remember nothing."""
    seen = home.cancel()
    assert home.files.remove_of(home.job, seen, "song.wav.cancel") == home.job
    assert list(home.inbox.iterdir()) == [home.inbox / "song.wav"]
    assert home.files.remove("song.wav.cancel")  # it may have gone before


def test_one_that_cannot_be_removed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job remembers that it was obeyed."""

    def refuse(root: Path, path: Path, **_: bool) -> None:
        raise PermissionError(1, "not permitted", str(path))

    seen = home.cancel()
    monkeypatch.setattr(nofollow, "remove_file", refuse)
    kept = home.files.remove_of(home.job, seen, "song.wav.cancel")
    assert kept == msgspec.structs.replace(home.job, cancel_file=seen)
    assert not home.files.mean(kept)


@pytest.mark.parametrize("name", ["song.wav.cancel", ".cancel"])
def test_a_folder_is_no_cancel_file(home: Home, name: str) -> None:
    """It is listed as a folder, and means nobody."""
    (home.inbox / name).mkdir()
    assert (home.files.standing(home.job), home.files.mean(home.job)) == (None, False)
