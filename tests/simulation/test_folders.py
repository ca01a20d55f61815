"""Folders that go away in the middle of something: nothing is made in their place, and nothing is lost."""

import errno
import json
import os
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demixd.supervisor.inbox import profile_folders
from queues import all_done_once, drop, looks, order_of_work, queue, queued, running, warned
from simulated import Simulated, simulated
from simulated_songs import make_song


@contextmanager
def started(folder: Path) -> Iterator[Simulated]:
    """A quick daemon that is ready, and is stopped at the end; a song that has hit an obstacle is tried again soon."""
    daemon = Simulated(folder)
    daemon.constants["demixd.supervisor.runs.outcomes:RETRY_S"] = 0.5
    try:
        daemon.start()
        yield daemon.ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def go(folder: Path) -> Path:
    """The folder goes away, to what is given back."""
    return folder.rename(folder.with_name(f"away-{folder.name}"))


def listed(daemon: Simulated) -> dict[str, str]:
    """What `_inbox.json` says."""
    return {entry["name"]: entry["reason"] for entry in daemon.read("_inbox.json").get("entries", [])}


def test_a_spool_that_is_not_there_is_logged_once(tmp_path: Path) -> None:
    """One sentence for all of its folders, which are made once it is there; only a folder that was there is there again."""
    daemon = Simulated(tmp_path)
    shutil.rmtree(daemon.spool)
    try:
        daemon.start()
        daemon.sleep(5)
        assert daemon.log.read_text().count(f"{daemon.spool} is not there: mount it, or make it; ") == 1
        daemon.spool.mkdir()
        daemon.ready()
        assert daemon.inbox.is_dir()
        told = daemon.log.read_text()
        assert f"{daemon.inbox} is there\n" in told
        assert "there again" not in told  # it never was
        daemon.until(lambda: daemon.read("_daemon.json").get("warnings") == [], "all is well")
        away = go(daemon.outbox)
        daemon.until(lambda: daemon.read("_daemon.json").get("warnings"), "it is missed")
        away.rename(daemon.outbox)
        daemon.until(lambda: f"{daemon.outbox} is there again\n" in daemon.log.read_text(), "it is there again")
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.mark.parametrize("folder", ["inbox", "done"])
def test_a_folder_that_goes_as_the_original_is_put_away(tmp_path: Path, folder: str) -> None:
    """1.7.9: an original that is not found, or cannot be stored, since a folder has just gone is put away once it is back."""
    with simulated(tmp_path) as daemon:
        away = daemon.spool / f"away-{folder}"
        daemon.at["9-original"] = [lambda: go(daemon.spool / folder) and None]
        make_song(daemon.inbox / "song.wav", 0.3)
        job = daemon.state("song.wav", "done")["job_id"]
        daemon.sleep(30)
        away.rename(daemon.spool / folder)
        daemon.quiet()
        assert (daemon.song("song.wav")["job_id"], daemon.song("song.wav")["warnings"]) == (job, [])
        assert [path.name for path in (daemon.spool / "done").iterdir()] == ["song.wav"]
        assert list(daemon.inbox.iterdir()) == []


@pytest.mark.parametrize("crash", [False, True])
def test_a_song_that_is_deleted_while_status_is_away(tmp_path: Path, crash: bool) -> None:
    """1.3: its end is shown once the sidecar can be written, also where the daemon dies before."""
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "a.wav", 0.2)
        make_song(daemon.inbox / "b.wav", 0.2)
        daemon.until(lambda: daemon.song("b.wav").get("reason") == "queued", "queued")
        status = go(daemon.spool / "status")
        (daemon.inbox / "b.wav").unlink()
        daemon.sleep(5)
        if crash:
            daemon.kill()
            daemon.start()
            daemon.sleep(5)
        daemon.hold.unlink()
        status.rename(daemon.spool / "status")
        daemon.quiet()
        assert daemon.song("a.wav")["state"] == "done"
        assert (daemon.song("b.wav")["state"], daemon.song("b.wav")["message"]) == (
            "cancelled",
            "The song was deleted.",
        )


