"""Cancel files, point by point: whom each one means, what becomes of it, and what it must not do."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from demixd.spool import nofollow
from demixd.spool.tree import companion
from simulated import Simulated, simulated
from simulated_songs import make_song


def reasons(daemon: Simulated) -> dict[str, str]:
    """What `_inbox.json` says."""
    return {entry["name"]: entry["reason"] for entry in daemon.read("_inbox.json").get("entries", [])}


def separating(daemon: Simulated, name: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.until(
        lambda: (s := daemon.song(name)).get("step") == "separate" and s, f"{name} being separated"
    )
    return found


@pytest.fixture
def cannot_be_removed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """While its value is true no cancel file can be removed."""
    is_stuck, remove = [True], nofollow.remove_file

    def refuse(root: Path, path: Path, **how: bool) -> None:
        if is_stuck[0] and path.name.endswith(".cancel"):
            raise PermissionError(1, "Operation not permitted", str(path))
        remove(root, path, **how)

    monkeypatch.setattr(nofollow, "remove_file", refuse)
    return is_stuck


def test_a_waiting_song(tmp_path: Path) -> None:
    """1.5.1: a song that waits for its turn is cancelled, also below a folder and under a long name; it goes to failed/."""
    long = "long " * 40 + ".wav"
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "running.wav", 0.2)
        separating(daemon, "running.wav")
        (daemon.inbox / "sub").mkdir()
        for name in ("sub/a.wav", long):
            make_song(daemon.inbox / name, 0.2)
        daemon.until(lambda: len(daemon.read("_daemon.json")["queue"]) == 2, "two in the queue")
        (daemon.inbox / "sub" / "a.wav.cancel").touch()
        short = companion(long, "")
        assert short != long
        (daemon.inbox / f"{short}.cancel").touch()
        for name in ("sub/a.wav", long):
            sidecar = daemon.final(name)
            assert (sidecar["state"], sidecar["cancel"]["result"]) == ("cancelled", "cancelled")
        failed = daemon.spool / "failed"
        daemon.until(lambda: (failed / "sub" / "a.wav").exists() and (failed / long).exists(), "originals in failed/")
        daemon.until(lambda: not list(daemon.inbox.rglob("*.cancel")), "the cancel files to go")
        assert daemon.song("running.wav")["state"] == "running"
        daemon.hold.unlink()
        daemon.quiet()
        (daemon.inbox / f"{short}.cancel").touch()
        daemon.until(lambda: not (daemon.inbox / f"{short}.cancel").exists(), "the late cancel to go")
        assert "no-such-job" not in reasons(daemon).values()
        assert daemon.song(long)["state"] == "cancelled"


def test_too_late(tmp_path: Path) -> None:
    """1.5.1: a cancel for a song that is done is acknowledged as `too-late`, removed, and changes nothing."""
    with simulated(tmp_path) as daemon:
        make_song(daemon.inbox / "song.wav", 0.2)
        assert daemon.final("song.wav")["cancel"] is None
        daemon.quiet()
        before = daemon.results()
        (daemon.inbox / "song.wav.cancel").touch()
        sidecar = daemon.until(lambda: (s := daemon.song("song.wav"))["cancel"] and s, "an answer")
        assert (sidecar["state"], sidecar["cancel"]["result"]) == ("done", "too-late")
        daemon.until(lambda: not list(daemon.inbox.iterdir()), "the cancel file to go")
        assert daemon.results() == before


@pytest.mark.parametrize("made", ["before", "after"])
@pytest.mark.parametrize("name", ["early.wav.cancel", ".cancel"])
@pytest.mark.parametrize("seen", ["first", "together", "down"])
def test_a_cancel_that_comes_before_its_song(tmp_path: Path, made: str, name: str, seen: str) -> None:
    """1.5.1: a cancel that is seen before its song, or with it, means it if it was made before the cancel, else it is expired.

    `seen`: what the daemon sees of the cancel, before the song or with it, also when it was down.
    """
    daemon = Simulated(tmp_path, inbox={"watch": "poll", "scan_interval": 1.0})

    def make() -> None:
        daemon.tick()
        make_song(tmp_path / "early.wav", 0.2)
        daemon.tick()

    try:
        if seen != "down":
            daemon.start().ready()
        if made == "before":
            make()
        (daemon.inbox / name).touch()
        if seen == "first" and name != ".cancel":
            daemon.until(lambda: reasons(daemon).get(name) == "no-such-job", "listed")
        if made == "after":
            make()
        (tmp_path / "early.wav").rename(daemon.inbox / "early.wav")
        if seen == "down":
            daemon.start().ready()
        sidecar = daemon.final("early.wav")
        assert (sidecar["state"], bool(sidecar["cancel"])) == (
            ("cancelled", True) if made == "before" else ("done", False)
        )
        daemon.until(lambda: not list(daemon.inbox.iterdir()), "the cancel file to go")
        daemon.quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_cancel_for_nobody(tmp_path: Path) -> None:
    """1.5.1: a cancel for a name that nobody knows waits for two looks; then it goes."""
    with simulated(tmp_path, inbox={"watch": "poll", "scan_interval": 1.0}) as daemon:
        (daemon.inbox / "nobody.wav.cancel").touch()
        daemon.until(lambda: "nobody.wav.cancel" in reasons(daemon), "listed")
        daemon.until(lambda: not list(daemon.inbox.iterdir()), "the stranger to go")
        daemon.until(lambda: reasons(daemon) == {}, "an empty list")
        assert daemon.results() == set()


@pytest.mark.parametrize("name", ["song.wav.cancel", ".cancel"])
@pytest.mark.parametrize("again", [False, True])
def test_an_expired_cancel_is_told_and_survives_a_crash(
    tmp_path: Path, cannot_be_removed: list[bool], name: str, again: bool
) -> None:
    """1.5.1: an expired cancel is listed as such, and means nothing more, also where the daemon dies before it can go."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().ready()
        (daemon.inbox / name).touch()
        daemon.tick()
        make_song(daemon.inbox / "song.wav", 0.2)
        daemon.until(lambda: reasons(daemon).get(name) == "expired", "told")
        if again:
            daemon.kill()
            daemon.start().ready()
        assert daemon.final("song.wav")["state"] == "done"
        cannot_be_removed[0] = False
        daemon.until(lambda: not list(daemon.inbox.iterdir()), "the cancel file to go")
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.mark.parametrize("name", ["song.wav.cancel", ".cancel"])
def test_options_go_along(tmp_path: Path, name: str) -> None:
    """The option file of a song that is cancelled before it was ready goes to failed/ with it, and is no other song's."""
    with simulated(tmp_path) as daemon:
        (daemon.inbox / "song.wav.job.json").write_text('{"tag": "mine"}')
        make_song(daemon.inbox / "song.wav", 0.2)
        daemon.until(lambda: daemon.song("song.wav").get("reason") == "changing", "seen")
        (daemon.inbox / name).touch()
        assert daemon.final("song.wav")["state"] == "cancelled"
        daemon.quiet()
        assert sorted(path.name for path in (daemon.spool / "failed").iterdir()) == ["song.wav", "song.wav.job.json"]
        make_song(daemon.inbox / "song.wav", 0.3)
        assert daemon.until(lambda: (s := daemon.song("song.wav"))["state"] == "done" and s, "done")["tag"] is None


