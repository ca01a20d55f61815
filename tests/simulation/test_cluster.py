"""Workers in a cluster, as the supervisor sees them: machines that are not there, come, and go with a song."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demixd.config import Config
from demixd.config.sections import Model, Paths
from demixd.protocol.devices import Ray
from demixd.supervisor.workers.ray import restarting
from overlap import done, drop, go_on, held, until_step
from simulated import Simulated

CLUSTER: dict[str, Any] = {"ray": {"address": "nas:6379"}, "inbox": {"settle": 0.1, "scan_interval": 0.2}}


@contextmanager
def in_cluster(folder: Path, host: str, gpus: int = 1, **sections: Any) -> Iterator[Simulated]:
    """A daemon whose workers are on `host` of a cluster with so many GPUs; nowhere yet where that is empty."""
    daemon = Simulated(folder, **{**CLUSTER, **sections})
    daemon.script.host, daemon.script.cluster_gpus = host, gpus
    try:
        yield daemon.start().ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_songs_wait_for_a_machine(tmp_path: Path) -> None:
    """The daemon is ready all the same; they say what they wait for, and go on once it is there."""
    with in_cluster(tmp_path, "", limits={"max_attempts": 1}) as daemon:
        drop(daemon, "a.wav")
        daemon.until(lambda: daemon.song("a.wav")["reason"] == "no-worker", "it says so")
        assert daemon.song("a.wav")["message"] == "No machine of the cluster has a free GPU."
        told = daemon.read("_daemon.json")
        assert (told["state"], told["worker"]["state"], told["worker"]["host"]) == ("ready", "no-worker", "")
        daemon.sleep(300)
        drop(daemon, "b.wav")
        daemon.until(lambda: daemon.song("b.wav")["reason"] == "no-worker", "nothing fails for it")
        daemon.script.host = "box"
        done(daemon, "a.wav", "b.wav")
        assert [daemon.song(name)["attempt"] for name in ("a.wav", "b.wav")] == [1, 1]
        daemon.until(lambda: daemon.read("_daemon.json")["worker"]["state"] == "ready", "it is warm")
        assert daemon.read("_daemon.json")["worker"]["host"] == "box"


def test_as_many_workers_as_the_cluster_has_gpus(tmp_path: Path) -> None:
    """One looks, and says how many there are; those that go later are waited for."""
    with in_cluster(tmp_path, "box", gpus=3) as daemon:
        drop(daemon, "a.wav")
        done(daemon, "a.wav")
        workers = daemon.until(lambda: ready(daemon, 3), "three are warm")
        assert {each["id"] for each in workers} == {"1", "2", "3"}


def ready(daemon: Simulated, number: int) -> list[dict[str, Any]]:
    workers: list[dict[str, Any]] = daemon.read("_daemon.json")["workers"]
    return workers if [each["state"] for each in workers] == ["ready"] * number else []


def lose(daemon: Simulated, name: str) -> None:
    """The machine goes that has the song."""
    until_step(daemon, name, "separate")
    next(each for each in reversed(daemon.workers) if name in each.songs and each.is_alive).die(
        "box went", is_lost=True
    )
    daemon.until(lambda: daemon.song(name)["state"] != "running", "that is noticed")


def test_a_machine_that_goes_costs_no_attempt(tmp_path: Path) -> None:
    """Its song waits again, beside others, and is done by whoever comes next."""
    with in_cluster(tmp_path, "box", limits={"max_attempts": 1}) as daemon:
        held(daemon, "a.wav")
        lose(daemon, "a.wav")
        assert (daemon.song("a.wav")["state"], daemon.song("a.wav")["attempt"]) == ("waiting", 0)
        assert daemon.song("a.wav")["message"] == "The worker was lost (box went); trying again."
        go_on(daemon)
        done(daemon, "a.wav")
        assert daemon.song("a.wav")["attempt"] == 1


def test_a_song_that_takes_machines_along_is_given_up(tmp_path: Path) -> None:
    """From the second time on the attempt is counted."""
    with in_cluster(tmp_path, "box", limits={"max_attempts": 2}) as daemon:
        held(daemon, "a.wav")
        attempts = []
        for _ in range(3):
            lose(daemon, "a.wav")
            attempts.append(daemon.song("a.wav")["attempt"])
        assert attempts == [0, 1, 2]
        song = daemon.final("a.wav")
        assert (song["state"], song["error"]["code"]) == ("failed", "gave-up")
        go_on(daemon)


def test_a_machine_that_dies_alone_costs_its_song_an_attempt(tmp_path: Path) -> None:
    """As a worker here does."""
    with in_cluster(tmp_path, "box") as daemon:
        held(daemon, "a.wav")
        until_step(daemon, "a.wav", "separate")
        daemon.workers[-1].die("killed by signal 9")
        daemon.until(lambda: daemon.song("a.wav")["state"] == "waiting", "it waits again")
        assert daemon.song("a.wav")["attempt"] == 1
        go_on(daemon)
        done(daemon, "a.wav")


def test_the_line_to_the_cluster_is_no_songs_fault(tmp_path: Path) -> None:
    """However often the daemon's own part of it ends, nothing is counted."""
    with in_cluster(tmp_path, "box", limits={"max_attempts": 1}) as daemon:
        held(daemon, "a.wav")
        for _ in range(4):
            until_step(daemon, "a.wav", "separate")
            next(each for each in reversed(daemon.workers) if each.is_alive).die("the line has ended", is_ours=True)
            daemon.until(lambda: daemon.song("a.wav")["state"] == "waiting", "that is noticed")
            assert daemon.song("a.wav")["attempt"] == 0
        go_on(daemon)
        done(daemon, "a.wav")


