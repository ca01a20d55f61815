"""Workers in a cluster: real Ray on this machine, nodes with pretended GPUs, and the demo model on the processor."""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusters import HOST, Cluster, Node, cluster, descendants, listening
from daemons import PATIENCE_S, ROOT, Daemon, make_song, running
from demixd.cli.check.cluster import checks as cluster_checks
from demixd.cli.check.finding import Level
from demixd.config import Config
from demixd.protocol.devices import Ray
from pages import TUNING, blocks

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="no Ray: pip install --require-hashes --no-deps -r config/requirements-ray.lock",
)

CANCEL_S = 2.0
"""How long a cancel may take to reach a worker, wherever it is, and be told."""

MODEL = {"name": "demo", "device": "auto", "precision": "float32"}

NOWHERE = [["/", "/nowhere"]]
"""A map by which no machine sees the spool."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with two nodes."""
    with cluster(tmp_path_factory.mktemp("cluster"), nodes=2) as one:
        yield one


def daemon_on(folder: Path, there: Cluster, *, ray: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Daemon:
    """A daemon whose workers are in the cluster; it is still to be started."""
    settings = {"address": there.address, **(ray or {})}
    return Daemon(folder, ray=settings, model=MODEL, **sections)


def start(daemon: Daemon, there: Cluster, workers: int = 2) -> Daemon:
    """Start it, and wait until so many workers are warm."""
    daemon.start(**{name: there.environment[name] for name in ("RAY_AUTH_TOKEN", "TMPDIR")})
    daemon.until(lambda: states(daemon).count("ready") >= workers, f"{workers} workers")
    return daemon


def states(daemon: Daemon) -> list[str]:
    return [worker["state"] for worker in daemon.read("_daemon.json").get("workers", [])]


def stems(daemon: Daemon, name: str) -> dict[str, str]:
    """The hash of each stem of a song that is done."""
    song = daemon.final(name)
    assert song["state"] == "done", song["error"]
    return {file["name"]: file["sha256"] for file in song["output"]["files"]}


def test_by_path_and_in_pieces_the_same_comes_out(two: Cluster, tmp_path: Path) -> None:
    """A machine that sees the spool works in it; another one gets the song in pieces. Both give what a worker here gives."""
    made: dict[str, Any] = {}
    for way, ray in (("path", {}), ("pieces", {"path_map": NOWHERE})):
        daemon = daemon_on(tmp_path / way, two, ray=ray)
        try:
            start(daemon, two)
            songs = [make_song(daemon.inbox / f"{n}.wav", 3.0 + n).name for n in range(4)]
            made[way] = {name: stems(daemon, name) for name in songs}
            engines = [daemon.song(name)["engine"] for name in songs]
            assert {engine["worker"] for engine in engines} == {"1", "2"}, "both have had songs"
            made[way]["by"] = {engine["runtime"] for engine in engines}
            daemon.quiet()
            assert not [*tmp_path.rglob("out-*"), *tmp_path.rglob("tmp-*")], "attempts leave nothing"
            assert daemon.stop() == 0
        finally:
            daemon.end()
    assert made["path"] == made["pieces"]
    with running(tmp_path / "here", model=MODEL) as here:
        songs = [make_song(here.inbox / f"{n}.wav", 3.0 + n).name for n in range(4)]
        expected = {name: stems(here, name) for name in songs}
        expected["by"] = {here.song(name)["engine"]["runtime"] for name in songs}
    assert made["path"] == expected
    assert not list(Path(two.environment["TMPDIR"]).glob("demixd-actor-*/[0-9a-f]*")), "nor there"


@pytest.mark.parametrize("way", ["path", "pieces"])
def test_a_cancel_reaches_a_worker_in_the_cluster(two: Cluster, tmp_path: Path, way: str) -> None:
    """Its song is `cancelled` within two seconds, and the worker goes on with the next."""
    daemon = daemon_on(tmp_path, two, ray={"path_map": NOWHERE if way == "pieces" else [], "workers": 1})
    try:
        start(daemon, two, workers=1)
        make_song(daemon.inbox / "long.wav", 120.0)
        daemon.until(lambda: daemon.song("long.wav").get("step") == "separate", "it runs")
        began = time.monotonic()
        (daemon.inbox / "long.wav.cancel").touch()
        assert daemon.final("long.wav")["state"] == "cancelled"
        assert time.monotonic() - began < CANCEL_S
        make_song(daemon.inbox / "next.wav", 1.0)
        assert stems(daemon, "next.wav")
        assert "killed" not in daemon.log.read_text(), "the worker has stopped by itself"
        assert daemon.stop() == 0
    finally:
        daemon.end()


@pytest.mark.daily
def test_a_cluster_comes_and_goes(tmp_path: Path) -> None:
    """While there is none, songs wait and say so; they are done as soon as one is there, and nothing fails for it."""
    there = Cluster(tmp_path)
    daemon = daemon_on(tmp_path / "daemon", there)
    try:
        start(daemon, there, workers=0)
        for turn in (1, 2):
            make_song(daemon.inbox / f"{turn}.wav", 1.0)
            told = f"The cluster ({there.address}) cannot be reached"
            daemon.until(lambda: told in why_it_waits(daemon, f"{turn}.wav"), "it waits, and says why")  # noqa: B023
            daemon.until(
                lambda: daemon.read("_daemon.json")["state"] == "ready", "it is ready"
            )  # the heartbeat may come after
            there.start().add()
            assert daemon.final(f"{turn}.wav")["state"] == "done"
            assert daemon.song(f"{turn}.wav")["attempt"] == 1
            there.stop()
            daemon.until(lambda: "no-worker" in states(daemon), "its absence is noticed")
        assert daemon.stop() == 0
    finally:
        daemon.end()
        there.end()


def why_it_waits(daemon: Daemon, name: str) -> str:
    """The sentence, where it waits for a machine."""
    song = daemon.song(name)
    return str(song["message"]) if song.get("reason") == "no-worker" else ""


@pytest.mark.daily
def test_no_token_and_a_wrong_one_are_told_and_another_one_taken_at_once(two: Cluster, tmp_path: Path) -> None:
    """It is the same sentence all the time, and nothing of Ray's own goes into the log."""
    token = tmp_path / "token"
    daemon = daemon_on(tmp_path / "daemon", two)
    environment = {"RAY_AUTH_TOKEN_PATH": str(token), "TMPDIR": two.environment["TMPDIR"]}
    try:
        daemon.start(**environment)
        make_song(daemon.inbox / "Song.wav", 1.0)
        told = f"The cluster ({two.address}) asks for a token: put that of its head into {token}."
        daemon.until(lambda: why_it_waits(daemon, "Song.wav") == told, "it asks for one")
        token.write_text("b" * 64)
        told = f"The cluster ({two.address}) refuses the token in {token}: put that of its head there."
        daemon.until(lambda: why_it_waits(daemon, "Song.wav") == told, "it refuses that one")
        before = daemon.song("Song.wav")["seq"]
        time.sleep(10)
        assert daemon.song("Song.wav")["seq"] == before
        token.write_text(two.environment["RAY_AUTH_TOKEN"])
        assert daemon.final("Song.wav")["state"] == "done"
        assert "gcs_client" not in daemon.log.read_text()
        assert daemon.stop() == 0
    finally:
        daemon.end()


@contextlib.contextmanager
def three_at_work(two: Cluster, folder: Path) -> Iterator[tuple[Daemon, Node]]:
    """A daemon with a song at each of three nodes, none of which may be tried twice; and a node that is there for this."""
    spare = two.add()
    daemon = daemon_on(folder, two, limits={"max_attempts": 1})
    try:
        start(daemon, two, workers=3)
        for n in range(3):
            make_song(daemon.inbox / f"{n}.wav", 20.0)
        daemon.until(
            lambda: all(daemon.song(f"{n}.wav").get("step") == "separate" for n in range(3)), "all are at work"
        )
        yield daemon, spare
        assert daemon.stop() == 0
    finally:
        daemon.end()
        if spare in two.nodes:
            two.remove(spare)


@pytest.mark.daily
def test_a_node_that_goes_costs_no_attempt(two: Cluster, tmp_path: Path) -> None:
    """Its song is done by another machine, and counts as tried once; a node that comes is used."""
    with three_at_work(two, tmp_path) as (daemon, spare):
        two.remove(spare)
        assert [daemon.final(f"{n}.wav")["state"] for n in range(3)] == ["done"] * 3
        assert [daemon.song(f"{n}.wav")["attempt"] for n in range(3)] == [1] * 3
        assert daemon.results() == {f"{n}{rest}" for n in range(3) for rest in ("", *(f"/{file}" for file in FILES))}


@pytest.mark.daily
def test_an_actor_that_dies_costs_its_song_an_attempt(two: Cluster, tmp_path: Path) -> None:
    """Its machine is there: it may have been the song. So it is with the worker in the actor."""
    daemon = daemon_on(tmp_path, two)
    try:
        start(daemon, two)
        for number, victim in enumerate(("ray::Actor", "demixd.worker ")):
            name = f"{number}.wav"
            make_song(daemon.inbox / name, 8.0)
            daemon.until(lambda: daemon.song(name).get("step") == "separate", "it runs")  # noqa: B023
            who_has(two, daemon.song(name)["job_id"]).signal(signal.SIGKILL, of=victim)
            assert daemon.final(name)["state"] == "done"
            assert daemon.song(name)["attempt"] == 2
        assert daemon.stop() == 0
    finally:
        daemon.end()


def who_has(there: Cluster, job_id: str) -> Node:
    """The node whose worker holds the folders of a job open."""
    for node in there.nodes:
        for pid in node.pids("demixd.worker "):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if job_id in str(handle.readlink()):
                        return node
    raise AssertionError(f"nobody has {job_id}")


FILES = ("stems.json", "peaks.json", "vocals.wav", "instrumental.wav")


@pytest.mark.daily
def test_an_answer_that_comes_late_is_thrown_away(two: Cluster, tmp_path: Path) -> None:
    """A machine that sleeps with a song wakes up when another one has done it: what it still writes is in nobody's way."""
    with three_at_work(two, tmp_path) as (daemon, spare):
        spare.signal(signal.SIGSTOP)
        assert [daemon.final(f"{n}.wav")["state"] for n in range(3)] == ["done"] * 3
        made = {path: (daemon.outbox / path).stat().st_mtime_ns for path in daemon.results()}
        spare.signal(signal.SIGCONT)
        daemon.until(lambda: not spare.pids("ray::Actor"), "its actor is ended")
        daemon.quiet()
        assert {path: (daemon.outbox / path).stat().st_mtime_ns for path in daemon.results()} == made
        assert len(made) == 3 * (1 + len(FILES))


def test_check_knows_a_cluster(two: Cluster) -> None:
    """A real head answers as `check` expects of one, and a real node is seen."""
    looked = cluster_checks(Config(ray=Ray(address=two.address)), None)
    told = [found.text for _, check in looked if (found := check()).level is Level.OK]
    assert f"{two.address} answers, as the head of a cluster does" in told
    assert "a node of a cluster runs on this machine; whether it is this one's, the daemon says" in told


@pytest.mark.daily
def test_another_version_is_refused(tmp_path: Path) -> None:
    """A machine with another demixd gets no song, and the sentence says which and what to do."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "daemon" / "demixd", other / "demixd", ignore=shutil.ignore_patterns("__pycache__"))
    version = other / "demixd" / "version.py"
    version.write_text(version.read_text().replace('__version__ = "', '__version__ = "9.'))
    with cluster(tmp_path) as there:
        stranger = there.add(PYTHONPATH=str(other))
        daemon = daemon_on(tmp_path / "daemon", there)
        try:
            start(daemon, there, workers=0)
            make_song(daemon.inbox / "Song.wav", 1.0)
            daemon.until(lambda: "has demixd 9." in why_it_waits(daemon, "Song.wav"), "it is told")
            assert "install the same on both" in why_it_waits(daemon, "Song.wav")
            there.add()
            assert daemon.final("Song.wav")["state"] == "done"
            assert not stranger.pids("demixd.worker ")
            assert daemon.stop() == 0
        finally:
            daemon.end()


@pytest.mark.daily
def test_the_pages_cluster(tmp_path: Path) -> None:
    """The commands of the page, but for the installation, on one machine: a head, and a node with a pretended GPU."""
    (typed,) = (text for heading, text in blocks("sh", TUNING) if heading == "Without the service, or on one machine")
    home = Path(tempfile.mkdtemp(prefix="ray"))  # paths of its sockets may not be long
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    for its, mine in (
        ("192.168.1.10", HOST),
        ("192.168.1.20", HOST),
        ("6379", str(port)),
        (".venv/bin/", f"{Path(sys.executable).parent}/"),
    ):
        typed = typed.replace(its, mine)
    _, settings, token, head, node = typed.splitlines()
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT / "daemon")}
    nodes: list[Node] = []
    try:
        subprocess.run(["sh", "-c", f"{settings}; {token}"], env=environment, check=True, capture_output=True)
        for words in (head, f"{node.split('#')[0]} --num-gpus=1"):
            log = tmp_path / f"{len(nodes)}.log"
            nodes.append(Node(["sh", "-c", f"{settings}; exec {words}"], environment, log).started())
        daemon = Daemon(tmp_path / "daemon", ray={"address": f"{HOST}:{port}"}, model=MODEL)
        try:
            daemon.start(HOME=str(home), RAY_TMPDIR=str(home / ".ray"))
            make_song(daemon.inbox / "Song.wav", 1.0)
            assert daemon.final("Song.wav")["state"] == "done"
            assert daemon.song("Song.wav")["engine"]["host"] == socket.gethostname()
            assert daemon.stop() == 0
        finally:
            daemon.end()
    finally:
        for each in nodes:
            each.end()
        shutil.rmtree(home, ignore_errors=True)


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, ::ffff:127.0.0.1 and ::1."""


def test_a_cluster_of_this_machine_alone(tmp_path: Path) -> None:
    """`local` needs nothing else; nobody else can reach it, and it ends with the daemon."""
    ray = {"address": "local", "workers": 2}
    daemon = Daemon(tmp_path, ray=ray, model={"name": "demo", "device": "cpu", "precision": "float32"})
    try:
        daemon.start()
        daemon.until(lambda: states(daemon) == ["ready"] * 2, "two workers")
        for n in range(4):
            make_song(daemon.inbox / f"{n}.wav", 1.0)
        assert [daemon.final(f"{n}.wav")["state"] for n in range(4)] == ["done"] * 4
        assert daemon.process is not None
        family = descendants(daemon.process.pid)
        os.kill(next(pid for pid, line in family.items() if line.split(" ")[0].endswith("/raylet")), signal.SIGKILL)
        make_song(daemon.inbox / "4.wav", 1.0)
        assert daemon.final("4.wav")["state"] == "done", "it begins its cluster anew"
        family |= descendants(daemon.process.pid)
        assert [line for line in family.values() if "gcs_server" in line], "its cluster is there"
        found = listening(family)
        assert found and found <= LOOPBACK
        assert daemon.stop() == 0
        daemon.process = None
        daemon.until(lambda: not [pid for pid in family if is_running(pid)], "nothing of it is left")
    finally:
        daemon.end()


def is_running(pid: int) -> bool:
    """Whether the process is there, and not only waits for its parent to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.daily
def test_nothing_is_left_of_a_daemon(two: Cluster, tmp_path: Path) -> None:
    """However it ends: the child that speaks to the cluster goes with it, and the actors with that."""
    daemon = daemon_on(tmp_path, two)
    try:
        start(daemon, two)
        daemon.end()
        actors = [node.pids for node in two.nodes]
        daemon.process = None
        daemon.until(lambda: not any(pids("ray::Actor") for pids in actors), "no actor is left")
        daemon.until(lambda: not any(pids("demixd.worker ") for pids in actors), "nor a worker")
    finally:
        daemon.end()


FEW = pytest.param(12, 10, 4.0, marks=pytest.mark.daily, id="few")
MANY = pytest.param(200, 60, 8.0, marks=pytest.mark.slow, id="many")


@pytest.mark.parametrize(("songs", "strikes", "pause_s"), [FEW, MANY])
def test_whatever_is_killed_each_song_is_done_once(
    songs: int, strikes: int, pause_s: float, tmp_path: Path, day: int, record_property: Any
) -> None:
    """Actors, workers and nodes are killed and held at random: each song is done, and there is one result of each."""
    rng, kills = random.Random(day), 0
    with cluster(tmp_path, nodes=2) as there:
        daemon = daemon_on(tmp_path / "daemon", there, limits={"max_attempts": 1000})
        try:
            start(daemon, there)
            names = [f"{n}.wav" for n in range(songs)]
            for name in names:
                make_song(daemon.inbox / name, rng.uniform(0.5, 3.0))
            limit = time.monotonic() + PATIENCE_S + 10 * songs
            while any(daemon.song(name).get("state") not in ("done", "failed") for name in names):
                assert time.monotonic() < limit, [daemon.song(name).get("state") for name in names]
                time.sleep(rng.uniform(0.5, pause_s))
                kills += strike(rng, there) if kills < strikes else 0
            assert [daemon.final(name)["state"] for name in names] == ["done"] * songs
            daemon.quiet()
            assert daemon.results() == {
                f"{n}{rest}" for n in range(songs) for rest in ("", *(f"/{each}" for each in FILES))
            }
            assert daemon.stop() == 0
        finally:
            daemon.end()
    record_property("songs in a cluster", songs)
    record_property("kills in a cluster", kills)


def strike(rng: random.Random, there: Cluster) -> int:
    """Do one harm; how many that were."""
    node = rng.choice(there.nodes)
    match rng.choice(("actor", "worker", "hold", "node", "raylet", "nothing")):
        case "actor":
            node.signal(signal.SIGKILL, of="ray::Actor")
        case "worker":
            node.signal(signal.SIGKILL, of="demixd.worker ")
        case "hold":
            node.signal(signal.SIGSTOP, of="ray::Actor")
        case "node":
            there.remove(node)
            there.add()
        case "raylet":
            os.kill(node.raylet, signal.SIGKILL)
            there.remove(node)
            there.add()
        case "nothing":
            return 0
    return 1
