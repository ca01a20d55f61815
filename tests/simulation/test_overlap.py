"""Songs overlap: the next one is decoded, and the last one's stems are written, while one is separated.

What others see is as ever: the next one waits, songs are separated one at a time and come out in that order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from overlap import (
    behind,
    done,
    drop,
    go_on,
    held,
    kill_worker,
    lines,
    prepared,
    run_alone,
    separated,
    three,
    until_behind,
    until_prepared,
    until_step,
)
from simulated import Simulated, simulated
from simulated_songs import make_song
from watching import sha256

QUICK: dict[str, Any] = {"inbox": {"settle": 0.1, "scan_interval": 0.2}}


@contextmanager
def started(folder: Path, **sections: Any) -> Iterator[Simulated]:
    with simulated(folder, **{**QUICK, **sections}) as daemon:
        (folder / "said").touch()
        yield daemon


def test_three_songs_are_in_it_at_once(tmp_path: Path) -> None:
    """One is finishing, one separated, one decoded ahead, which waits for everyone to see; they come out in order."""
    with started(tmp_path) as daemon:
        first, second, third = three(daemon)
        waiting = daemon.song("c.wav")
        assert (waiting["state"], waiting["reason"], waiting["attempt"]) == ("waiting", "queued", 0)
        assert waiting["progress"]["queue_position"] == 1
        told = daemon.until(
            lambda: len((s := daemon.read("_daemon.json"))["in_flight"]) == 2 and s["queue"] and s, "three in it"
        )
        assert [each["job_id"] for each in told["in_flight"]] == [first, second]
        assert told["running"] == told["in_flight"][0]
        assert [each["job_id"] for each in told["queue"]] == [third]
        assert {path.name for path in daemon.works()} == {first, second, third}
        go_on(daemon)
        done(daemon, "a.wav", "b.wav", "c.wav")
        ended = [each["job_id"] for each in lines(daemon, "said", "finished")]
    assert ended == [first, second, third]
    assert separated(daemon) == ["a.wav", "b.wav", "c.wav"]


def test_a_third_one_does_not_begin_before_the_first_has_ended(tmp_path: Path) -> None:
    """Two are in flight at most: one whose stems wait to be written still counts, and can be stopped there."""
    with started(tmp_path) as daemon:
        first, second, third = three(daemon)
        daemon.hold.unlink()
        daemon.sleep(0.5)
        assert daemon.song("c.wav")["state"] == "waiting"
        began = daemon.clock.now()
        (daemon.inbox / "b.wav.cancel").touch()
        assert daemon.final("b.wav")["state"] == "cancelled"
        assert daemon.clock.now() - began < 2
        assert [each["job_id"] for each in lines(daemon, "said", "stopped")] == [second]
        go_on(daemon)
        done(daemon, "a.wav", "c.wav")
        assert [each["job_id"] for each in lines(daemon, "said", "finished")] == [first, third]


def test_a_song_that_is_being_decoded_ahead_when_its_turn_comes(tmp_path: Path) -> None:
    """Its turn does not wait for the worker's word; the decoding that was begun is the one that counts."""
    with started(tmp_path) as daemon:
        (tmp_path / "hold-ahead").touch()
        held(daemon, "a.wav")
        second = drop(daemon, "b.wav")
        daemon.until(lambda: lines(daemon, "orders", "prepare"), "told to decode ahead")
        daemon.hold.unlink()
        until_step(daemon, "b.wav", "decode")
        assert prepared(daemon) == []
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        assert prepared(daemon) == [second]


def test_no_room_beside_a_prepared_one(tmp_path: Path) -> None:
    """What is prepared takes room as well: a song that lacks it is tried again at once, alone, and comes first."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        second = drop(daemon, "b.wav")
        until_prepared(daemon, second)
        (tmp_path / "work-full").touch()
        daemon.until(lambda: not (tmp_path / "work-full").exists(), "no room")
        daemon.hold.unlink()
        began = daemon.clock.now()
        done(daemon, "a.wav", "b.wav")
        assert daemon.clock.now() - began < 10, "it has paused"
    assert separated(daemon) == ["a.wav", "a.wav", "b.wav"]


# ---- what is prepared is what comes next, unchanged


def test_cancel_of_the_prepared_one(tmp_path: Path) -> None:
    """It ends at once, its work is removed, the worker forgets it, and the one after it is prepared."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        second, third = drop(daemon, "b.wav"), drop(daemon, "c.wav")
        until_prepared(daemon, second)
        (daemon.inbox / "b.wav.cancel").touch()
        assert daemon.final("b.wav")["state"] == "cancelled"
        until_prepared(daemon, third)
        assert [each["job_id"] for each in lines(daemon, "orders", "forget")] == [second]
        assert second not in {path.name for path in daemon.works()}
        go_on(daemon)
        done(daemon, "a.wav", "c.wav")


