"""What `demixd check` finds about the machine, of a configuration alone; and about the files of the state folder."""

import contextlib
import os
import platform
import socket
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from demixd.cli.check import cluster, folders, machine
from demixd.cli.check.finding import Level
from demixd.cli.check.findings import findings
from demixd.config import Config
from demixd.config.sections import Limits, Model, Paths
from demixd.engine import host
from demixd.engine.models.configured import checked
from demixd.errors import ConfigError
from demixd.protocol.devices import Ray
from demixd.spool import processes


def test_the_memory_for_sound() -> None:
    """It is told in bytes and in minutes of a song with two stems, with the key, and with the folder for what is beyond it."""
    found = machine.memory(Config(limits=Limits(memory_bytes=512 << 20)), Path("/there/work"))
    told = "512 MiB for decoded sound, 8 minutes with two stems ([limits] memory_bytes); what is beyond it goes to /there/work"
    assert (found.level, found.subject, found.text) == (Level.OK, "memory", told)


def test_more_memory_for_sound_than_there_is() -> None:
    """It is told, with the remedy: the machine would end processes, or refuse the memory."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + 1
    found = machine.memory(Config(limits=Limits(memory_bytes=size)), Path("/there/work"))
    assert found.level is Level.NOTE
    assert found.text.endswith("MiB of memory: set it lower, or auto")


def test_the_memory_that_auto_takes() -> None:
    """What it would be now: 256 MiB to 8 GiB, however much is free."""
    found = machine.memory(Config(), Path("/there/work"))
    assert 256 <= int(found.text.split()[0]) <= 8192


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays another user")
@pytest.mark.parametrize("name", ["lock", "ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm"])
def test_a_file_that_another_user_has_made_in_the_state_folder(name: str) -> None:
    """A daemon that root has tried has left it, and the one of this user could not start."""
    with tempfile.TemporaryDirectory() as above:
        state = Path(above) / "state"
        state.mkdir()
        (state / name).touch(0o600)
        assert folders.state(state).level is Level.OK
        for folder in (state.parent, state):
            os.chown(folder, 12345, -1)
        os.seteuid(12345)
        try:
            found = folders.state(state)
        finally:
            os.seteuid(0)
    assert (found.level, found.text.partition(" cannot be written")[0]) == (Level.FAIL, str(state / name))


def test_little_room_is_told_in_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with some megabytes left has not 0.0 GB."""
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000_000))
    found = folders.space(tmp_path, 100 << 20, "songs may wait")
    assert found.text == f"4 MB free at {tmp_path}: songs may wait; make room for 105 MB"


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an NVIDIA GPU, and with all that compiles a model for it."""
    (tmp_path / "nvidia0").touch()
    (tmp_path / "Python.h").touch()
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gcc").touch(mode=0o755)
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.11.0")
    monkeypatch.setattr(sysconfig, "get_paths", lambda _: {"include": str(tmp_path)})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("CC", raising=False)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """A GPU that the configuration names and the machine does not show is a failure that says what to do."""
    found = machine.device("cuda:1")
    assert (found.level, found.text.rpartition(": ")[2]) == (Level.FAIL, "set auto, or a number below that")
    (tmp_path / "nvidia0").unlink()
    found = machine.device("cuda")
    assert (found.level, found.text.rpartition(": ")[2]) == (Level.FAIL, "set auto, or install NVIDIA's driver")


@pytest.mark.parametrize(
    ("device", "ray"),
    [("cpu", Ray(address="local", workers=2)), (("cpu", "cpu"), Ray()), (("auto", "auto"), Ray())],
    ids=["a cluster of this machine", "cpu", "auto"],
)
def test_workers_that_share_the_processor(
    device: str | tuple[str, ...], ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted; more of them than cores are a note that says how many to set."""
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    paths = Paths(spool=str(tmp_path / "spool"), state=str(tmp_path / "state"))
    config = Config(paths=paths, model=Model(name="demo", device=device), ray=ray)

    def found() -> tuple[Level, str]:
        (one,) = (each for each in findings(config, None) if each.subject == "device")
        return one.level, one.text

    monkeypatch.setattr(host, "threads", lambda: 2)
    level, text = found()
    assert level is Level.OK and text.startswith("2 workers on the CPU, 2 cores")
    monkeypatch.setattr(host, "threads", lambda: 1)
    level, text = found()
    assert level is Level.NOTE and text.startswith("2 workers on the CPU, 1 core")
    assert text.endswith("more workers than cores make nothing faster, and each takes a model's memory: set 1 at most")


