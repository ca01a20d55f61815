"""`.pause` in the inbox, and the hours of `[schedule]`: what begins meanwhile, and what waits."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from demixd.supervisor.jobs import held as held_songs
from overlap import done, drop, go_on, held, lines, separated, three, until_behind, until_prepared, until_step
from simulated import Simulated, simulated

QUICK: dict[str, Any] = {"inbox": {"settle": 0.1, "scan_interval": 0.2}}


def hours(daemon: Simulated, first_s: float, last_s: float) -> str:
    """A range of the clock on the wall, from and until so many seconds from now."""
    at = (time.localtime(daemon.clock.wall() + each) for each in (first_s, last_s))
    return "-".join(time.strftime("%H:%M", each) for each in at)


def schedule(daemon: Simulated, hours: str) -> None:
    """Have it go by other hours."""
    text = daemon.config.read_text(encoding="utf-8").partition("\n[schedule]")[0]
    daemon.config.write_text(f'{text}\n[schedule]\nhours = "{hours}"\n', encoding="utf-8")
    daemon.reload()


def pause(daemon: Simulated, by: str) -> None:
    if by == "schedule":
        schedule(daemon, hours(daemon, 7200, 10800))
    else:
        (daemon.inbox / ".pause").write_text("NOW\n" if by == "now" else "")
    told = daemon.until(lambda: daemon.read("_daemon.json").get("paused"), "it says so")
    assert told["by"] == ("schedule" if by == "schedule" else "file")
    assert (told["until"] is None) == (by != "schedule")


def resume(daemon: Simulated, by: str) -> None:
    if by == "schedule":
        daemon.clock.put_right(7300)
    else:
        (daemon.inbox / ".pause").unlink()
    daemon.until(lambda: daemon.read("_daemon.json").get("paused") is None, "the pause is over")


def is_paused(daemon: Simulated, name: str) -> bool:
    return daemon.song(name).get("reason") == "paused"


@pytest.mark.parametrize("priority", [0, 100])
@pytest.mark.parametrize("by", ["file", "now", "schedule"])
def test_idle(tmp_path: Path, by: str, priority: int) -> None:
    """A song that comes meanwhile waits; a priority of 100 overrules the hours, and never the file."""
    with simulated(tmp_path, **QUICK) as daemon:
        pause(daemon, by)
        drop(daemon, "a.wav", priority=priority)
        if by == "schedule" and priority:
            done(daemon, "a.wav")
            return
        daemon.until(lambda: is_paused(daemon, "a.wav"), "it says that there is a pause")
        assert daemon.song("a.wav")["message"].startswith("Paused")
        daemon.sleep(60)
        assert is_paused(daemon, "a.wav")
        assert daemon.read("_daemon.json")["worker"]["state"] == "ready"
        resume(daemon, by)
        done(daemon, "a.wav")
        assert daemon.song("a.wav")["attempt"] == 1


@pytest.mark.parametrize("priority", [0, 100])
@pytest.mark.parametrize("by", ["file", "now", "schedule"])
def test_running(tmp_path: Path, by: str, priority: int) -> None:
    """The running song goes on to its end, but where the file says `now`: then it waits, and no attempt is counted."""
    with simulated(tmp_path, **QUICK) as daemon:
        held(daemon, "a.wav")
        pause(daemon, by)
        drop(daemon, "b.wav", priority=priority)
        if by == "now":
            daemon.until(lambda: is_paused(daemon, "a.wav"), "it waits again")
            assert daemon.song("a.wav")["attempt"] == 0
            go_on(daemon)
            daemon.sleep(30)
            assert daemon.read("_daemon.json")["in_flight"] == []
            assert daemon.works() == []
        else:
            go_on(daemon)
            assert daemon.final("a.wav")["state"] == "done"
        if by != "schedule" or not priority:
            daemon.until(lambda: is_paused(daemon, "b.wav"), "the other waits")
            resume(daemon, by)
        done(daemon, "a.wav", "b.wav")
        assert [daemon.song(name)["attempt"] for name in ("a.wav", "b.wav")] == [1, 1]


@pytest.mark.parametrize("priority", [0, 100])
@pytest.mark.parametrize("by", ["file", "now", "schedule"])
def test_waking(tmp_path: Path, by: str, priority: int) -> None:
    """A worker that is asleep is not woken for songs that wait for the end of a pause."""
    with simulated(tmp_path, **QUICK, model={"keep_alive_s": 5}) as daemon:
        daemon.until(lambda: daemon.read("_daemon.json")["worker"]["state"] == "asleep", "asleep")
        pause(daemon, by)
        drop(daemon, "a.wav", priority=priority)
        if by != "schedule" or not priority:
            daemon.until(lambda: is_paused(daemon, "a.wav"), "it waits")
            daemon.sleep(30)
            assert daemon.read("_daemon.json")["worker"]["state"] == "asleep"
            resume(daemon, by)
        done(daemon, "a.wav")


def test_it_falls_asleep(tmp_path: Path) -> None:
    """Songs that wait for the end of a pause keep no worker warm."""
    with simulated(tmp_path, **QUICK, model={"keep_alive_s": 5}) as daemon:
        pause(daemon, "file")
        drop(daemon, "a.wav")
        daemon.until(lambda: daemon.read("_daemon.json")["worker"]["state"] == "asleep", "asleep", within_s=30)
        resume(daemon, "file")
        done(daemon, "a.wav")


def test_what_is_prepared_stays_prepared(tmp_path: Path) -> None:
    """Of three songs the first two end, and the one that was decoded ahead is not decoded again."""
    with simulated(tmp_path, **QUICK) as daemon:
        (daemon.folder / "said").touch()
        three(daemon)
        pause(daemon, "file")
        go_on(daemon)
        for name in ("a.wav", "b.wav"):
            assert daemon.final(name)["state"] == "done"
        daemon.sleep(30)
        assert is_paused(daemon, "c.wav")
        assert len(daemon.works()) == 1
        orders = len(lines(daemon, "orders", "prepare"))
        resume(daemon, "file")
        done(daemon, "a.wav", "b.wav", "c.wav")
        assert len(lines(daemon, "orders", "prepare")) == orders


def test_a_prepared_song_that_goes(tmp_path: Path) -> None:
    """What was prepared for a song that is cancelled in a pause is let go."""
    with simulated(tmp_path, **QUICK) as daemon:
        (daemon.folder / "said").touch()
        held(daemon, "a.wav")
        until_prepared(daemon, drop(daemon, "b.wav"))
        pause(daemon, "file")
        go_on(daemon)
        assert daemon.final("a.wav")["state"] == "done"
        (daemon.inbox / "b.wav.cancel").touch()
        assert daemon.final("b.wav")["state"] == "cancelled"
        daemon.until(lambda: daemon.works() == [], "it is let go")


@pytest.mark.parametrize("order", ["cancel first", "pause first"])
def test_cancel_and_pause(tmp_path: Path, order: str) -> None:
    """A cancel holds, whether it comes before a pause that stops the song or after it."""
    with simulated(tmp_path, **QUICK) as daemon:
        held(daemon, "a.wav")
        (daemon.folder / "deaf").touch()
        for each in ("a.wav.cancel", ".pause") if order == "cancel first" else (".pause", "a.wav.cancel"):
            (daemon.inbox / each).write_text("now")
            daemon.sleep(1)
        (daemon.folder / "deaf").unlink()
        assert daemon.final("a.wav")["state"] == "cancelled"


def test_a_worker_that_does_not_stop(tmp_path: Path) -> None:
    """It is killed after the grace, as with a cancel; the song waits, and no attempt is counted."""
    with simulated(tmp_path, **QUICK) as daemon:
        held(daemon, "a.wav")
        (daemon.folder / "deaf").touch()
        pause(daemon, "now")
        daemon.until(lambda: is_paused(daemon, "a.wav"), "it waits", within_s=10)
        assert daemon.song("a.wav")["attempt"] == 0
        (daemon.folder / "deaf").unlink()
        go_on(daemon)
        resume(daemon, "now")
        done(daemon, "a.wav")


def test_a_finished_song_is_published(tmp_path: Path) -> None:
    """A pause that comes as the worker says that it is through takes nothing away."""
    with simulated(tmp_path, **QUICK) as daemon:
        daemon.at["5-publishing"] = [lambda: (daemon.inbox / ".pause").write_text("now")]
        drop(daemon, "a.wav")
        done(daemon, "a.wav")


def test_the_first_hundred_at_once(tmp_path: Path) -> None:
    """Of many songs a hundred say so at once, and no more than two hundred in a second after that."""
    with simulated(tmp_path, **QUICK) as daemon:
        held(daemon, "a.wav")
        names = [f"{number:03}.wav" for number in range(400)]
        for name in names:
            (daemon.inbox / name).write_bytes((daemon.folder / "song-a.wav").read_bytes() + name.encode())
        daemon.until(lambda: daemon.song(names[-1]).get("reason") == "queued", "all are ready")
        told: list[tuple[float, int]] = []
        (daemon.inbox / ".pause").touch()
        while not told or told[-1][1] < len(names):
            daemon.turn()
            told.append((daemon.clock.now(), sum(is_paused(daemon, name) for name in names)))
        began = next(at for at, number in told if number)
        for at, number in told:
            assert number <= held_songs.AT_ONCE + held_songs.A_SECOND * (at - began) + 1
        assert told[-1][0] - began < 3


def test_a_crash_in_a_pause(tmp_path: Path) -> None:
    """The next daemon finds the pause as it was, and a song that comes says so."""
    with simulated(tmp_path, **QUICK) as daemon:
        drop(daemon, "a.wav")
        pause(daemon, "now")
        daemon.until(lambda: is_paused(daemon, "a.wav"), "it waits")
        daemon.kill()
        daemon.start().ready()
        drop(daemon, "b.wav")
        daemon.until(lambda: is_paused(daemon, "a.wav") and is_paused(daemon, "b.wav"), "both wait")
        resume(daemon, "now")
        done(daemon, "a.wav", "b.wav")


def test_the_end_is_told_as_its_beginning_was(tmp_path: Path) -> None:
    """When it is over the first song begins at once, however many there are, and another pause is seen at once."""
    with simulated(tmp_path, **QUICK) as daemon:
        pause(daemon, "file")
        daemon.make_song(daemon.folder / "song.wav", 0.3)
        names = [f"{number:03}.wav" for number in range(400)]
        for name in names:
            (daemon.inbox / name).write_bytes((daemon.folder / "song.wav").read_bytes() + name.encode())
        daemon.until(lambda: all(is_paused(daemon, name) for name in names), "all say it")
        daemon.hold.touch()
        (daemon.inbox / ".pause").unlink()
        daemon.turn()
        assert sum(is_paused(daemon, name) for name in names) >= len(names) - held_songs.AT_ONCE - 2
        daemon.until(lambda: len(separated(daemon)) == 1, "the first begins", within_s=2)
        daemon.until(lambda: not any(is_paused(daemon, name) for name in names), "all say it", within_s=3)
        (daemon.inbox / ".pause").touch()
        daemon.turn()
        assert sum(is_paused(daemon, name) for name in names) <= held_songs.AT_ONCE
        (daemon.inbox / ".cancel").touch()
        go_on(daemon)
        daemon.until(lambda: daemon.song(names[-1])["state"] == "cancelled", "all go")


def test_an_urgent_song_and_a_worker_that_never_rests_long(tmp_path: Path) -> None:
    """With `keep_alive_s = 0`, too, it is begun outside the hours."""
    with simulated(tmp_path, **QUICK, model={"keep_alive_s": 0.0}) as daemon:
        pause(daemon, "schedule")
        daemon.until(lambda: daemon.read("_daemon.json")["worker"]["state"] == "asleep", "asleep")
        drop(daemon, "a.wav", priority=100)
        assert daemon.final("a.wav")["state"] == "done"


def test_a_twin_in_a_pause(tmp_path: Path) -> None:
    """A song that waits for its twin says so again when the pause is over."""
    with simulated(tmp_path, **QUICK) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav", like="a.wav")
        until_behind(daemon, "b.wav", "a.wav")
        pause(daemon, "file")
        daemon.until(lambda: is_paused(daemon, "b.wav"), "it says so")
        resume(daemon, "file")
        until_behind(daemon, "b.wav", "a.wav")
        go_on(daemon)
        assert daemon.final("b.wav")["duplicate_of"] == daemon.song("a.wav")["job_id"]


def test_a_folder_that_comes_back_in_a_pause(tmp_path: Path) -> None:
    """Songs say what else they wait for, and then that there is a pause."""
    with simulated(tmp_path, **QUICK) as daemon:
        drop(daemon, "a.wav", like="a.wav")
        assert daemon.final("a.wav")["state"] == "done"
        pause(daemon, "file")
        drop(daemon, "b.wav")
        daemon.until(lambda: is_paused(daemon, "b.wav"), "it says so")
        daemon.look_away()
        daemon.outbox.rename(daemon.spool / "away")
        daemon.until(lambda: daemon.song("b.wav")["reason"] == "outbox-missing", "it says so")
        (daemon.spool / "away").rename(daemon.outbox)
        daemon.until(lambda: is_paused(daemon, "b.wav"), "it says so again")
        resume(daemon, "file")
        assert daemon.final("b.wav")["state"] == "done"


def test_a_song_that_is_to_be_tried_again(tmp_path: Path) -> None:
    """It waits for the end of the pause as the others do; without one after a restart it waits for its turn."""
    with simulated(tmp_path, **QUICK) as daemon:
        held(daemon, "a.wav")
        (daemon.inbox / ".pause").touch()
        daemon.kill()
        daemon.start().ready()
        daemon.until(lambda: is_paused(daemon, "a.wav"), "it says so")
        (daemon.inbox / ".pause").write_text("now")
        daemon.kill()
        (daemon.inbox / ".pause").unlink()
        (daemon.folder / "missing-demo").touch()
        daemon.start()
        daemon.until(lambda: daemon.song("a.wav")["reason"] != "paused", "there is no pause")
        (daemon.folder / "missing-demo").unlink()
        go_on(daemon)
        assert daemon.final("a.wav")["state"] == "done"


@pytest.mark.parametrize(
    "data",
    [b"now", b"NOW \r\n", b"\xef\xbb\xbfnow\n", "now\r\n".encode("utf-16"), b'"now"\r\n', b" " * 100 + b"now"],
)
def test_now_as_anybody_writes_it(tmp_path: Path, data: bytes) -> None:
    """By a shell of Linux or Windows, by PowerShell, by an editor with a mark."""
    with simulated(tmp_path, **QUICK) as daemon:
        held(daemon, "a.wav")
        (daemon.inbox / ".pause").write_bytes(data)
        daemon.until(lambda: is_paused(daemon, "a.wav"), "it waits")
        assert daemon.read("_daemon.json")["paused"]["now"] is True
        (daemon.inbox / ".pause").write_bytes(b"")
        daemon.until(lambda: daemon.read("_daemon.json")["paused"]["now"] is False, "the word has gone")
        (daemon.inbox / ".pause").unlink()
        go_on(daemon)
        assert daemon.final("a.wav")["attempt"] == 1


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "binary"])
def test_what_may_be_a_pause(tmp_path: Path, kind: str) -> None:
    """Anything but a folder is a pause; a link is not followed, a FIFO not waited for, and what is no word is none."""
    with simulated(tmp_path, **QUICK) as daemon:
        held(daemon, "a.wav")
        path = daemon.inbox / ".pause"
        if kind == "link":
            (tmp_path / "says").write_text("now")
            path.symlink_to(tmp_path / "says")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(b"\xff\x00now" * 1000)
        drop(daemon, "b.wav")
        go_on(daemon)
        assert daemon.final("a.wav")["state"] == "done"
        if kind != "folder":
            daemon.until(lambda: is_paused(daemon, "b.wav"), "it waits")
            path.unlink()
        done(daemon, "a.wav", "b.wav")


def test_the_hours_change(tmp_path: Path) -> None:
    """A schedule that is read anew has another end; without one the songs go on."""
    with simulated(tmp_path, **QUICK) as daemon:
        pause(daemon, "schedule")
        drop(daemon, "a.wav")
        until = daemon.read("_daemon.json")["paused"]["until"]
        schedule(daemon, hours(daemon, 3600, 10800))
        daemon.until(lambda: daemon.read("_daemon.json")["paused"]["until"] < until, "it ends sooner")
        daemon.until(
            lambda: daemon.song("a.wav")["message"].split()[2] == hours(daemon, 3600, 0)[:5], "the song says it"
        )
        schedule(daemon, "")
        done(daemon, "a.wav")


def test_an_urgent_song_leaves_the_others_alone(tmp_path: Path) -> None:
    """Outside the hours a song of priority 100 goes before those that wait, which say what they wait for all the time."""
    with simulated(tmp_path, **QUICK) as daemon:
        pause(daemon, "schedule")
        for name in ("a.wav", "b.wav"):
            drop(daemon, name)
        daemon.until(lambda: is_paused(daemon, "b.wav"), "they wait")
        seq = daemon.song("b.wav")["seq"]
        drop(daemon, "c.wav", priority=150)
        until_step(daemon, "c.wav", "separate")
        assert daemon.final("c.wav")["state"] == "done"
        assert separated(daemon) == ["c.wav"]
        assert (daemon.song("b.wav")["reason"], daemon.song("b.wav")["seq"]) == ("paused", seq)
        resume(daemon, "schedule")
        done(daemon, "a.wav", "b.wav", "c.wav")