def test_a_cancel_while_it_was_down(tmp_path: Path) -> None:
    """1.5.1: a cancel that came after its song, while the daemon was not running, counts."""
    daemon = Simulated(tmp_path)
    make_song(daemon.inbox / "song.wav", 0.2)
    make_song(daemon.inbox / "other.wav", 0.2)
    (daemon.inbox / "song.wav.cancel").touch()
    try:
        daemon.start().ready()
        assert daemon.final("song.wav")["state"] == "cancelled"
        assert daemon.final("other.wav")["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_bare_cancel_and_then_a_drop(tmp_path: Path) -> None:
    """A song that is dropped after the bare `.cancel`, and first seen together with it, is done; those before are not."""
    with simulated(tmp_path, inbox={"watch": "poll", "scan_interval": 3.0}) as daemon:
        daemon.hold.touch()
        for name in ("first.wav", "second.wav"):
            make_song(daemon.inbox / name, 0.2)
        separating(daemon, "first.wav")
        daemon.until(lambda: daemon.song("second.wav").get("reason") == "queued", "queued")
        (daemon.inbox / ".cancel").touch()
        daemon.tick()
        make_song(daemon.inbox / "after.wav", 0.2)
        daemon.hold.unlink()
        assert daemon.final("after.wav")["state"] == "done"
        for name in ("first.wav", "second.wav"):
            assert daemon.final(name)["state"] == "cancelled"
        daemon.until(lambda: not list(daemon.inbox.iterdir()), "everything put away")


def test_without_events(tmp_path: Path) -> None:
    """1.5.1: a running song is cancelled within 5 s also where no events come and scans are rare."""
    with simulated(tmp_path, inbox={"watch": "poll", "scan_interval": 2.0}) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.2)
        separating(daemon, "song.wav")
        began = daemon.clock.now()
        (daemon.inbox / "song.wav.cancel").touch()
        assert daemon.final("song.wav")["state"] == "cancelled"
        assert daemon.clock.now() - began < 5


