"""The watch: events that stop coming, and an inbox that becomes another folder. Noticed, said, and nothing is lost.

The contract's limit for noticing is 5 s, or a scan where that is longer.
"""

import fcntl
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemons import Daemon, make_song
from mounts import Mount, bind, mounts, needs_mounts, tmpfs
from processes import handles, watched
from queues import all_done_once, drop, looks, queued, running, started, warned

NOTICED_S = 5.0
SELDOM: dict[str, Any] = {"inbox": {"settle": 0.1, "scan_interval": 60.0}}
"""Whatever is seen soon is seen by an event."""

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
needs_root = pytest.mark.skipif(not os.access(QUEUE, os.W_OK), reason="needs root: run tests/run as root")


def watch(daemon: Daemon) -> dict[str, str]:
    told: dict[str, str] = daemon.read("_daemon.json").get("watch", {})
    return told


def within(daemon: Daemon, limit_s: float, condition: Callable[[], Any], what: str) -> None:
    began = time.monotonic()
    daemon.until(condition, what)
    took = time.monotonic() - began
    assert took <= limit_s, f"{what}: after {took:.1f} s"


def done_by_event(daemon: Daemon, name: str) -> None:
    """Drop a song; it is seen long before the next scan."""
    began = time.monotonic()
    drop(daemon, name)
    assert time.monotonic() - began < NOTICED_S
    assert daemon.final(name)["state"] == "done"


# ---- a queue that overflows


@contextmanager
def short_queue(length: int) -> Iterator[None]:
    """While it lasts, each new inotify descriptor on this machine has a queue of that length. One at a time."""
    with (Path(tempfile.gettempdir()) / "demixd-short-queue").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        usual = QUEUE.read_text()
        try:
            QUEUE.write_text(str(length))
            yield
        finally:
            QUEUE.write_text(usual)