def test_a_late_cancel_while_status_is_away(tmp_path: Path) -> None:
    """1.5.1: it is answered, and goes, once the answer can be written."""
    with simulated(tmp_path) as daemon:
        make_song(daemon.inbox / "song.wav", 0.2)
        daemon.final("song.wav")
        daemon.quiet()
        status = go(daemon.spool / "status")
        (daemon.inbox / "song.wav.cancel").touch()
        daemon.sleep(5)
        status.rename(daemon.spool / "status")
        daemon.quiet()
        assert daemon.song("song.wav")["cancel"]["result"] == "too-late"
        assert list(daemon.inbox.iterdir()) == []


def test_a_drop_that_ended_first_while_status_is_away(tmp_path: Path) -> None:
    """1.2: a new drop that ended before the old one of its name is shown after it, also where status was away then."""
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.until(lambda: daemon.song("song.wav").get("step") == "separate", "separating")
        (daemon.inbox / "song.wav.job.json").write_text(json.dumps({"what": 1}))
        make_song(tmp_path / "song.wav", 0.5).rename(daemon.inbox / "song.wav")
        daemon.until(lambda: (daemon.spool / "failed" / "song.wav").exists(), "the new drop has failed")
        status = go(daemon.spool / "status")
        assert daemon.worker is not None
        daemon.worker.die()
        daemon.sleep(5)
        daemon.hold.unlink()
        status.rename(daemon.spool / "status")
        daemon.quiet()
        assert daemon.song("song.wav")["error"]["code"] == "bad-options"


# ---- renamed away and back


def test_an_inbox_that_goes_away_during_a_job(tmp_path: Path) -> None:
    """Nothing is cancelled and the order is kept; the finished song's original is moved when the inbox is back, once."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "running.wav")
        running(daemon, "running.wav")
        drop(daemon, "c.wav", "a.wav", "b.wav")
        queued(daemon, "c.wav", "a.wav", "b.wav")
        daemon.inbox.rename(tmp_path / "away")
        warned(daemon, str(daemon.inbox))
        daemon.hold.unlink()
        assert daemon.state("running.wav", "done", "failed", "cancelled")["state"] == "done"
        for name in ("a.wav", "b.wav", "c.wav"):
            waiting = daemon.until(lambda n=name: (s := daemon.song(n))["reason"] == "outbox-missing" and s, "it waits")
            assert str(daemon.inbox) in waiting["message"]
        looks(daemon)
        assert queue(daemon) == ["c.wav", "a.wav", "b.wav"]
        assert not daemon.inbox.exists()
        assert sorted(path.name for path in (tmp_path / "away").iterdir()) == ["a.wav", "b.wav", "c.wav", "running.wav"]
        (tmp_path / "away").rename(daemon.inbox)
        all_done_once(daemon, "running.wav", "c.wav", "a.wav", "b.wav")
    assert order_of_work(daemon) == ["running.wav", "c.wav", "a.wav", "b.wav"]


def test_songs_are_queued_again_when_a_folder_is_back(tmp_path: Path) -> None:
    """The reason for which songs waited goes with the reason: they wait for their turn again."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "a.wav")
        running(daemon, "a.wav")
        drop(daemon, "b.wav", "c.wav", "d.wav")
        queued(daemon, "b.wav", "c.wav", "d.wav")
        (daemon.spool / "failed").rename(tmp_path / "away")
        warned(daemon, str(daemon.spool / "failed"))
        daemon.hold.unlink()
        assert daemon.final("a.wav")["state"] == "done"
        daemon.until(lambda: daemon.song("d.wav")["reason"] == "outbox-missing", "it waits")
        daemon.hold.touch()
        (tmp_path / "away").rename(daemon.spool / "failed")
        running(daemon, "b.wav")
        for position, name in enumerate(("c.wav", "d.wav"), 1):
            daemon.until(lambda n=name: daemon.song(n)["reason"] == "queued", f"{name} is queued")
            assert daemon.song(name)["progress"]["queue_position"] == position
        daemon.hold.unlink()
        all_done_once(daemon, "a.wav", "b.wav", "c.wav", "d.wav")


