"""When a file is ready: it has looked the same for the settle time, and nobody has it open for writing."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demixd.config import Config
from demixd.config.sections import Inbox, Limits, Paths
from demixd.errors import AudioProcessingError, Code
from demixd.protocol import options
from demixd.protocol.identity import Identity
from demixd.protocol.inbox_names import Kind
from demixd.protocol.job import Job, Reason
from demixd.protocol.options import JobOptions
from demixd.spool.leases import lease_fails, survive_lease_breaks
from demixd.spool.tree import Spool
from demixd.supervisor.inbox import readiness
from demixd.supervisor.inbox.readiness import FOREVER, RECHECK_S, InboxMounts, Readiness, Settling
from demixd.supervisor.inbox.scan import NOTHING, Seen
from jobs import identity, job

SETTLE_S, REMOTE_S, GRACE_S = 2.0, 10.0, 600.0


class Home:
    """An inbox with a song in it."""

    def __init__(self, folder: Path) -> None:
        paths = Paths(spool=str(folder), state=str(folder / "state"))
        settings = {
            "inbox": Inbox(settle=SETTLE_S, settle_remote=REMOTE_S),
            "limits": Limits(truncated_grace_s=GRACE_S),
        }
        config = Config(paths=paths, **settings)
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.song = self.inbox / "song.wav"
        self.song.write_bytes(b"music")
        self.readiness = Readiness(config, Spool(config), lambda: 0.0)
        self.readiness.mounts.renew(self.inbox)

    def seen(self, **facts: Any) -> Seen:
        """The song as the next listing has it."""
        path = self.inbox / "song.wav.job.json"
        options = Identity.of(path.lstat()) if path.exists() else None
        found = Identity.of(self.song.lstat())
        return Seen(**{"name": "song.wav", "kind": Kind.SONG, "identity": found, "options": options, **facts})

    def options(self, text: str) -> None:
        (self.inbox / "song.wav.job.json").write_text(text)

    def at(self, now: float, of: Job | None = None, **facts: Any) -> tuple[Reason | None, float]:
        verdict = self.readiness.of(of or job(), self.seen(**facts), now)
        return verdict.reason, verdict.look_again_at


@pytest.fixture
def home(tmp_path: Path) -> Home:
    survive_lease_breaks()
    return Home(tmp_path)


def test_it_settles(home: Home) -> None:
    """It is ready when it has looked the same for the settle time, and not a moment sooner."""
    assert home.at(100.0) == (Reason.CHANGING, 102.0)
    assert home.at(101.9) == (Reason.CHANGING, 102.0)
    assert home.at(102.0) == (None, FOREVER)


@pytest.mark.parametrize("how", ["size", "mtime", "inode", "ctime"])
def test_it_settles_anew(home: Home, how: str) -> None:
    """Whatever changes about it, the settle time begins again."""
    home.at(100.0)
    if how == "size":
        with home.song.open("ab") as file:
            file.write(b"more")
    elif how == "mtime":
        os.utime(home.song, ns=(1, 1))
    elif how == "inode":
        (home.inbox / "new").write_bytes(b"music")
        (home.inbox / "new").rename(home.song)
    else:
        home.song.chmod(0o600)
    assert home.at(102.0) == (Reason.CHANGING, 104.0)
    assert home.at(104.0) == (None, FOREVER)


def test_an_empty_file(home: Home) -> None:
    """It is no song yet, however long it lies there."""
    home.song.write_bytes(b"")
    assert home.at(1000.0) == (Reason.EMPTY, FOREVER)


def test_what_is_not_ready_has_a_sentence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reason comes with words: which file is in the way, and what has to become of it."""

    def said(now: float, **facts: Any) -> str:
        return home.readiness.of(job(), home.seen(**facts), now).message

    assert said(0.0, companion="song.wav.aria2").startswith("song.wav.aria2 beside it says that it is not complete;")
    assert said(0.0) == "The song came or changed a moment ago; it is taken once it keeps looking the same."
    for reason, words in (("OPEN_FOR_WRITING", "open for writing"), ("PERMISSION", "may not read the song:")):
        monkeypatch.setattr(readiness, "writer_has", lambda *_, reason=reason: Reason[reason])
        assert words in said(10.0)
    home.options("{}")
    assert said(20.0).startswith("Its option file came or changed")
    home.song.write_bytes(b"")
    assert said(0.0) == "The song has no bytes yet."


def test_a_companion(home: Home) -> None:
    """What another file beside it says comes before anything else."""
    assert home.at(1000.0, companion="song.wav.part") == (Reason.COMPANION_FILE, FOREVER)


def test_a_writer(home: Home) -> None:
    """While somebody has it open for writing it is not ready, and is looked at again soon."""
    if why := lease_fails(home.inbox):
        pytest.skip(f"no leases here: {why}")
    home.at(100.0)
    with home.song.open("r+b"):
        assert home.at(102.0) == (Reason.OPEN_FOR_WRITING, 102.0 + RECHECK_S)
    assert home.at(103.0) == (None, FOREVER)