def test_a_deleted_song_is_cancelled(tmp_path: Path) -> None:
    """1.5.4: deleting a waiting song cancels it; the running one is not touched by it."""
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "running.wav", 0.2)
        separating(daemon, "running.wav")
        make_song(daemon.inbox / "waiting.wav", 0.2)
        daemon.until(lambda: daemon.song("waiting.wav").get("reason") == "queued", "queued")
        (daemon.inbox / "waiting.wav").unlink()
        (daemon.inbox / "running.wav").unlink()
        assert daemon.final("waiting.wav")["state"] == "cancelled"
        assert daemon.song("running.wav")["state"] == "running"
        daemon.hold.unlink()
        assert daemon.final("running.wav")["state"] == "done"


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_cancel_and_a_new_drop_and_the_daemon_ends(tmp_path: Path, how: str) -> None:
    """1.5.1: a cancel that was there before a new drop is not for it, also where the daemon ends before the old one has."""
    daemon = Simulated(tmp_path)
    try:
        daemon.start().ready()
        for name in ("hold", "deaf"):
            (tmp_path / name).touch()
        make_song(daemon.inbox / "song.wav", 0.2)
        first = separating(daemon, "song.wav")
        (daemon.inbox / "song.wav.cancel").touch()
        daemon.tick()
        make_song(tmp_path / "again.wav", 0.3).rename(daemon.inbox / "song.wav")
        second = daemon.until(lambda: daemon.song("song.wav")["next"], "the new drop seen")
        if how == "killed":
            daemon.end()
        else:
            assert daemon.stop() == 0
        for name in ("hold", "deaf"):
            (tmp_path / name).unlink()
        daemon.start().ready().quiet()
        sidecar = daemon.song("song.wav")
        assert (sidecar["job_id"], sidecar["state"]) == (second, "done")
        assert (sidecar["previous"]["job_id"], sidecar["previous"]["state"]) == (first["job_id"], "cancelled")
        assert list(daemon.inbox.iterdir()) == []
        assert reasons(daemon) == {}
        assert daemon.stop() == 0
    finally:
        daemon.end()