def test_a_machine_that_goes_while_it_warms_up_is_followed_at_once(tmp_path: Path) -> None:
    """However often: it is no fault of the worker, whose start would be put off for minutes after that."""
    with in_cluster(tmp_path, "box") as daemon:
        for _ in range(8):
            lost = daemon.worker
            lost.die("box went", is_lost=True)
            daemon.until(lambda: daemon.worker is not lost, "another one", within_s=2.0)  # noqa: B023
        drop(daemon, "a.wav")
        done(daemon, "a.wav")


def test_who_waits_is_told_once(tmp_path: Path) -> None:
    """Of two workers one waits for a machine, and the other loads or is dead: songs say the same all the time."""
    with in_cluster(tmp_path, "", ray={"address": "nas:6379", "workers": 2}) as daemon:
        drop(daemon, "a.wav")
        drop(daemon, "b.wav")
        daemon.until(lambda: [song["reason"] for song in both(daemon)] == ["no-worker"] * 2, "they wait for a machine")
        before = [song["seq"] for song in both(daemon)]
        daemon.script.host, daemon.script.rooms = "box", 1
        daemon.until(lambda: not daemon.script.rooms, "one loads there")
        daemon.workers[0].die()
        daemon.until(lambda: states(daemon) == {"no-worker", "dead"}, "it could not")
        daemon.sleep(0.8)
        assert [song["seq"] for song in both(daemon)] == before
        daemon.script.rooms = 2
        done(daemon, "a.wav", "b.wav")


def both(daemon: Simulated) -> list[dict[str, Any]]:
    """The sidecars of both songs."""
    return [daemon.song(name) for name in ("a.wav", "b.wav")]


def states(daemon: Simulated) -> set[str]:
    """What the workers are about."""
    return {each["state"] for each in daemon.read("_daemon.json")["workers"]}


def test_a_machine_that_fails_is_no_songs_fault(tmp_path: Path) -> None:
    """The song is tried again elsewhere, for nothing, and nobody has to make room for it meanwhile."""
    ray = {"address": "nas:6379", "workers": 2}
    with in_cluster(tmp_path, "box", ray=ray, limits={"max_attempts": 1}) as daemon:
        daemon.until(lambda: ready(daemon, 2), "both are warm")
        daemon.script.put("a.wav", "machine")
        drop(daemon, "a.wav")
        daemon.until(lambda: daemon.song("a.wav")["reason"] == "no-space", "it failed")
        assert daemon.song("a.wav")["message"] == "On box: its disk is full. Trying again."
        drop(daemon, "b.wav")
        assert daemon.final("b.wav")["state"] == "done"
        assert daemon.song("a.wav")["state"] == "waiting"
        done(daemon, "a.wav", "b.wav")
        song = daemon.song("a.wav")
        assert (song["attempt"], song["engine"]["worker"]) == (1, "2")


def test_who_waits_for_a_machine_sleeps_without_songs(tmp_path: Path) -> None:
    """It would take the next free GPU from those that have some."""
    with in_cluster(tmp_path, "", model={"keep_alive_s": 60}) as daemon:
        daemon.until(lambda: daemon.read("_daemon.json")["worker"]["state"] == "asleep", "it gives up its wish")
        daemon.script.host = "box"
        drop(daemon, "a.wav")
        done(daemon, "a.wav")


def test_what_only_a_restart_can_change() -> None:
    """The child that speaks to the cluster has it from its start."""
    before = Config(ray=Ray(address="auto"))
    for part, after in (
        ("[paths]", Config(ray=before.ray, paths=Paths(spool="/x"))),
        ("[ray]", Config(ray=Ray(address="auto", workers=2))),
        ("[model] device", Config(ray=before.ray, model=Model(device="cuda"))),
        ("", Config(ray=before.ray, model=Model(name="demo"))),
    ):
        assert restarting(before, after) == part
    assert restarting(Config(), Config(model=Model(device="cpu"))) == ""