@pytest.mark.usefixtures("gpu")
def test_what_a_gpu_lacks_to_be_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Triton, a C compiler or Python's headers the model is not compiled: a note says what to install."""
    assert machine.device("auto").level is Level.OK
    (tmp_path / "tools" / "gcc").unlink()
    found = machine.device("auto")
    assert found.level is Level.NOTE
    assert found.text.endswith(
        "; the model is not compiled for it, which would make it faster: install a C compiler (`gcc`)"
    )
    (tmp_path / "Python.h").unlink()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert [each.partition(" (")[0] for each in host.lacks_for_compiling()] == [
        "Triton",
        "a C compiler",
        "Python's headers",
    ]


def told(config: Config, file: Path | None = None) -> list[tuple[Level, str]]:
    """What `check` finds about the cluster of a configuration."""
    return [
        (found.level, found.text) for _, check in cluster.checks(config, file) if (found := check()).subject == "ray"
    ]


AUTO = Config(ray=Ray(address="auto"))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with Ray and a node of a cluster, and a user without a token."""
    (tmp_path / "proc" / "12").mkdir(parents=True)
    (tmp_path / "proc" / "12" / "comm").write_text("raylet\n")
    monkeypatch.setattr(processes, "PROC", tmp_path / "proc")
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.60.0")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_cluster_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is refused, and `check` fails, with the commands that install it."""
    monkeypatch.setattr(host, "version_of", lambda _: "")
    with pytest.raises(
        ConfigError, match=r"where.toml: .* Ray is not installed: .*requirements-ray.lock.*systemd/install --ray"
    ):
        checked(AUTO, "where.toml")
    (level, text), *_ = told(AUTO)
    assert level is Level.FAIL and "Ray is not installed" in text
    assert checked(Config(), "where.toml") == Config()


@pytest.mark.usefixtures("ray")
def test_which_cluster_with_how_many_workers() -> None:
    """It is told, with the versions that all of its machines need."""
    assert told(AUTO)[0] == (
        Level.OK,
        "a worker for each GPU of the cluster that this machine is in; each of its machines needs Ray 2.60.0 and Python "
        f"{platform.python_version()}",
    )
    local = Config(ray=Ray(address="local", workers=3), model=Model(device="cpu"))
    assert told(local) == [
        (
            Level.OK,
            f"workers (3) in a cluster of this machine alone, with Ray 2.60.0 and Python {platform.python_version()}",
        )
    ]


@pytest.mark.usefixtures("ray")
def test_a_cluster_of_this_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker would ever be placed: a failure that says what to set."""
    monkeypatch.setattr(host, "has_nvidia", lambda: False)
    ((level, text),) = told(Config(ray=Ray(address="local")))
    assert level is Level.FAIL and text.endswith('set [model] device = "cpu", and [ray] workers to a number')


SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

ANSWERS = {
    "head": (SETTINGS + b"more", Level.OK, "answers, as the head of a cluster does"),
    "web": (b"HTTP/1.0 400 Bad request\r\n", Level.NOTE, "and it does not answer as the head of a cluster: give the "),
    "silent": (b"", Level.NOTE, "and it does not answer as the head of a cluster: give the "),
}


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", ANSWERS)
def test_whether_the_head_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of Ray's begins with SETTINGS of HTTP/2; whatever else listens there is a note, also where it says nothing."""
    answer, level, words = ANSWERS[name]
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as others:

        def other_side() -> bytes:
            line, _ = server.accept()
            with line:
                asked = line.recv(100)
                line.sendall(answer)
                with contextlib.suppress(ConnectionResetError):
                    line.recv(1)  # until check has gone
                return asked

        asked = others.submit(other_side)
        found = told(Config(ray=Ray(address=f"127.0.0.1:{server.getsockname()[1]}")))[1]
        assert asked.result() == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
    assert found[0] is level and words in found[1]


