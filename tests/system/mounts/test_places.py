"""Folders that are not there, not there any more, full, or read-only: said, waited for, and nothing is lost."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemons import Daemon, heard, make_song
from mounts import Mount, bind, disk, mounts, needs_mounts, tmpfs
from queues import all_done_once, drop, looks, order_of_work, queue, queued, running, started, warned

# ---- not there at the start


def test_a_spool_that_is_not_there_at_the_start(tmp_path: Path) -> None:
    """The daemon lives, is READY once with a STATUS that names what is missing, makes nothing, and goes on by itself."""
    daemon = Daemon(tmp_path / "parent", fake=True)
    shutil.rmtree(daemon.spool)
    try:
        with heard(tmp_path) as (address, lines):
            daemon.start(NOTIFY_SOCKET=address)
            daemon.until(lambda: "READY=1" in lines, "READY")
            daemon.until(lambda: any(str(daemon.spool) in text for text in lines[lines.index("READY=1") :]), "STATUS")
            assert not daemon.spool.exists()
            daemon.inbox.mkdir(parents=True)
            daemon.ready()
            drop(daemon, "song.wav")
            all_done_once(daemon, "song.wav")
            assert daemon.stop() == 0
        assert lines.count("READY=1") == 1
    finally:
        daemon.end()


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


@pytest.mark.daily
def test_an_outbox_that_goes_away_under_the_real_worker(tmp_path: Path) -> None:
    """The worker makes no folder where the outbox was, and what it falls over is not held against the song."""
    daemon = Daemon(tmp_path)
    try:
        daemon.start().ready()
        drop(daemon, "song.wav", seconds=12.0)
        running(daemon, "song.wav")
        daemon.outbox.rename(tmp_path / "away")
        daemon.until(lambda: daemon.song("song.wav")["reason"] == "outbox-missing", "it waits")
        looks(daemon)
        assert not daemon.outbox.exists()
        (tmp_path / "away").rename(daemon.outbox)
        all_done_once(daemon, "song.wav")
        assert daemon.song("song.wav")["attempt"] == 1
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


def on_disk(tmp_path: Path, at: Path) -> Mount:
    return disk(tmp_path / "image", at, 64)


def on_bind(tmp_path: Path, at: Path) -> Mount:
    return bind(tmp_path / "store", at)


@needs_mounts
@pytest.mark.parametrize("make", [on_disk, pytest.param(on_bind, marks=pytest.mark.daily)], ids=["disk", "bind"])
def test_a_spool_that_is_mounted_late_and_goes_away(tmp_path: Path, make: Callable[[Path, Path], Mount]) -> None:
    """Started before its share is mounted, and unmounted during a job: nothing is made below the mount, all is done once."""
    mount = make(tmp_path, tmp_path / "spool")
    with mounts(mount):
        daemon = Daemon(tmp_path, fake=True)
        daemon.constants["demixd.supervisor.runs.outcomes:RETRY_S"] = 0.5
        daemon.hold.touch()
        try:
            daemon.start().ready()
            drop(daemon, "z.wav")
            running(daemon, "z.wav")
            drop(daemon, "c.wav", "a.wav", "b.wav")
            queued(daemon, "c.wav", "a.wav", "b.wav")
            assert daemon.stop() == 0
            mount.off()
            daemon.start()
            daemon.until(lambda: "is warm" in daemon.log.read_text().rpartition("stopped")[2], "it is up")
            daemon.until(lambda: "is gone" in daemon.log.read_text().rpartition("stopped")[2], "it is said")
            assert list(mount.at.iterdir()) == []
            mount.on()
            daemon.ready()
            running(daemon, "z.wav")
            queued(daemon, "c.wav", "a.wav", "b.wav")
            said = daemon.log.read_text().count("(inbox) is gone")
            mount.off()
            daemon.hold.unlink()
            daemon.until(lambda: daemon.log.read_text().count("(inbox) is gone") > said, "it is said")
            daemon.until(lambda: "z.wav: waiting (outbox-missing)" in daemon.log.read_text(), "it waits")
            assert list(mount.at.iterdir()) == []
            mount.on()
            all_done_once(daemon, "z.wav", "c.wav", "a.wav", "b.wav")
            assert daemon.stop() == 0
        finally:
            daemon.end()
        order = order_of_work(daemon)
        assert order[0] == "z.wav"
        assert list(dict.fromkeys(order)) == ["z.wav", "c.wav", "a.wav", "b.wav"]


@needs_mounts
def test_an_original_on_a_mount_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """The only song is done while its inbox is unmounted: when it is back the original is put away, and not done again."""
    mount = bind(tmp_path / "store", tmp_path / "spool" / "inbox")
    with mounts(mount), started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "song.wav")
        running(daemon, "song.wav")
        mount.off()
        looks(daemon)
        daemon.hold.unlink()
        job = daemon.state("song.wav", "done", "failed", "cancelled")["job_id"]
        looks(daemon)
        mount.on()
        all_done_once(daemon, "song.wav")
        daemon.quiet()
        assert daemon.song("song.wav")["job_id"] == job
        assert list((tmp_path / "store").iterdir()) == []


@needs_mounts
def test_an_inbox_on_a_mount_of_its_own(tmp_path: Path) -> None:
    """An unmounted inbox looks empty: no song is cancelled or begun, the order is kept, and nothing is put into it."""
    mount = bind(tmp_path / "store", tmp_path / "spool" / "inbox")
    with mounts(mount), started(tmp_path) as daemon:
        daemon.hold.touch()
        drop(daemon, "running.wav")
        running(daemon, "running.wav")
        drop(daemon, "c.wav", "a.wav", "b.wav")
        queued(daemon, "c.wav", "a.wav", "b.wav")
        mount.off()
        looks(daemon)
        daemon.hold.unlink()
        assert daemon.state("running.wav", "done", "failed", "cancelled")["state"] == "done"
        looks(daemon, 10)
        for name in ("a.wav", "b.wav", "c.wav"):
            assert daemon.song(name)["state"] == "waiting"
        assert list(mount.at.iterdir()) == []
        mount.on()
        all_done_once(daemon, "running.wav", "c.wav", "a.wav", "b.wav")
        assert daemon.read("_daemon.json")["watch"]["mode"] == "events"
    assert order_of_work(daemon) == ["running.wav", "c.wav", "a.wav", "b.wav"]


# ---- no space


@needs_mounts
@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("outbox", "snapshot"),
        pytest.param("outbox", "decode", marks=pytest.mark.daily),
        ("outbox", "encode"),
        pytest.param("work", "snapshot", marks=pytest.mark.daily),
        ("work", "decode"),
    ],
)
def test_no_space(tmp_path: Path, part: str, step: str) -> None:
    """On a full disk a song waits as `no-space`, uncharged, whatever it was doing; it goes on when there is room."""
    seconds, size = 5.0, int(5.0 * 44100 * 4)  # of the song; its spool takes twice that, its two stems as much again
    room = {"snapshot": 0.5, "decode": 2.0, "encode": 3.5}[step] * size
    small = tmpfs(tmp_path / "small", 16 << 20)
    with mounts(small):
        paths = {part: str(small.at / part)}
        with started(tmp_path, paths=paths) as daemon:
            daemon.outbox = Path(paths.get("outbox", daemon.outbox))
            with (small.at / "filler").open("wb") as filler:
                filler.write(bytes((16 << 20) - int(room) - (256 << 10)))
            drop(daemon, "big.wav", seconds=seconds)
            waiting = daemon.until(lambda: (s := daemon.song("big.wav"))["reason"] == "no-space" and s, "it waits")
            assert waiting["attempt"] == 0
            assert len(waiting["message"]) > 20
            drop(daemon, "small.wav", seconds=0.1)
            assert daemon.final("small.wav")["state"] == "done", "others go on"
            daemon.until(lambda: daemon.song("big.wav")["state"] == "waiting", "it waits still")
            (small.at / "filler").unlink()
            all_done_once(daemon, "big.wav", "small.wav")
            assert daemon.song("big.wav")["attempt"] == 1


@needs_mounts
def test_no_space_at_the_start(tmp_path: Path) -> None:
    """On a disk without room for a lock's few bytes the daemon says so and waits, and goes on when there is room."""
    small = tmpfs(tmp_path / "small", 1 << 20)
    with mounts(small):
        with started(tmp_path, paths={"outbox": str(small.at / "outbox")}) as daemon:
            daemon.outbox = small.at / "outbox"
        with (small.at / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        daemon.start()
        try:
            warned(daemon, f"{daemon.outbox}/.demixd/lock cannot be locked", "No space left")
            make_song(daemon.inbox / "song.wav", 0.1)
            looks(daemon)
            (small.at / "filler").unlink()
            all_done_once(daemon, "song.wav")
            assert daemon.read("_daemon.json")["warnings"] == []
            assert daemon.stop() == 0
        finally:
            daemon.end()


@needs_mounts
def test_no_space_for_the_status(tmp_path: Path) -> None:
    """A full disk under status/ stops no work; sidecars are right when there is room again."""
    small = tmpfs(tmp_path / "spool" / "status", 1 << 20)
    with mounts(small), started(tmp_path) as daemon:
        with (small.at / "filler").open("wb", buffering=0) as filler:
            while True:
                try:
                    filler.write(bytes(4096))
                except OSError:
                    break
        make_song(daemon.inbox / "song.wav", 0.3)
        daemon.until((daemon.outbox / "song" / "stems.json").exists, "published")
        (small.at / "filler").unlink()
        all_done_once(daemon, "song.wav")
        looks(daemon)


# ---- read-only


@needs_mounts
def test_a_read_only_inbox(tmp_path: Path) -> None:
    """It works like `keep`, with a warning: each song is done once, also after a restart; cancels are obeyed once."""
    store = tmp_path / "store"
    mount = bind(store, tmp_path / "spool" / "inbox")
    with mounts(mount):
        mount.change("bind,ro")
        daemon = Daemon(tmp_path, fake=True)
        try:
            daemon.start().ready()
            make_song(store / "song.wav", 0.3)
            sidecar = daemon.final("song.wav")
            assert sidecar["state"] == "done"
            warned = daemon.until(lambda: daemon.song("song.wav")["warnings"], "the warning")
            assert any("stays in the inbox" in text for text in warned)
            daemon.hold.touch()
            make_song(store / "stopped.wav", 0.3)
            running(daemon, "stopped.wav")
            (store / "stopped.wav.cancel").touch()
            assert daemon.final("stopped.wav")["state"] == "cancelled"
            daemon.hold.unlink()
            jobs = {name: daemon.song(name)["job_id"] for name in ("song.wav", "stopped.wav")}
            for _ in range(2):
                looks(daemon)
                daemon.quiet()
                assert {name: daemon.song(name)["job_id"] for name in jobs} == jobs
                assert daemon.stop() == 0
                daemon.start().ready()
            (store / "stopped.wav").touch()
            again = daemon.until(
                lambda: (s := daemon.song("stopped.wav"))["state"] == "done" and s,
                "the old cancel is not for a new drop",
            )
            assert again["previous"]["job_id"] == jobs["stopped.wav"]
            make_song(store / "third.wav", 0.3)
            daemon.hold.touch()
            running(daemon, "third.wav")
            (store / ".cancel").touch()
            assert daemon.final("third.wav")["state"] == "cancelled"
            daemon.hold.unlink()
            make_song(store / "fourth.wav", 0.3)
            assert daemon.final("fourth.wav")["state"] == "done", "the bare cancel means nothing more"
            assert daemon.stop() == 0
            daemon.start().ready()
            make_song(store / "fifth.wav", 0.3)
            assert daemon.final("fifth.wav")["state"] == "done", "nor after a restart"
            assert daemon.song("third.wav")["state"] == "cancelled"
            assert daemon.stop() == 0
        finally:
            daemon.end()
        order = order_of_work(daemon)
        assert sorted(order) == ["fifth.wav", "fourth.wav", "song.wav", "stopped.wav", "stopped.wav", "third.wav"]
        assert len(list(daemon.outbox.glob("*/stems.json"))) == 4
        assert {path.name for path in store.iterdir()} == {
            *("song.wav", "stopped.wav", "third.wav", "fourth.wav", "fifth.wav"),
            *("stopped.wav.cancel", ".cancel"),
        }


@contextmanager
def full_state(tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    """A daemon whose ledger cannot be written since its disk is full, and which says so; a song waits. And what fills it."""
    state = tmp_path / "state"
    with mounts(tmpfs(state, 2 << 20)):
        daemon, fill = Daemon(tmp_path, fake=True), state / "fill"
        try:
            daemon.start().ready()
            with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            make_song(daemon.inbox / "song.wav", 0.3)
            warned(daemon, "cannot be written")
            yield daemon, fill
        finally:
            daemon.end()


@needs_mounts
def test_a_full_disk_below_the_ledger(tmp_path: Path) -> None:
    """What cannot be promised is not done: the daemon lives, holds still, and goes on when there is room."""
    with full_state(tmp_path) as (daemon, fill):
        seq = daemon.read("_daemon.json")["seq"]
        daemon.until(lambda: daemon.read("_daemon.json")["seq"] > seq, "its heart beats")
        assert daemon.results() == set()
        fill.unlink()
        all_done_once(daemon, "song.wav")
        daemon.until(lambda: not daemon.read("_daemon.json")["warnings"], "it is well again")
        assert daemon.stop() == 0


@needs_mounts
def test_a_stop_while_the_ledger_cannot_be_written(tmp_path: Path) -> None:
    """It stops with exit status 1; the song is done by the next start."""
    with full_state(tmp_path) as (daemon, fill):
        began = time.monotonic()
        assert daemon.stop() == 1
        assert time.monotonic() - began < 5
        fill.unlink()
        daemon.start().ready()
        all_done_once(daemon, "song.wav")
        assert daemon.stop() == 0