@pytest.mark.parametrize("is_moved", [False, True])
def test_an_inbox_at_another_path(tmp_path: Path, is_moved: bool) -> None:
    """After [paths] has changed no song is cancelled that the new inbox does not show, also at the start after that.

    Where the songs were moved there too, it counts at once.
    """
    daemon, other = Simulated(tmp_path), tmp_path / "other"

    def states() -> list[str | None]:
        return [daemon.song(name).get("state") for name in ("one.wav", "two.wav")]

    try:
        daemon.start()
        for name in ("one.wav", "two.wav"):
            (daemon.inbox / name).touch()  # empty: they wait
        daemon.until(lambda: states() == ["waiting"] * 2, "they wait")
        daemon.stop()
        daemon.config.write_text(daemon.config.read_text().replace(str(daemon.spool), str(other)))
        daemon.spool.rename(other) if is_moved else other.mkdir()
        daemon.look_away()
        daemon.spool, daemon.inbox = other, other / "inbox"
        for _ in range(2):
            daemon.start()
            daemon.until(lambda: states() == ["waiting"] * 2, "they wait again")
            looks(daemon)
            assert states() == ["waiting"] * 2
            told = f"{daemon.inbox} (inbox) is another folder than before: "
            assert any(told in each for each in daemon.read("_daemon.json")["warnings"]) is not is_moved
            daemon.stop()
        daemon.start()
        if not is_moved:
            (daemon.inbox / "one.wav").touch()  # it comes as well, and the other is wanted no more
            (daemon.inbox / "two.wav.cancel").touch()
            assert daemon.final("two.wav")["state"] == "cancelled"
            looks(daemon)
        (daemon.inbox / "one.wav").unlink()
        assert daemon.final("one.wav")["state"] == "cancelled", "the inbox counts"
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_an_inbox_that_is_made_anew(tmp_path: Path) -> None:
    """Songs of an inbox that is another folder now are not cancelled, but can be, by file; new drops are served."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "running.wav")
        running(daemon, "running.wav")
        drop(daemon, "one.wav", "two.wav")
        queued(daemon, "one.wav", "two.wav")
        daemon.inbox.rename(tmp_path / "deleted")
        daemon.inbox.mkdir()
        shutil.rmtree(tmp_path / "deleted")
        daemon.hold.unlink()
        assert daemon.state("running.wav", "done", "failed", "cancelled")["state"] == "done"
        looks(daemon)
        assert daemon.song("one.wav")["state"] == daemon.song("two.wav")["state"] == "waiting"
        drop(daemon, "new.wav")
        assert daemon.final("new.wav")["state"] == "done"
        daemon.until((daemon.spool / "done" / "new.wav").exists, "the new drop is put away")
        assert daemon.song("one.wav")["state"] == daemon.song("two.wav")["state"] == "waiting"
        (daemon.inbox / "one.wav.cancel").touch()
        assert daemon.final("one.wav")["state"] == "cancelled"
        assert daemon.song("two.wav")["state"] == "waiting"
        (daemon.inbox / "two.wav.cancel").touch()
        assert daemon.final("two.wav")["state"] == "cancelled"
        drop(daemon, "later.wav")
        assert daemon.final("later.wav")["state"] == "done"
        daemon.quiet()
        (daemon.inbox / "gone.wav").touch()
        daemon.until(lambda: daemon.song("gone.wav").get("reason") == "empty", "it waits")
        (daemon.inbox / "gone.wav").unlink()
        assert daemon.final("gone.wav")["state"] == "cancelled", "the inbox counts again"
        daemon.quiet()
    assert list(daemon.inbox.iterdir()) == []


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_an_outbox_that_goes_away(tmp_path: Path, when: str) -> None:
    """Before, during or after a job: songs wait as `outbox-missing`, nothing is made in its place, and it goes on."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        if when == "during":
            drop(daemon, "song.wav")
            running(daemon, "song.wav")
        elif when == "after":
            drop(daemon, "song.wav")
            daemon.hold.unlink()
            all_done_once(daemon, "song.wav")
        daemon.outbox.rename(tmp_path / "away")
        warned(daemon, str(daemon.outbox))
        name = "next.wav" if when == "after" else "song.wav"
        if when != "during":
            drop(daemon, name)
        daemon.hold.unlink(missing_ok=True)
        daemon.until(lambda: daemon.song(name)["reason"] == "outbox-missing", "it waits")
        looks(daemon)
        waiting = daemon.song(name)
        assert (waiting["state"], waiting["reason"], waiting["attempt"]) == ("waiting", "outbox-missing", 0)
        assert not daemon.outbox.exists()
        (tmp_path / "away").rename(daemon.outbox)
        all_done_once(daemon, *dict.fromkeys(["song.wav", name]))
        assert daemon.song(name)["attempt"] == 1


