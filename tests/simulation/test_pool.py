"""Several workers on one spool: each has a song of its own, and what befalls one is nothing to the others."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demixd.engine import host
from overlap import behind, done, drop, go_on, held, separated, until_behind, until_step
from simulated import Simulated, simulated
from simulated_worker import SimulatedWorker

TWO: dict[str, Any] = {"model": {"device": ["cpu", "cpu"]}, "inbox": {"settle": 0.1, "scan_interval": 0.2}}


@contextmanager
def two(folder: Path, **sections: Any) -> Iterator[Simulated]:
    with simulated(folder, **{**TWO, **sections}) as daemon:
        (folder / "said").touch()
        all_warm(daemon, 2)
        yield daemon


def workers(daemon: Simulated) -> list[dict[str, Any]]:
    return list(daemon.read("_daemon.json")["workers"])


def all_warm(daemon: Simulated, number: int) -> None:
    daemon.until(lambda: [each["state"] for each in workers(daemon)] == ["ready"] * number, f"{number} are warm")


def who_has(daemon: Simulated, name: str) -> SimulatedWorker:
    return next(each for each in daemon.workers if name in each.songs)


def who_had(daemon: Simulated, name: str) -> str:
    return str(daemon.song(name)["engine"]["worker"])


def test_two_songs_at_a_time(tmp_path: Path) -> None:
    """Who has which is in the heartbeat and in the sidecars; in the manifest, too."""
    with two(tmp_path) as daemon:
        daemon.hold.touch()
        jobs = [drop(daemon, f"{name}.wav") for name in "abcd"]
        for name in "ab":
            until_step(daemon, f"{name}.wav", "separate")
        assert [who_had(daemon, f"{name}.wav") for name in "ab"] == ["1", "2"]
        daemon.until(lambda: all(each["in_flight"] for each in workers(daemon)), "both are told")
        told = daemon.read("_daemon.json")
        assert [[song["job_id"] for song in each["in_flight"]] for each in told["workers"]] == [[jobs[0]], [jobs[1]]]
        assert [each["job_id"] for each in told["in_flight"]] == jobs[:2]
        assert [each["id"] for each in told["workers"]] == ["1", "2"]
        assert told["worker"] == told["workers"][0]
        assert {each["host"] for each in told["workers"]} != {""}
        assert [daemon.song(f"{name}.wav")["state"] for name in "cd"] == ["waiting", "waiting"]
        go_on(daemon)
        done(daemon, "a.wav", "b.wav", "c.wav", "d.wav")
        had = {name: who_had(daemon, f"{name}.wav") for name in "abcd"}
        assert sorted(had.values()) == ["1", "1", "2", "2"]
        started = list(daemon.workers)
    assert all(each.threads == max(1, host.threads() // 2) for each in started)


def test_in_the_order_of_priority(tmp_path: Path) -> None:
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav")
        until_step(daemon, "b.wav", "separate")
        for number, priority in enumerate((0, 5, 0, 9, 1)):
            drop(daemon, f"{number}.wav", priority=priority)
        go_on(daemon)
        done(daemon, "a.wav", "b.wav", *(f"{number}.wav" for number in range(5)))
    assert separated(daemon)[2:] == [f"{number}.wav" for number in (3, 1, 4, 0, 2)]


def test_a_worker_that_dies_costs_its_own_song_alone(tmp_path: Path) -> None:
    """The other goes on; nothing of it is done again."""
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav")
        until_step(daemon, "b.wav", "separate")
        other = who_has(daemon, "b.wav")
        who_has(daemon, "a.wav").die()
        daemon.until(lambda: daemon.song("a.wav")["state"] == "waiting", "it waits again")
        assert daemon.song("a.wav")["attempt"] == 1
        assert daemon.song("b.wav")["step"] == "separate"
        daemon.sleep(5)
        assert daemon.song("a.wav")["state"] == "waiting", "it runs alone"
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        assert (daemon.song("a.wav")["attempt"], daemon.song("b.wav")["attempt"]) == (2, 1)
        assert other.songs.count("b.wav") == 1


def test_a_worker_that_stalls_costs_its_own_song_alone(tmp_path: Path) -> None:
    with two(tmp_path) as daemon:
        daemon.script.put("a.wav", "stall")
        drop(daemon, "a.wav")
        until_step(daemon, "a.wav", "separate")
        for name in "bcd":
            drop(daemon, f"{name}.wav")
            assert daemon.final(f"{name}.wav")["attempt"] == 1
        done(daemon, "a.wav", "b.wav", "c.wav", "d.wav")
        assert daemon.song("a.wav")["attempt"] == 2


def test_one_song_under_two_names(tmp_path: Path) -> None:
    """It is computed once; its copies keep no worker, which has the next song meanwhile."""
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        for name in ("b.wav", "c.wav"):
            drop(daemon, name, like="a.wav")
            until_behind(daemon, name, "a.wav")
        drop(daemon, "d.wav")
        until_step(daemon, "d.wav", "separate")
        assert behind(daemon, "b.wav", "a.wav")
        go_on(daemon)
        for name in ("b.wav", "c.wav"):
            assert daemon.final(name)["duplicate_of"] == daemon.song("a.wav")["job_id"]
            assert daemon.song(name)["attempt"] == 0
        daemon.quiet()
    assert sum(map(separated(daemon).count, ("b.wav", "c.wav"))) == 0


def test_a_copy_says_what_it_waits_for_no_longer_than_that(tmp_path: Path) -> None:
    """The song is over, and the copy waits for its turn, which another song has."""
    with simulated(tmp_path, inbox=TWO["inbox"]) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "c.wav")
        drop(daemon, "b.wav", like="a.wav")
        daemon.sleep(2)
        (daemon.inbox / "c.wav.job.json").write_text('{"priority": 5}')
        until_behind(daemon, "b.wav", "a.wav")
        go_on(daemon)
        until_step(daemon, "c.wav", "separate")
        daemon.hold.touch()
        daemon.final("a.wav")
        daemon.sleep(0.1)
        assert daemon.song("c.wav")["step"] == "separate"
        assert (daemon.song("b.wav")["state"], daemon.song("b.wav")["message"]) == ("waiting", "")
        go_on(daemon)
        assert daemon.final("b.wav")["state"] == "done"


def test_one_song_under_two_names_after_a_restart(tmp_path: Path) -> None:
    """The ledger knows that they are the same: the copy does not begin, not even to be read, while the song is separated."""
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav", like="a.wav")
        until_behind(daemon, "b.wav", "a.wav")
        daemon.stop()
        daemon.start().ready()
        all_warm(daemon, 2)
        until_step(daemon, "a.wav", "separate")
        since = daemon.song("b.wav")["state_since"]
        daemon.sleep(5)
        assert behind(daemon, "b.wav", "a.wav")
        assert daemon.song("b.wav")["state_since"] == since
        go_on(daemon)
        assert daemon.final("b.wav")["duplicate_of"] == daemon.song("a.wav")["job_id"]


def test_other_options_for_one_of_two_names(tmp_path: Path) -> None:
    """While the copy waits for the end of the song it gets an option file: it is another song then, and begins at once."""
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav", like="a.wav")
        until_behind(daemon, "b.wav", "a.wav")
        (daemon.inbox / "b.wav.job.json").write_text('{"stems": ["vocals"]}')
        until_step(daemon, "b.wav", "separate")
        go_on(daemon)
        assert daemon.final("b.wav")["duplicate_of"] is None


def test_another_song_in_place_of_a_copy(tmp_path: Path) -> None:
    """While the copy waits for the end of the song another one takes its name: that one begins at once."""
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        first = drop(daemon, "b.wav", like="a.wav")
        until_behind(daemon, "b.wav", "a.wav")
        drop(daemon, "b.wav", like="other.wav")
        until_step(daemon, "b.wav", "separate")
        assert daemon.song("b.wav")["previous"]["job_id"] == first
        go_on(daemon)
        assert daemon.final("b.wav")["duplicate_of"] is None


def test_two_drops_of_one_name(tmp_path: Path) -> None:
    """The second waits for the first, also where a worker is free."""
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        daemon.make_song(tmp_path / "other.wav", 0.7)
        (tmp_path / "other.wav").rename(daemon.inbox / "a.wav")
        daemon.sleep(5)
        assert len(daemon.read("_daemon.json")["in_flight"]) == 1
        go_on(daemon)
        daemon.until(lambda: {"a", "a (2)"} <= daemon.results(), "both results")
        daemon.quiet()


def test_cancel_of_all(tmp_path: Path) -> None:
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav")
        until_step(daemon, "b.wav", "separate")
        (daemon.inbox / ".cancel").touch()
        began = daemon.clock.now()
        for name in "ab":
            assert daemon.final(f"{name}.wav")["state"] == "cancelled"
        assert daemon.clock.now() - began < 2
        go_on(daemon)
        daemon.quiet()


def test_each_goes_to_sleep_by_itself(tmp_path: Path) -> None:
    """An idle one, while the other works; and one song wakes one."""
    with two(tmp_path, model={"device": ["cpu", "cpu"], "keep_alive_s": 5}) as daemon:
        held(daemon, "a.wav")
        daemon.until(lambda: [each["state"] for each in workers(daemon)] == ["ready", "asleep"], "one sleeps")
        drop(daemon, "b.wav")
        until_step(daemon, "b.wav", "separate")
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        daemon.until(lambda: [each["state"] for each in workers(daemon)] == ["asleep"] * 2, "both sleep")
        held(daemon, "c.wav")
        daemon.sleep(3)
        assert sorted(each["state"] for each in workers(daemon)) == ["asleep", "ready"]
        go_on(daemon)
        done(daemon, "a.wav", "b.wav", "c.wav")


def reload_with(daemon: Simulated, device: str) -> str:
    """Have one device for the two; the configuration that there was."""
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace('device = ["cpu", "cpu"]', f'device = "{device}"'))
    daemon.reload()
    return text


def test_what_a_worker_without_a_place_had_prepared_is_let_go(tmp_path: Path) -> None:
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        for name in ("b.wav", "c.wav", "d.wav"):
            drop(daemon, name)
        until_step(daemon, "b.wav", "separate")
        prepared = daemon.service.runner._context.prepared  # type: ignore[union-attr]
        daemon.until(lambda: len(prepared) == 2, "c and d are read")
        reload_with(daemon, "cpu")
        (daemon.inbox / "b.wav.cancel").touch()
        daemon.until(lambda: [each["id"] for each in workers(daemon)] == ["1"], "the other one is gone")
        assert prepared == set(), "whoever takes no songs any more has none prepared"
        go_on(daemon)
        done(daemon, *(f"{name}.wav" for name in "acd"))
        assert prepared == set()


def test_fewer_devices_by_a_reload(tmp_path: Path) -> None:
    """Who has no place any more ends its song first; one more by another reload begins at once."""
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav")
        until_step(daemon, "b.wav", "separate")
        text = reload_with(daemon, "cpu")
        drop(daemon, "c.wav")
        daemon.sleep(3)
        assert daemon.song("c.wav")["state"] == "waiting"
        go_on(daemon)
        done(daemon, "a.wav", "b.wav", "c.wav")
        assert [who_had(daemon, f"{name}.wav") for name in "abc"] == ["1", "2", "1"]
        assert [each["id"] for each in workers(daemon)] == ["1"]
        daemon.config.write_text(text)
        daemon.reload()
        all_warm(daemon, 2)


def test_a_reload_says_what_waits_for_songs(tmp_path: Path) -> None:
    """Workers that have one go by another list of devices after it: the log says so at once, and which begins anew then."""
    later = "once its songs in flight are over, and takes no other before"
    with two(tmp_path) as daemon:
        held(daemon, "a.wav")
        drop(daemon, "b.wav")
        until_step(daemon, "b.wav", "separate")
        reload_with(daemon, "cuda:0")
        daemon.sleep(1)
        told = daemon.log.read_text().partition("the configuration was read again")[2]
        assert f"worker 1: begins anew with the new configuration {later}" in told
        assert f"worker 2: ends {later}" in told
        assert "worker 1: begins anew, since" not in told
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        assert "worker 1: begins anew, since the configuration of the model has changed" in daemon.log.read_text()


def test_every_gpu_by_auto(tmp_path: Path) -> None:
    """The first worker sees them; where one does not work, there is one worker fewer, and no second one on the CPU."""
    daemon = Simulated(tmp_path / "daemon", model={"device": "auto"}, inbox={"settle": 0.1, "scan_interval": 0.2})
    daemon.script.gpus = [True, True, False]
    try:
        daemon.start()
        daemon.ready()
        daemon.until(
            lambda: [each["state"] for each in workers(daemon)] == ["ready", "ready", "without-gpu"], "all have tried"
        )
        assert [each["device"] for each in workers(daemon)] == ["cuda:0", "cuda:1", None]
        for name in "abcd":
            drop(daemon, f"{name}.wav")
        done(daemon, "a.wav", "b.wav", "c.wav", "d.wav")
        assert {who_had(daemon, f"{name}.wav") for name in "abcd"} == {"1", "2"}
        daemon.script.gpus[2] = True
        all_warm(daemon, 3)
    finally:
        daemon.end()


@pytest.mark.parametrize("kills", [1, 2])
def test_after_a_crash(tmp_path: Path, kills: int) -> None:
    """The daemon dies with a song at each worker: both are done again, each once, and no attempt is counted."""
    daemon = Simulated(tmp_path / "daemon", **TWO)
    try:
        daemon.start()
        daemon.ready()
        all_warm(daemon, 2)
        held(daemon, "a.wav")
        drop(daemon, "b.wav")
        until_step(daemon, "b.wav", "separate")
        for _ in range(kills):
            daemon.kill()
            daemon.start()
            daemon.ready()
        go_on(daemon)
        done(daemon, "a.wav", "b.wav")
        assert daemon.song("b.wav")["attempt"] == 1
    finally:
        daemon.end()