@needs_root
def test_a_queue_that_overflows(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """10,000 files come to a queue of 64: all are seen within one scan, also those in folders that came with them, and an
    old song that was written anew in place."""
    scan_s, number = 3.0, 10_000
    daemon = Daemon(tmp_path, fake=True, inbox={"settle": 0.1, "scan_interval": scan_s, "after": "keep"})
    try:
        with short_queue(64):
            daemon.start().ready()
        assert daemon.process is not None
        old = make_song(daemon.inbox / "old.wav", 0.1)
        first = daemon.final("old.wav")["job_id"]
        daemon.quiet()
        songs = [f"album {each}/{leaf}" for each in range(3) for leaf in ("a.wav", "b.wav")]
        daemon.process.send_signal(signal.SIGSTOP)  # it is slow, and the queue must overflow
        for each in range(number):
            (daemon.inbox / f"note {each}.txt").touch()
        for name in songs:
            (daemon.inbox / name).parent.mkdir(exist_ok=True)
            make_song(daemon.inbox / name, 0.1)
        old.write_bytes(make_song(tmp_path / "new.wav", 0.2).read_bytes())
        daemon.process.send_signal(signal.SIGCONT)
        within(
            daemon,
            scan_s + NOTICED_S,  # a look at so many takes its time
            lambda: len(daemon.read("_inbox.json").get("entries", ())) == number and all(map(daemon.song, songs)),
            "all are seen",
        )
        assert "queue overflowed" in daemon.log.read_text()
        for name in songs:
            assert daemon.final(name)["state"] == "done"
        assert daemon.until(lambda: (s := daemon.song("old.wav"))["job_id"] != first and s, "it is done anew")
        albums = {path.stat().st_ino for path in daemon.inbox.iterdir() if path.is_dir()}
        daemon.until(lambda: {daemon.inbox.stat().st_ino, *albums} <= watched(daemon), "all folders are watched")
        assert watch(daemon)["mode"] == "events"
        assert daemon.stop() == 0
    finally:
        daemon.end()
    record_property("files seen after an overflow", number)


# ---- a thread that dies


def test_a_thread_of_the_observer_that_dies(tmp_path: Path) -> None:
    """Whichever of its threads ends, the observer is begun anew, `_daemon.json` says why, and drops are seen at once."""
    with started(tmp_path, **SELDOM) as daemon:
        assert daemon.process is not None
        done_by_event(daemon, "before.wav")
        for number, thread in enumerate(("InotifyFD", "InotifyEmitter", "InotifyObserver")):
            said = daemon.log.read_text().count("begins anew")
            (tmp_path / "end-thread").write_text(thread)
            daemon.process.send_signal(signal.SIGUSR1)
            daemon.until(lambda: not (tmp_path / "end-thread").exists(), f"{thread} is told")
            (daemon.inbox / ".wakes-it").touch()
            (daemon.inbox / ".wakes-it").unlink()
            lost = f"{number}-lost.wav"
            make_song(daemon.inbox / lost, 0.1)
            within(
                daemon, NOTICED_S, lambda n=said: daemon.log.read_text().count("begins anew") > n, f"{thread} is missed"
            )
            within(daemon, NOTICED_S, lambda: "a thread of it had died" in watch(daemon)["why"], "it is said")
            assert watch(daemon)["mode"] == "events"
            within(daemon, NOTICED_S, lambda n=lost: daemon.song(n), "what came meanwhile is seen")
            done_by_event(daemon, f"{number}-after.wav")
        daemon.quiet()
        assert len(daemon.results()) == 7 * 5  # a folder, two stems, peaks and manifest


# ---- limits that are used up


LIMITED = (
    'echo $1 >/proc/sys/user/max_inotify_instances; echo $2 >/proc/sys/user/max_inotify_watches; shift 2; exec "$@"'
)


def limited(instances: int, watches: int) -> tuple[str, ...]:
    """A command that starts a program which may have so many of the kernel's inotify(7) objects, and no other is affected."""
    return ("unshare", "--user", "--map-root-user", "sh", "-c", LIMITED, "sh", str(instances), str(watches))


def may_limit() -> bool:
    return subprocess.run([*limited(5, 5), "true"], capture_output=True, check=False).returncode == 0


def relax(daemon: Daemon, what: str) -> None:
    assert daemon.process is not None
    words = ["nsenter", "--user", "--target", str(daemon.process.pid), "sh", "-c"]
    subprocess.run([*words, f"echo 100 >/proc/sys/user/max_inotify_{what}"], check=True)


needs_limits = pytest.mark.skipif(not may_limit(), reason="needs user namespaces: run tests/run as root")


@needs_limits
@pytest.mark.parametrize(
    ("what", "limits"), [("instances", (0, 100)), pytest.param("watches", (100, 0), marks=pytest.mark.daily)]
)
def test_a_kernel_that_refuses_to_watch(tmp_path: Path, what: str, limits: tuple[int, int]) -> None:
    """It is said, songs are found by scans alone, retries leave nothing behind, and events come when the limit goes."""
    daemon = Daemon(tmp_path, fake=True)
    try:
        daemon.start(under=limited(*limits)).ready()
        assert watch(daemon)["mode"] == "poll"
        assert "the kernel refuses to watch" in watch(daemon)["why"]
        drop(daemon, "one.wav")
        assert daemon.final("one.wav")["state"] == "done"
        daemon.quiet()
        before = handles(daemon)
        looks(daemon, 12)
        assert handles(daemon) == before
        relax(daemon, what)
        within(daemon, NOTICED_S, lambda: watch(daemon)["mode"] == "events", "it watches")
        drop(daemon, "two.wav")
        all_done_once(daemon, "one.wav", "two.wav")
        assert daemon.stop() == 0
    finally:
        daemon.end()


@needs_limits
def test_folders_that_the_kernel_does_not_watch(tmp_path: Path) -> None:
    """Where there are watches for some folders only, `_daemon.json` says so, and songs in the others are found by scans."""
    daemon = Daemon(tmp_path, fake=True, inbox={"settle": 0.1, "scan_interval": 0.5})
    daemon.constants["demixd.supervisor.inbox.watch:REFUSED_S"] = 1.0
    try:
        daemon.start(under=limited(100, 3)).ready()
        assert watch(daemon)["mode"] == "events"
        names = [f"folder {each}/song {each}.wav" for each in range(5)]
        for name in names:
            (daemon.inbox / name).parent.mkdir()
        within(daemon, NOTICED_S, lambda: watch(daemon)["mode"] == "poll", "it is noticed")
        daemon.until(lambda: "does not watch 3 of 6 folders" in watch(daemon)["why"], "it is said")
        for name in names:
            make_song(daemon.inbox / name, 0.1)
        for name in names:
            assert daemon.final(name)["state"] == "done"
        relax(daemon, "watches")
        within(daemon, NOTICED_S, lambda: watch(daemon)["mode"] == "events", "it watches")
        assert {path.stat().st_ino for path in daemon.inbox.iterdir()} <= watched(daemon)
        assert daemon.stop() == 0
    finally:
        daemon.end()


# ---- an inbox that becomes another folder

Change = tuple[Callable[[], None], Callable[[], None]]
"""What makes the inbox another folder, and what brings the one before back."""


def renamed(inbox: Path, folder: Path) -> Change:
    """Renamed away, and another put in its place; the songs in that one are done by the time it goes again."""

    def away() -> None:
        (folder / "other").mkdir()
        inbox.rename(folder / "away")
        (folder / "other").rename(inbox)

    def back() -> None:
        inbox.rename(folder / "other")
        (folder / "away").rename(inbox)

    return away, back


def mounted_over(over: Mount) -> Change:
    def away() -> None:
        over.on()

    return away, over.off


def unmounted(mount: Mount) -> Change:
    def back() -> None:
        mount.on()

    return mount.off, back


def check_change(daemon: Daemon, change: Change) -> None:
    """Drops before, during and after are done once each; nothing is written where the songs are not."""
    away, back = change
    daemon.hold.touch()
    drop(daemon, "running.wav")
    running(daemon, "running.wav")
    drop(daemon, "b.wav", "a.wav")
    queued(daemon, "b.wav", "a.wav")
    before = daemon.inbox.stat().st_ino
    away()
    began = time.monotonic()
    warned(daemon, str(daemon.inbox), "another folder")
    daemon.until(lambda: "another folder" in watch(daemon)["why"], "the watch says it")
    assert time.monotonic() - began < NOTICED_S
    assert watch(daemon)["mode"] == "events"
    assert before not in watched(daemon)
    daemon.hold.unlink()
    done_by_event(daemon, "new.wav")
    daemon.until((daemon.spool / "done" / "new.wav").exists, "the new drop is put away")
    assert daemon.state("running.wav", "done", "failed", "cancelled")["state"] == "done"
    looks(daemon)
    assert list(daemon.inbox.iterdir()) == []
    assert [daemon.song(name)["state"] for name in ("a.wav", "b.wav")] == ["waiting", "waiting"]
    back()
    all_done_once(daemon, "running.wav", "b.wav", "a.wav", "new.wav")
    done_by_event(daemon, "later.wav")
    all_done_once(daemon, "running.wav", "b.wav", "a.wav", "new.wav", "later.wav")
    assert before in watched(daemon)
    daemon.until(lambda: not daemon.read("_daemon.json")["warnings"], "nothing is wrong any more")


def test_an_inbox_that_is_another_folder(tmp_path: Path) -> None:
    """It is noticed within 5 s and said; what waits in the one before waits until that is back."""
    with started(tmp_path, **SELDOM) as daemon:
        check_change(daemon, renamed(daemon.inbox, tmp_path))


@needs_mounts
@pytest.mark.daily
def test_an_inbox_that_is_mounted_over(tmp_path: Path) -> None:
    """A mount on top of the inbox: the songs below wait, those on it are done, and all is done when it goes."""
    with started(tmp_path, **SELDOM) as daemon:
        over = tmpfs(daemon.inbox, 8 << 20)
        try:
            check_change(daemon, mounted_over(over))
        finally:
            if over.is_on:
                over.off()


@needs_mounts
def test_an_inbox_whose_mount_point_is_used(tmp_path: Path) -> None:
    """While its share is away a song is put into the folder below: it is done, and the others wait for the share."""
    share = bind(tmp_path / "store", tmp_path / "spool" / "inbox")
    with mounts(share), started(tmp_path, **SELDOM) as daemon:
        check_change(daemon, unmounted(share))