def test_work_that_was_given_up_while_the_outbox_was_away(tmp_path: Path) -> None:
    """The work folder of a song that was prepared, and replaced while its outbox was away, goes when that is back."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "running.wav")
        running(daemon, "running.wav")
        drop(daemon, "next.wav")
        daemon.until(lambda: len(daemon.works()) == 2, "the next one is prepared")
        first = daemon.song("next.wav")["job_id"]
        daemon.outbox.rename(tmp_path / "away")
        drop(daemon, "next.wav")
        daemon.until(lambda: daemon.song("next.wav")["job_id"] != first, "it is replaced")
        assert (tmp_path / "away" / ".demixd" / first).exists()
        (tmp_path / "away").rename(daemon.outbox)
        daemon.until(lambda: first not in {path.name for path in daemon.works()}, "its work folder goes")
        daemon.hold.unlink()
        for name in ("running.wav", "next.wav"):
            assert daemon.final(name)["state"] == "done"
        daemon.until(lambda: not daemon.works(), "no work folder")


@pytest.mark.parametrize("when", ["during", "at the end", "between", "at a start"])
def test_a_private_folder_that_is_taken_away(tmp_path: Path, when: str) -> None:
    """The outbox is others' to write: the song is done all the same, in a new private folder, and costs no attempt."""
    with started(tmp_path) as daemon:
        private = daemon.outbox / ".demixd"
        taken = tmp_path / "taken"
        if when == "at the end":
            daemon.at["5-publishing"] = [lambda: private.rename(taken) and None]
        elif when != "during":
            if when == "at a start":
                daemon.kill()
            shutil.rmtree(private)
            if when == "at a start":
                daemon.start().ready()
        daemon.hold.touch()
        drop(daemon, "song.wav")
        running(daemon, "song.wav")
        if when == "during":
            private.rename(taken)
        daemon.hold.unlink()
        all_done_once(daemon, "song.wav")
        assert daemon.song("song.wav")["attempt"] == 1
        assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("after", ["move", "delete", "keep"])
def test_stems_that_are_taken_before_they_are_published(tmp_path: Path, after: str) -> None:
    """The daemon dies just before the rename, and the private folder goes: the song is done again, and not called done."""
    daemon = Simulated(tmp_path, inbox={"after": after})
    try:
        daemon.start(at={"6-rename": "kill"}).ready()
        drop(daemon, "song.wav")
        daemon.until_dead()
        shutil.rmtree(daemon.outbox / ".demixd")
        daemon.start().ready()
        assert daemon.final("song.wav")["output"]["dir"] == "song"
        assert (daemon.outbox / "song" / "stems.json").is_file()
    finally:
        daemon.end()


def test_an_outbox_that_nobody_may_enter_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be looked into is away: the worker that has just finished a song is not called a liar, nor ended."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "song.wav")
        running(daemon, "song.wav")
        (work,) = daemon.works()
        real, shut = os.open, True

        def opened(path: Any, *args: Any, **more: Any) -> int:
            if shut and (path == "out" or str(path).endswith((work.name, "/out"))):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *args, **more)

        monkeypatch.setattr(os, "open", opened)
        daemon.hold.unlink()
        daemon.until(lambda: daemon.song("song.wav")["state"] == "waiting", "it waits")
        shut = False
        all_done_once(daemon, "song.wav")
        assert daemon.song("song.wav")["attempt"] == 1


def test_a_private_folder_of_a_former_version(tmp_path: Path) -> None:
    """It was open to the group, who could move what is in it: it is closed. Results have the group of the share still."""
    private = tmp_path / "spool" / "outbox" / ".demixd"
    private.mkdir(parents=True)
    private.chmod(0o2775)
    with simulated(tmp_path):
        assert private.stat().st_mode & 0o7777 == 0o2700