def test_cancel_of_the_one_that_is_being_separated(tmp_path: Path) -> None:
    """The others go on."""
    with started(tmp_path) as daemon:
        three(daemon)
        (daemon.inbox / "b.wav.cancel").touch()
        assert daemon.final("b.wav")["state"] == "cancelled"
        go_on(daemon)
        done(daemon, "a.wav", "c.wav")


def test_cancel_of_the_one_that_is_finishing(tmp_path: Path) -> None:
    """Nothing of it is published, and the others go on."""
    with started(tmp_path) as daemon:
        three(daemon)
        (daemon.inbox / "a.wav.cancel").touch()
        assert daemon.final("a.wav")["state"] == "cancelled"
        go_on(daemon)
        done(daemon, "b.wav", "c.wav")


def test_a_bare_cancel_ends_all_three(tmp_path: Path) -> None:
    """All in flight, the prepared one, and then it goes; a song that is dropped afterwards is done."""
    with started(tmp_path) as daemon:
        three(daemon)
        (daemon.inbox / ".cancel").touch()
        for name in ("a.wav", "b.wav", "c.wav"):
            assert daemon.final(name)["state"] == "cancelled"
        daemon.until(lambda: not (daemon.inbox / ".cancel").exists(), "it goes")
        go_on(daemon)
        drop(daemon, "d.wav")
        done(daemon, "d.wav")


def test_deletion_of_the_prepared_one(tmp_path: Path) -> None:
    """Deleting a waiting song cancels it, decoded or not."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        until_prepared(daemon, drop(daemon, "b.wav"))
        (daemon.inbox / "b.wav").unlink()
        assert daemon.final("b.wav")["state"] == "cancelled"
        daemon.until(lambda: len(daemon.works()) == 1, "its work is removed")
        go_on(daemon)
        done(daemon, "a.wav")


def test_replacement_of_the_prepared_one(tmp_path: Path) -> None:
    """A new drop of its name is what is prepared then, and done."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        second = drop(daemon, "b.wav")
        until_prepared(daemon, second)
        drop(daemon, "b.wav", like="other.wav")
        third = daemon.until(lambda: (n := daemon.song("b.wav")["job_id"]) != second and n, "the new drop has the name")
        until_prepared(daemon, third)
        assert second not in {path.name for path in daemon.works()}
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        assert daemon.song("b.wav")["input"]["sha256"] == sha256(tmp_path / "song-other.wav")