def make_too_deep(folder: Path) -> None:
    """Folders in each other until a path is longer than the kernel takes: nobody can list them, not even root."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)


def test_a_listing_that_is_not_complete(tmp_path: Path) -> None:
    """1.5.4: while a folder of the inbox cannot be listed, no song is taken for deleted."""
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "running.wav", 0.2)
        separating(daemon, "running.wav")
        make_too_deep(daemon.inbox / "deep")
        make_song(daemon.inbox / "waiting.wav", 0.2)
        daemon.until(lambda: daemon.song("waiting.wav").get("reason") == "queued", "queued")
        daemon.until(lambda: "permission" in reasons(daemon).values(), "the folder to be listed")
        (daemon.inbox / "waiting.wav").unlink()
        beat = daemon.read("_daemon.json")["seq"]
        daemon.until(lambda: daemon.read("_daemon.json")["seq"] > beat + 8, "a few looks")
        assert daemon.song("waiting.wav")["state"] == "waiting"
        shutil.rmtree(daemon.inbox / "deep")
        assert daemon.final("waiting.wav")["state"] == "cancelled"
        daemon.hold.unlink()
        daemon.quiet()


@pytest.mark.parametrize("after", ["move", "keep"])
def test_a_cancelled_song_is_not_started_again(tmp_path: Path, after: str) -> None:
    """1.5.5: a cancelled original goes to failed/, or stays by policy; neither a look nor a restart starts it again."""
    daemon = Simulated(tmp_path, inbox={"after": after})
    try:
        daemon.start().ready()
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.2)
        job = separating(daemon, "song.wav")["job_id"]
        (daemon.inbox / "song.wav.cancel").touch()
        assert daemon.final("song.wav")["state"] == "cancelled"
        daemon.hold.unlink()
        for _ in range(2):
            daemon.quiet()
            assert daemon.stop() == 0
            daemon.start().ready()
        assert (daemon.song("song.wav")["job_id"], daemon.song("song.wav")["state"]) == (job, "cancelled")
        place = daemon.inbox if after == "keep" else daemon.spool / "failed"
        assert (place / "song.wav").exists()
        assert daemon.results() == set()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_growth_after_a_cancel_belongs_to_it(tmp_path: Path) -> None:
    """1.2: a song that is cancelled while it is being written is not taken up again as it grows; a later change is new."""
    whole = make_song(tmp_path / "whole.wav", 1.0).read_bytes()
    with simulated(tmp_path / "d", inbox={"after": "keep"}) as daemon:
        song = daemon.inbox / "song.wav"
        with song.open("wb") as file:
            file.write(whole[:9000])
            file.flush()
            job = daemon.until(lambda: daemon.song("song.wav").get("job_id"), "seen")
            (daemon.inbox / "song.wav.cancel").touch()
            assert daemon.final("song.wav")["state"] == "cancelled"
            for start in range(9000, 40000, 9000):
                file.write(whole[start : start + 9000])
                file.flush()
                beat = daemon.read("_daemon.json")["seq"]
                daemon.until(lambda b=beat: daemon.read("_daemon.json")["seq"] > b + 2, "a few beats")
        daemon.quiet()
        assert daemon.song("song.wav")["job_id"] == job
        shutil.copy(tmp_path / "whole.wav", song)
        again = daemon.until(
            lambda: (s := daemon.song("song.wav"))["job_id"] != job and s["state"] == "done" and s, "new"
        )
        assert again["previous"]["job_id"] == job


@pytest.mark.parametrize("name", ["song.wav.cancel", ".cancel"])
@pytest.mark.parametrize("crash", [False, True])
def test_one_that_cannot_be_removed_while_the_next_song_runs(
    tmp_path: Path, cannot_be_removed: list[bool], name: str, crash: bool
) -> None:
    """1.5.1: it has been obeyed, and looks at it while the next drop of the name runs do not end that one."""
    with simulated(tmp_path) as daemon:
        daemon.hold.touch()
        make_song(daemon.inbox / "song.wav", 0.2)
        first = separating(daemon, "song.wav")
        (daemon.inbox / name).touch()
        assert daemon.final("song.wav")["state"] == "cancelled"
        daemon.until(lambda: reasons(daemon).get(name) == "answered-cancel", "listed as answered")
        make_song(tmp_path / "again.wav", 0.3).rename(daemon.inbox / "song.wav")
        daemon.until(lambda: daemon.song("song.wav")["job_id"] != first["job_id"], "a job of its own")
        second = separating(daemon, "song.wav")
        if crash:
            daemon.kill()
            daemon.start().ready()
            separating(daemon, "song.wav")
        daemon.sleep(5)
        assert daemon.song("song.wav")["state"] == "running"
        daemon.hold.unlink()
        sidecar = daemon.final("song.wav")
        assert (sidecar["job_id"], sidecar["state"]) == (second["job_id"], "done")
        daemon.quiet()
        assert (daemon.inbox / name).exists()
        cannot_be_removed[0] = False
        daemon.until(lambda: not list(daemon.inbox.iterdir()), "it goes once it can")


def test_a_cancel_for_nobody_is_logged_once(tmp_path: Path) -> None:
    """With the name that was meant, where a song's differs in its case or its extension alone."""
    with simulated(tmp_path, inbox={"after": "keep"}) as daemon:
        make_song(daemon.inbox / "box.wav", 0.2)
        make_song(daemon.inbox / "Test Song.wav", 0.2)
        daemon.final("Test Song.wav")
        for name in ("test song", "Nope.wav"):
            (daemon.inbox / f"{name}.cancel").touch()
        daemon.until(lambda: not list(daemon.inbox.glob("*.cancel")), "they are removed")
        told = [line for line in daemon.log.read_text().splitlines() if "there is no song of that name" in line]
        assert sorted(told) == [
            "Nope.wav.cancel: there is no song of that name, and nothing to stop",
            "test song.cancel: there is no song of that name, and nothing to stop; did you mean Test Song.wav.cancel?",
        ]


def test_ends_of_one_name_while_status_is_away(tmp_path: Path) -> None:
    """A song and a newer drop are cancelled then, and a third one comes: each says how the one before it has ended, and none
    is shown before that one is over."""
    with simulated(tmp_path, inbox={"settle": 0.1, "scan_interval": 0.2}) as daemon:
        seen = list[str]()
        daemon.eyes.also = lambda path: (
            seen.append(daemon.song("a.wav")["job_id"]) if path.name == "a.wav.json" else None
        )
        daemon.hold.touch()
        daemon.make_song(daemon.inbox / "a.wav", 0.3)
        daemon.until(lambda: daemon.song("a.wav").get("step") == "separate", "it runs")
        status, away = daemon.spool / "status", tmp_path / "away"
        status.rename(away)
        for seconds in (0.7, 0.9):
            daemon.make_song(tmp_path / "other.wav", seconds).rename(daemon.inbox / "a.wav")
            daemon.sleep(2)
            (daemon.inbox / "a.wav.cancel").touch()
            daemon.sleep(2)
        daemon.make_song(tmp_path / "other.wav", 1.1).rename(daemon.inbox / "a.wav")
        daemon.sleep(2)
        daemon.hold.unlink()
        away.rename(status)
        daemon.until(lambda: daemon.song("a.wav")["state"] == "done", "the last one")
        daemon.quiet()
        assert daemon.song("a.wav")["previous"]["state"] == "cancelled"
    assert len(set(seen)) == len([one for one, before in zip(seen, ["", *seen], strict=False) if one != before])