@pytest.mark.parametrize("is_new", [True, False])
def test_a_private_folder_of_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool) -> None:
    """RestrictSUIDSGID= lets nobody set S_ISGID, not even where it is set: a new folder is private all the same."""
    outbox = tmp_path / "spool" / "outbox"
    outbox.mkdir(parents=True)
    outbox.chmod(0o2775)
    if not is_new:
        (outbox / ".demixd").mkdir()
        (outbox / ".demixd").chmod(0o2775)
    real = os.chmod

    def chmod(path: Any, mode: int, **more: Any) -> None:
        if mode & stat.S_ISGID:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        real(path, mode, **more)

    monkeypatch.setattr(os, "chmod", chmod)
    with simulated(tmp_path) as daemon:
        drop(daemon, "song.wav")
        all_done_once(daemon, "song.wav")
        assert (outbox / ".demixd").stat().st_mode & 0o7777 == (0o2700 if is_new else 0o2775)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays another user")
def test_a_private_folder_of_somebody_else(tmp_path: Path) -> None:
    """Songs wait, with the reason, until it is gone; nothing is put into it."""
    with started(tmp_path) as daemon:
        private = daemon.outbox / ".demixd"
        shutil.rmtree(private)
        private.mkdir()
        os.chown(private, 12345, 12345)
        drop(daemon, "song.wav")
        daemon.until(lambda: daemon.song("song.wav").get("reason") == "outbox-missing", "it waits")
        assert (
            f"{private} (outbox/.demixd) cannot be used: it belongs to another user"
            in daemon.song("song.wav")["message"]
        )
        assert list(private.iterdir()) == []
        private.rmdir()
        all_done_once(daemon, "song.wav")


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    """The daemon says that it is none, and goes on by itself once a folder is there."""
    daemon = Simulated(tmp_path)
    daemon.outbox.rmdir() if daemon.outbox.exists() else None
    daemon.outbox.touch()
    try:
        daemon.start()
        daemon.sleep(5)
        assert f"{daemon.outbox} (outbox) is no folder: put one in its place; " in daemon.log.read_text()
        daemon.outbox.unlink()
        daemon.ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_work_folder_that_holds_no_files(tmp_path: Path) -> None:
    """Nothing is taken before there is another: a song that needs it would fail at it."""
    daemon = Simulated(tmp_path, paths={"work": "/proc"})
    try:
        daemon.start()
        daemon.sleep(5)
        told = (
            "/proc (work) cannot be used, no file can be made in it (No such file or directory): set [paths] work to "
        )
        assert told in daemon.log.read_text()
        assert told in " ".join(daemon.read("_daemon.json")["warnings"])
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_status_that_goes_away(tmp_path: Path) -> None:
    """The running song is done all the same; when status/ is back its sidecars are right, and its files grow again."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "song.wav")
        running(daemon, "song.wav")
        drop(daemon, "next.wav")
        queued(daemon, "next.wav")
        status = daemon.spool / "status"
        status.rename(tmp_path / "away")
        daemon.hold.unlink()
        daemon.until((daemon.outbox / "song" / "stems.json").exists, "published")
        make_song(daemon.inbox / "fresh.wav")
        (daemon.inbox / "notes.txt").touch()
        assert not status.exists()
        (tmp_path / "away").rename(status)
        all_done_once(daemon, "song.wav", "next.wav", "fresh.wav")
        entries = daemon.until(lambda: daemon.read("_inbox.json").get("entries"), "the inbox is explained")
        assert [each["name"] for each in entries] == ["notes.txt"]
        looks(daemon)


@pytest.mark.parametrize("quickly", [False, True], ids=["", "at once"])
def test_a_status_that_is_made_anew(tmp_path: Path, quickly: bool) -> None:
    """An empty new status/ is filled again with what is true now."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "song.wav")
        running(daemon, "song.wav")
        drop(daemon, "next.wav")
        queued(daemon, "next.wav")
        (daemon.inbox / "notes.txt").touch()
        daemon.until(lambda: daemon.read("_inbox.json").get("entries"), "explained")
        status = daemon.spool / "status"
        status.rename(tmp_path / "away")
        if not quickly:
            daemon.until(lambda: "(status) is gone" in daemon.log.read_text(), "it is noticed")
        status.mkdir()
        daemon.until(lambda: daemon.song("next.wav").get("reason") == "queued", "the waiting song is shown")
        daemon.until(lambda: daemon.song("song.wav").get("state") == "running", "the running song is shown")
        daemon.until(lambda: daemon.read("_inbox.json").get("entries"), "the inbox is explained")
        daemon.hold.unlink()
        all_done_once(daemon, "song.wav", "next.wav")