def test_changed_options_of_the_prepared_one(tmp_path: Path) -> None:
    """Options count as they are at the song's turn, decoded or not."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        second = drop(daemon, "b.wav")
        until_prepared(daemon, second)
        (daemon.inbox / "b.wav.job.json").write_text('{"stems": ["drums"]}')
        daemon.until(lambda: daemon.song("b.wav")["options"]["stems"] == ["drums"], "they are read")
        daemon.until(lambda: prepared(daemon) == [second, second], "prepared anew")
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        assert [each["stem"] for each in daemon.song("b.wav")["output"]["files"]] == ["drums"]


def _write(daemon: Simulated) -> None:
    (daemon.inbox / "b.wav").write_bytes(make_song(daemon.folder / "other.wav", 0.5).read_bytes())


def _add_options(daemon: Simulated) -> None:
    (daemon.inbox / "b.wav.job.json").write_text('{"stems": ["drums"]}')


def _delete(daemon: Simulated) -> None:
    (daemon.inbox / "b.wav").unlink()


@pytest.mark.parametrize("change", [_write, _add_options, _delete])
def test_what_nobody_has_seen_before_its_turn(tmp_path: Path, change: Callable[[Simulated], None]) -> None:
    """At its turn it is looked at once more: what was decoded ahead is not used for what lies there now."""
    daemon = Simulated(tmp_path, inbox={"settle": 0.1, "scan_interval": 3600.0, "watch": "poll"})
    for name in ("a.wav", "b.wav"):
        make_song(daemon.inbox / name, 0.3)
    daemon.hold.touch()
    (tmp_path / "said").touch()
    try:
        daemon.start().ready()
        until_step(daemon, "a.wav", "separate")
        until_prepared(daemon, daemon.song("b.wav")["job_id"])
        change(daemon)
        go_on(daemon)
        assert daemon.final("a.wav")["state"] == "done"
        if change is _delete:
            assert daemon.final("b.wav")["state"] == "cancelled"
        else:
            daemon.until(lambda: daemon.song("b.wav").get("reason") == "changing", "it waits")
        daemon.until(lambda: not daemon.works(), "nothing is left of it")
        assert separated(daemon) == ["a.wav"]
        assert daemon.stop() == 0
        daemon.start().ready()
        if change is not _delete:
            sidecar = daemon.final("b.wav")
            assert (sidecar["state"], sidecar["attempt"]) == ("done", 1)
            assert sidecar["input"]["duration_s"] == (0.5 if change is _write else 0.3)
            assert len(sidecar["output"]["files"]) == (1 if change is _add_options else 2)
        daemon.quiet()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_song_that_comes_first_overtakes_the_prepared_one(tmp_path: Path) -> None:
    """The one of higher priority is prepared in its stead, and separated before it."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        second = drop(daemon, "b.wav")
        until_prepared(daemon, second)
        urgent = drop(daemon, "c.wav", priority=5)
        until_prepared(daemon, urgent)
        assert [each["job_id"] for each in lines(daemon, "orders", "forget")] == [second]
        go_on(daemon)
        done(daemon, "a.wav", "b.wav", "c.wav")
    assert separated(daemon) == ["a.wav", "c.wav", "b.wav"]


def test_a_song_that_cannot_be_decoded_ahead(tmp_path: Path) -> None:
    """Nobody hears of it before its turn; then it fails as ever, and costs the others nothing."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        (tmp_path / "song-b.wav").write_bytes(b"RIFF" + bytes(100))
        second = drop(daemon, "b.wav")
        daemon.until(lambda: lines(daemon, "said", "prepared"), "tried")
        assert daemon.song("b.wav")["reason"] == "queued"
        assert prepared(daemon) == []
        go_on(daemon)
        failed = daemon.final("b.wav")
        assert (failed["job_id"], failed["state"], failed["error"]["code"]) == (second, "failed", "bad-audio")
        done(daemon, "a.wav")


@pytest.mark.parametrize(
    ("number", "told"), [(1, "1 song was waiting, and waits again"), (2, "2 songs were waiting, and wait again")]
)
def test_the_next_daemon_counts_the_songs_that_waited(tmp_path: Path, number: int, told: str) -> None:
    """In one line of its log."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        names = [f"{each}.wav" for each in range(number)]
        for name in names:
            drop(daemon, name)
            daemon.until(lambda n=name: daemon.song(n).get("reason") == "queued", "it waits")
        daemon.kill()
        daemon.start().ready()
        assert told in daemon.log.read_text()
        go_on(daemon)
        done(daemon, "a.wav", *names)


# ---- who does not overlap


def test_equal_songs_in_a_row_are_computed_once(tmp_path: Path) -> None:
    """The second waits for the end of the first, and has its result; it is not decoded either, and no attempt is counted."""
    with started(tmp_path) as daemon:
        (tmp_path / "hold-encode").touch()
        first = drop(daemon, "a.wav", like="same.wav")
        until_step(daemon, "a.wav", "encode")
        drop(daemon, "b.wav", like="same.wav")
        until_behind(daemon, "b.wav", "a.wav")
        go_on(daemon)
        assert daemon.final("b.wav")["duplicate_of"] == first
        assert daemon.song("b.wav")["attempt"] == 0
        done(daemon, "a.wav")
    assert separated(daemon) == ["a.wav"]
    assert lines(daemon, "orders", "prepare") == []