def test_options_are_read_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a song is looked at that is not ready; a file that has changed is read again."""
    read: list[bytes] = []
    parse = options.parse
    monkeypatch.setattr(options, "parse", lambda data: (read.append(data), parse(data))[1])
    home.options('{"priority": 1}')
    home.at(100.0)
    for look in range(5):
        home.song.write_bytes(b"music" * (look + 2))
        assert home.at(103.0 + look)[0] is Reason.CHANGING
    assert read == [b'{"priority": 1}']
    home.options('{"priority": 22}')
    home.at(200.0)
    assert home.at(203.0) == (None, FOREVER)
    assert read[1:] == [b'{"priority": 22}']
    verdict = home.readiness.of(job(), home.seen(), 204.0)
    assert isinstance(verdict.options, JobOptions)
    assert verdict.options.own.priority == 22


def test_it_went_just_now(home: Home) -> None:
    """A listing that is not true any more makes nothing ready."""
    home.at(100.0)
    seen = home.seen()
    home.song.unlink()
    assert home.readiness.of(job(), seen, 102.0).reason is Reason.CHANGING


def test_a_truncated_song(home: Home) -> None:
    """It waits for growth until its grace is over; then it is taken once more. What grows settles as any other."""
    home.at(100.0)
    cut = job(reason=Reason.TRUNCATED, identity=home.seen().identity, truncated_since=90.0)
    assert home.at(102.0, cut) == (Reason.TRUNCATED, 90.0 + GRACE_S)
    assert home.at(90.0 + GRACE_S, cut) == (None, FOREVER)
    with home.song.open("ab") as file:
        file.write(b"the rest")
    assert home.at(800.0, cut) == (Reason.CHANGING, 802.0)
    assert home.at(802.0, cut) == (None, FOREVER)


def test_options_settle_too(home: Home) -> None:
    """The song waits for its option file, and gets what it says."""
    home.at(100.0)
    home.options('{"tag": "mine"}')
    assert home.at(102.0) == (Reason.CHANGING, 104.0)
    verdict = home.readiness.of(job(), home.seen(), 104.0)
    assert isinstance(verdict.options, JobOptions)
    assert (verdict.reason, verdict.options.own.tag) == (None, "mine")


def test_options_that_are_being_written(home: Home) -> None:
    """They are not read half."""
    if why := lease_fails(home.inbox):
        pytest.skip(f"no leases here: {why}")
    home.options("{}")
    home.at(100.0)
    with (home.inbox / "song.wav.job.json").open("a"):
        assert home.at(102.0) == (Reason.OPEN_FOR_WRITING, 102.0 + RECHECK_S)


@pytest.mark.parametrize("text", ["{", '{"what": 1}', "[]", " " * (64 * 1024 + 1)])
def test_bad_options(home: Home, text: str) -> None:
    """They are an answer too: the song is ready, to fail with it."""
    home.options(text)
    home.at(100.0)
    verdict = home.readiness.of(job(), home.seen(), 102.0)
    assert isinstance(verdict.options, AudioProcessingError)
    assert (verdict.reason, verdict.options.code) == (None, Code.BAD_OPTIONS)


def test_a_hash_instead_of_the_settle_time(home: Home) -> None:
    """`wait_for_sha256` makes it ready at once, once its options are; never while somebody writes."""
    home.options(json.dumps({"wait_for_sha256": hashlib.sha256(b"music").hexdigest()}))
    home.at(100.0)
    os.utime(home.song, ns=(1, 1))
    assert home.at(102.0) == (None, FOREVER)
    if lease_fails(home.inbox) is None:
        with home.song.open("r+b"):
            assert home.at(102.0)[0] is Reason.OPEN_FOR_WRITING


def test_a_remote_filesystem_takes_longer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others may write without our kernel's knowing, the longer settle time holds."""
    monkeypatch.setattr(InboxMounts, "is_remote", lambda *_: True)
    assert home.at(100.0) == (Reason.CHANGING, 100.0 + REMOTE_S)


def test_what_is_not_listed_is_forgotten(home: Home) -> None:
    """A file that went and came again as it was settles anew."""
    home.at(100.0)
    home.readiness.forget_others(NOTHING)
    assert home.at(102.0) == (Reason.CHANGING, 104.0)


def test_settling_is_by_name() -> None:
    """Each name has a time of its own, and one that is forgotten begins again."""
    settling, file = Settling(), identity()
    assert settling.over_at("a", file, 2.0, 10.0) == 12.0
    assert settling.over_at("b", file, 2.0, 11.0) == 13.0
    settling.forget({"b"})
    assert settling.over_at("a", file, 2.0, 20.0) == 22.0
    assert settling.over_at("b", file, 2.0, 20.0) == 13.0
    assert settling.over_at("b", msgspec.structs.replace(file, ctime_ns=6), 2.0, 20.0) == 22.0