@pytest.mark.parametrize("is_lost", [False, True], ids=["put back", "lost"])
def test_a_state_folder_that_is_taken_away(tmp_path: Path, is_lost: bool) -> None:
    """It is said, and songs wait: what is written into a ledger without a name is lost at the next start. None is done twice."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "song.wav")
        running(daemon, "song.wav")
        drop(daemon, "next.wav")
        queued(daemon, "next.wav")
        state = tmp_path / "state"
        state.rename(tmp_path / "away")
        warned(daemon, f"{state}/ledger.sqlite3 is gone")
        daemon.hold.unlink()
        assert daemon.final("song.wav")["state"] == "done"
        daemon.until(lambda: daemon.song("next.wav")["reason"] == "outbox-missing", "it waits")
        looks(daemon)
        told = [line for line in daemon.log.read_text().splitlines() if "ledger.sqlite3 is gone" in line]
        assert ["waiting (outbox-missing)" in line for line in told] == [False, True]
        assert (daemon.inbox / "song.wav").exists() and not state.exists()
        if is_lost:
            daemon.look_away()
            daemon.kill()
            shutil.rmtree(tmp_path / "away")
            daemon.start().ready()
            assert daemon.final("next.wav")["state"] == "done"
            daemon.quiet()
        else:
            (tmp_path / "away").rename(state)
            all_done_once(daemon, "song.wav", "next.wav")
    assert {path.name for path in daemon.outbox.iterdir()} == {".demixd", "song", "next"}
    assert order_of_work(daemon) == ["song.wav", "next.wav"]


@pytest.mark.parametrize("part", ["done", "failed"])
def test_a_place_for_originals_that_goes_away(tmp_path: Path, part: str) -> None:
    """While done/ or failed/ is away an original stays where it is; then it goes there, and nothing is done twice."""
    with started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "song.wav")
        running(daemon, "song.wav")
        place = daemon.spool / part
        place.rename(tmp_path / "away")
        daemon.hold.unlink()
        if part == "failed":
            (daemon.inbox / "song.wav.cancel").touch()
        state = daemon.state("song.wav", "done", "cancelled")["state"]
        looks(daemon)
        assert (daemon.inbox / "song.wav").exists()
        assert not place.exists()
        drop(daemon, "next.wav")
        daemon.until(lambda: daemon.song("next.wav")["reason"] == "outbox-missing", "it waits")
        (tmp_path / "away").rename(place)
        daemon.until((place / "song.wav").exists, "put away")
        assert daemon.final("next.wav")["state"] == "done"
        daemon.quiet()
        assert daemon.song("song.wav")["state"] == state == ("done" if part == "done" else "cancelled")
    assert list(daemon.inbox.iterdir()) == []


# ---- mounts


def test_folders_of_profiles_are_made(tmp_path: Path) -> None:
    """The inbox has a folder for each profile from the start, and for a new one after the configuration was read again."""
    inbox = {"profile_folders": True}
    sections: dict[str, Any] = {"profiles.karaoke": {"stems": ["vocals"]}, 'profiles."Müll"': {"stems": ["drums"]}}
    other = tmp_path / "spool" / "inbox" / unicodedata.normalize("NFD", "Müll")
    other.mkdir(parents=True)
    with simulated(tmp_path, inbox=inbox, **sections) as daemon:
        assert {path.name for path in daemon.inbox.iterdir()} == {"karaoke", other.name}
        with daemon.config.open("a", encoding="utf-8") as file:
            file.write('[profiles.practice]\nstems = ["no_vocals"]\n')
        daemon.reload()
        daemon.until((daemon.inbox / "practice").is_dir, "the folder of the new profile")
        (daemon.inbox / "practice").rmdir()
        daemon.sleep(60)
        assert not (daemon.inbox / "practice").exists()


def test_folders_of_profiles_that_are_no_more(tmp_path: Path) -> None:
    """One that the daemon has made goes with its profile, if nothing is in it, also after a restart; what others made stays."""
    stems = {"stems": ["vocals"]}
    names = ("empty", "full", "later", "theirs")
    (tmp_path / "spool" / "inbox" / "theirs").mkdir(parents=True)
    with simulated(
        tmp_path, inbox={"profile_folders": True}, **{f"profiles.{name}": stems for name in names}
    ) as daemon:
        (daemon.inbox / "full" / "notes.txt").touch()
        text = daemon.config.read_text(encoding="utf-8")
        kept, later = text.partition("[profiles.")[0], '[profiles.later]\nstems = ["vocals"]\n'
        daemon.config.write_text(kept + later, encoding="utf-8")
        daemon.reload()
        daemon.until(lambda: not (daemon.inbox / "empty").exists(), "the empty folder goes")
        assert {path.name for path in daemon.inbox.iterdir()} == {"full", "later", "theirs"}
        daemon.config.write_text(kept, encoding="utf-8")
        assert daemon.stop() == 0
        daemon.start().ready()
        assert {path.name for path in daemon.inbox.iterdir()} == {"full", "theirs"}


def test_the_folder_of_a_profile_that_is_no_more_goes_after_its_last_song(tmp_path: Path) -> None:
    """Without another look at the configuration."""
    with simulated(tmp_path, inbox={"profile_folders": True}, **{"profiles.gone": {"stems": ["vocals"]}}) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "gone" / "song.wav")
        running(daemon, "gone/song.wav")
        text = daemon.config.read_text(encoding="utf-8")
        daemon.config.write_text(text.partition("[profiles.")[0], encoding="utf-8")
        daemon.reload()
        looks(daemon)
        assert (daemon.inbox / "gone").exists()
        daemon.hold.unlink()
        assert daemon.final("gone/song.wav")["state"] == "done"
        daemon.until(lambda: not (daemon.inbox / "gone").exists(), "the folder goes")


@pytest.mark.parametrize("another", ["owner", "birth"])
def test_the_folder_of_a_profile_with_the_inode_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: str
) -> None:
    """An inode is given again: an empty folder of another owner, or another birth, is somebody else's, and stays."""
    with simulated(tmp_path, inbox={"profile_folders": True}, **{"profiles.gone": {"stems": ["vocals"]}}) as daemon:
        folder = daemon.inbox / "gone"
        if another == "owner":
            if os.geteuid() != 0:
                pytest.skip("needs root: it plays another user")
            os.chown(folder, 12345, 12345)
        else:
            monkeypatch.setattr(profile_folders, "born_ns", lambda *_: 1)
        text = daemon.config.read_text(encoding="utf-8")
        daemon.config.write_text(text.partition("[profiles.")[0], encoding="utf-8")
        daemon.reload()
        looks(daemon)
        assert folder.is_dir()


def test_an_original_that_cannot_be_put_away(tmp_path: Path) -> None:
    """A link below done/ is not followed: the song's warning says where its original cannot go, and what helps."""
    with simulated(tmp_path) as daemon:
        (daemon.spool / "done").mkdir(exist_ok=True)
        (daemon.spool / "done" / "sub").symlink_to(tmp_path)
        (daemon.inbox / "sub").mkdir()
        make_song(daemon.inbox / "sub" / "song.wav", 0.3)
        daemon.state("sub/song.wav", "done")
        daemon.quiet()
        assert daemon.song("sub/song.wav")["warnings"] == [
            f"The original stays in the inbox: it cannot be moved to {daemon.spool}/done/sub/song.wav (Not a directory); "
            "mend that, and move it yourself."
        ]
        assert (daemon.inbox / "sub" / "song.wav").exists()
