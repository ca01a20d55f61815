"""Folders that are not there, not there any more, full, or read-only: said, waited for, and nothing is lost."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemons import Daemon, heard, make_song
from demixd.spool.room import RESERVE_SHARE
from mounts import Mount, bind, disk, mounts, needs_mounts, tmpfs
from queues import all_done_once, drop, looks, order_of_work, queued, running, started, warned

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


@pytest.mark.slow
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
    ("parts", "room"),
    [
        pytest.param("outbox", 0.1, id="snapshot"),
        pytest.param("outbox", 1.3, id="encode"),
        pytest.param("outbox work", 2.0, id="decode"),
        pytest.param("outbox work", 3.5, id="encode-beside-sound", marks=pytest.mark.daily),
    ],
)
def test_no_space(tmp_path: Path, parts: str, room: float) -> None:
    """On a full disk a song waits as `no-space`, uncharged, whatever it was doing; it goes on when there is room.

    `room` is what the disk of `parts` has, in sizes of the song. Its two stems take as much each; its sound twice as much,
    on `work` where that is on the disk too, for then there is no memory.
    """
    seconds, size = 5.0, int(5.0 * 44100 * 4)
    small = tmpfs(tmp_path / "small", 16 << 20)
    with mounts(small):
        paths = {part: str(small.at / part) for part in parts.split()}
        for path in paths.values():
            Path(path).mkdir()
        limits = {"memory_bytes": 0} if "work" in paths else {}
        with started(tmp_path, paths=paths, limits=limits) as daemon:
            daemon.outbox = Path(paths["outbox"])
            with (small.at / "filler").open("wb") as filler:
                reserve = (16 << 20) // RESERVE_SHARE
                filler.write(bytes((16 << 20) - reserve - int(room * size) - (256 << 10)))
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


REMEDY = ": run `sudo systemd/install` again, since the service may only write to the folders that its unit names"


@needs_mounts
@pytest.mark.parametrize(("made", "part"), [((), "inbox"), (("inbox", "outbox", "status", "done", "failed"), "outbox")])
def test_a_spool_that_the_unit_does_not_name(tmp_path: Path, made: tuple[str, ...], part: str) -> None:
    """It is read-only for the service: no owner would help, but the installer, which names it. No other daemon hears of it."""
    daemon = Daemon(tmp_path, fake=True)
    daemon.inbox.rmdir()
    for each in made:
        (daemon.spool / each).mkdir()
    mount = bind(daemon.spool, daemon.spool)
    said = f"{daemon.spool / part} ({part}) cannot be used: Read-only file system"
    with mounts(mount):
        mount.change("bind,ro")
        for unit, told in ({}, f"{said}."), ({"STATE_DIRECTORY": "/var/lib/demixd"}, f"{said}{REMEDY}."):
            try:
                daemon.start(**unit)
                daemon.until(lambda told=told: told in daemon.log.read_text(), "it is said")
            finally:
                daemon.end()


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