def test_the_song_after_an_equal_one_is_decoded_ahead(tmp_path: Path) -> None:
    """Once its copy shows that a song has a twin in flight, the one behind it is prepared instead, and overtakes it."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav", like="a.wav")
        third = drop(daemon, "c.wav")
        until_prepared(daemon, third)
        assert behind(daemon, "b.wav", "a.wav")
        go_on(daemon)
        done(daemon, "a.wav", "c.wav")
        assert daemon.final("b.wav")["duplicate_of"] == daemon.song("a.wav")["job_id"]
    assert separated(daemon) == ["a.wav", "c.wav"]


def test_cancel_of_one_that_waits_for_an_equal_one(tmp_path: Path) -> None:
    """It ends at once."""
    with started(tmp_path) as daemon:
        (tmp_path / "hold-encode").touch()
        drop(daemon, "a.wav", like="same.wav")
        until_step(daemon, "a.wav", "encode")
        drop(daemon, "b.wav", like="same.wav")
        until_behind(daemon, "b.wav", "a.wav")
        (daemon.inbox / "b.wav.cancel").touch()
        assert daemon.final("b.wav")["state"] == "cancelled"
        go_on(daemon)
        done(daemon, "a.wav")


def test_an_equal_song_whose_twin_fails_is_separated(tmp_path: Path) -> None:
    """The first is cancelled; the second, which has waited for it, is computed."""
    with started(tmp_path) as daemon:
        (tmp_path / "hold-encode").touch()
        drop(daemon, "a.wav", like="same.wav")
        until_step(daemon, "a.wav", "encode")
        drop(daemon, "b.wav", like="same.wav")
        until_behind(daemon, "b.wav", "a.wav")
        (daemon.inbox / "a.wav.cancel").touch()
        assert daemon.final("a.wav")["state"] == "cancelled"
        go_on(daemon)
        done(daemon, "b.wav")
    assert separated(daemon) == ["a.wav", "b.wav"]


def test_a_newer_drop_waits_for_the_older_one_to_end(tmp_path: Path) -> None:
    """While a song is in flight another of its name is neither prepared nor begun; the next song overtakes it."""
    with started(tmp_path) as daemon:
        (tmp_path / "hold-encode").touch()
        first = drop(daemon, "a.wav")
        until_step(daemon, "a.wav", "encode")
        drop(daemon, "a.wav", like="other.wav")
        newer = daemon.until(lambda: daemon.song("a.wav")["next"], "the newer one waits")
        third = drop(daemon, "b.wav")
        daemon.until(lambda: third in [each["job_id"] for each in lines(daemon, "orders", "separate")], "b runs")
        go_on(daemon)
        daemon.until(lambda: (s := daemon.song("a.wav"))["job_id"] == newer and s["state"] == "done", "done")
        assert daemon.song("a.wav")["previous"]["job_id"] == first
        assert daemon.final("b.wav")["state"] == "done"
        daemon.quiet()
    assert separated(daemon) == ["a.wav", "b.wav", "a.wav"]


def test_another_model_waits_until_nothing_is_in_flight(tmp_path: Path) -> None:
    """The song that wants it is not prepared, those behind it keep their place, and the model changes in between."""
    with started(tmp_path, profiles={}, model={"name": "one"}) as daemon:
        (tmp_path / "hold-encode").touch()
        held(daemon, "a.wav")
        drop(daemon, "b.wav", model="htdemucs")
        drop(daemon, "c.wav")
        daemon.hold.unlink()
        until_step(daemon, "a.wav", "encode")
        daemon.sleep(0.5)
        assert [daemon.song(name)["state"] for name in ("b.wav", "c.wav")] == ["waiting", "waiting"]
        assert [each["model"] for each in lines(daemon, "orders", "warm")] == ["one"]
        assert lines(daemon, "orders", "prepare") == []
        go_on(daemon)
        done(daemon, "a.wav", "b.wav", "c.wav")
    assert separated(daemon) == ["a.wav", "b.wav", "c.wav"]
    assert [each["model"] for each in lines(daemon, "orders", "warm")] == ["one", "htdemucs", "one"]


# ---- the disk


def test_a_worker_that_dies_while_it_decodes_ahead(tmp_path: Path) -> None:
    """It may have been the one or the other: neither is charged, both are tried alone."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        (tmp_path / "hold-ahead").touch()
        drop(daemon, "b.wav")
        daemon.until(lambda: lines(daemon, "orders", "prepare"), "being decoded")
        kill_worker(daemon)
        assert daemon.song("b.wav")["reason"] == "retry"
        (tmp_path / "hold-ahead").unlink()
        run_alone(daemon, "a.wav", "b.wav", prepares=1)
        done(daemon, "a.wav", "b.wav")