@pytest.mark.usefixtures("ray")
def test_a_head_that_is_away() -> None:
    """It is a note: songs wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"127.0.0.1:{server.getsockname()[1]}"
    away = told(Config(ray=Ray(address=there)))[1]
    assert away == (Level.NOTE, f"{there} does not answer now (Connection refused): songs wait until it does")


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(("address", "where"), [("auto", "HOST:PORT"), ("nas.invalid:6379", "nas.invalid:6379")])
def test_whether_a_node_runs_here(address: str, where: str, tmp_path: Path) -> None:
    """The daemon gets into a cluster by a node on its own machine: without one, a note has the command that starts it."""
    config = Config(ray=Ray(address=address))
    assert (Level.OK, "a node of a cluster runs on this machine; whether it is this one's, the daemon says") in told(
        config
    )
    (tmp_path / "proc" / "12" / "comm").write_text("ray\n")
    (missing,) = (each for each in told(config) if each[1].startswith("no node of a cluster runs on this machine"))
    assert missing[0] is Level.NOTE and f"`ray start --address={where} --num-cpus=0" in missing[1]


@pytest.mark.usefixtures("ray")
def test_the_token_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing or empty one is a failure, with its place and the remedy, unless the environment says that none is asked for."""
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    for _ in ("missing", "empty"):
        level, text = told(AUTO)[-1]
        assert level is Level.FAIL and text.startswith(f"{file} has no token")
        assert "ray get-auth-token --generate" in text
        file.touch()
    file.write_text("secret\n")
    right = "whether it is the right one, only the cluster knows"
    assert told(AUTO)[-1] == (Level.OK, f"the token is in {file}; {right}")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert told(AUTO)[-1] == (Level.OK, f"the token is that of $RAY_AUTH_TOKEN; {right}")
    monkeypatch.setenv("RAY_AUTH_MODE", "Disabled")
    assert told(AUTO)[-1][0] is Level.NOTE


@pytest.mark.usefixtures("ray")
def test_a_path_map_that_maps_nothing(tmp_path: Path) -> None:
    """A first path that is not there, or that none of the daemon's folders begins with, is a note that says what it has to be."""
    spool = tmp_path / "music"
    (tmp_path / "link").symlink_to("music")
    paths = Paths(spool=str(spool), models=str(tmp_path / "models"), state=str(tmp_path / "state"))

    def found(here: Path) -> tuple[Level, str]:
        return told(Config(paths=paths, ray=Ray(address="auto", path_map=((str(here), "/there"),))))[-1]

    for missing in (spool, tmp_path / "musik"):
        assert found(missing)[0] is Level.NOTE and f"{missing}, and there is no such folder here" in found(missing)[1]
    spool.mkdir()
    assert found(spool) == (Level.OK, f"[ray] path_map has {spool}, with {spool}/inbox, {spool}/outbox")
    # The daemon translates the paths as the configuration has them, not as they are resolved.
    for other in (tmp_path / "link", tmp_path / "proc"):
        level, text = found(other)
        assert level is Level.NOTE and text.startswith(f"[ray] path_map has {other}, and none of the daemon's folders")
        assert text.endswith(f"one of {spool}/inbox, {spool}/outbox, {paths.models}, or a folder above")


@pytest.mark.usefixtures("ray")
def test_a_service_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit of a configuration of the service's, as systemd has it, does not let Ray through: that fails, with the command."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\n[ "$5" = demixd@loud.service ] && echo yes || echo no\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    closed = told(AUTO, Path("/etc/demixd/demixd@loud.toml"))[-1]
    assert closed[0] is Level.FAIL and closed[1].startswith("demixd@loud.service may not reach the network")
    assert closed[1].endswith("run `sudo systemd/install --ray`")
    for file in ("/etc/demixd/demixd.toml", "/home/demixd@loud.toml"):
        assert Level.FAIL not in [level for level, _ in told(AUTO, Path(file))]


@pytest.mark.usefixtures("ray")
def test_what_only_the_machines_of_a_cluster_need(tmp_path: Path) -> None:
    """Neither a model nor a GPU is asked of this machine: also one that this machine does not know may be there."""
    paths = Paths(spool=str(tmp_path / "spool"), state=str(tmp_path / "state"))
    config = Config(paths=paths, model=Model(name="mine"), ray=Ray(address="auto"))
    assert checked(config, "where.toml") == config
    found = [each for each in findings(config, None) if each.subject in ("device", "models", "model")]
    assert [(each.level, each.subject) for each in found] == [(Level.OK, "models")]