def test_a_worker_that_dies_beside_a_prepared_song(tmp_path: Path) -> None:
    """Only one was at work: it is charged, as ever, and tried alone; the prepared one just waits."""
    with started(tmp_path) as daemon:
        held(daemon, "a.wav")
        second = drop(daemon, "b.wav")
        until_prepared(daemon, second)
        kill_worker(daemon)
        until_step(daemon, "a.wav", "separate")
        assert daemon.song("a.wav")["attempt"] == 2
        assert daemon.song("b.wav")["reason"] == "queued"
        daemon.sleep(0.3)
        assert len(lines(daemon, "orders", "prepare")) == 1
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        assert daemon.song("b.wav")["attempt"] == 1


def test_a_daemon_that_dies_with_two_in_flight(tmp_path: Path) -> None:
    """kill -9: after a restart neither is charged, and both are tried alone; nothing is published twice."""
    daemon = Simulated(tmp_path, **QUICK)
    try:
        daemon.start().ready()
        (tmp_path / "said").touch()
        three(daemon)
        daemon.end()
        daemon.start().ready()
        run_alone(daemon, "a.wav", "b.wav", prepares=2)
        done(daemon, "a.wav", "b.wav", "c.wav")
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_a_stop_with_three(tmp_path: Path) -> None:
    """SIGTERM: both in flight wait again, uncharged; nothing is left of the prepared one; all overlap after a restart."""
    daemon = Simulated(tmp_path, **QUICK)
    try:
        daemon.start().ready()
        (tmp_path / "said").touch()
        jobs = three(daemon)
        began = daemon.clock.now()
        assert daemon.stop() == 0
        assert daemon.clock.now() - began < 5
        for name, job in zip(("a.wav", "b.wav", "c.wav"), jobs, strict=True):
            sidecar = daemon.song(name)
            assert (sidecar["job_id"], sidecar["state"], sidecar["attempt"]) == (job, "waiting", 0)
        assert daemon.works() == []
        go_on(daemon)
        daemon.start().ready()
        done(daemon, "a.wav", "b.wav", "c.wav")
        assert daemon.stop() == 0
    finally:
        daemon.end()
    assert separated(daemon)[2:] == ["a.wav", "b.wav", "c.wav"]


def test_a_worker_that_is_killed_for_one_song_s_cancel(tmp_path: Path) -> None:
    """A cancel that is not obeyed in time costs the others nothing: they wait again, and may overlap."""
    with started(tmp_path, limits={"cancel_grace_s": 0.5}) as daemon:
        three(daemon)
        (tmp_path / "deaf").touch()
        (daemon.inbox / "b.wav.cancel").touch()
        assert daemon.final("b.wav")["state"] == "cancelled"
        daemon.until(lambda: daemon.song("a.wav").get("attempt") == 1 and len(separated(daemon)) == 3, "a again")
        (tmp_path / "deaf").unlink()
        daemon.until(lambda: len(lines(daemon, "orders", "prepare")) == 3, "the next is prepared beside it")
        go_on(daemon)
        done(daemon, "a.wav", "c.wav")
        assert [daemon.song(name)["attempt"] for name in ("a.wav", "c.wav")] == [1, 1]


@pytest.mark.parametrize("how", ["stall", "babble"])
def test_a_song_that_gets_no_further(tmp_path: Path, how: str) -> None:
    """Whether it is said again and again or not at all: the worker is ended after a minute, and the song is tried again."""
    with started(tmp_path) as daemon:
        daemon.script.put("a.wav", how)
        drop(daemon, "a.wav")
        until_step(daemon, "a.wav", "separate")
        began = daemon.clock.now()
        daemon.until(lambda: daemon.song("a.wav").get("reason") == "retry", "it is tried again", within_s=120)
        assert 59 < daemon.clock.now() - began < 65
        assert "it stalled" in daemon.song("a.wav")["message"]
        done(daemon, "a.wav")
        assert daemon.song("a.wav")["attempt"] == 2


# ---- the worker itself
