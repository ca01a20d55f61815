"""The service on a machine of its own, under its own systemd: installed, used, broken and taken away as people do it.

One machine for all of it; every test leaves the service active and idle.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons import ROOT, make_song
from hub import Hub
from machine import PACKAGES, Machine, booted, needs_systemd
from members import REPO, SIG, SMALL, packed, random_module
from pages import TUNING, blocks

pytestmark = needs_systemd

SPOOL = "/srv/demixd"
UNIT = "demixd.service"
PAGE = "demixd-web.service"
PROJECT = "/usr/src/project"
MODELS = "/opt/demixd/models"
ANNA = "anna"
"""A user who is in the share's group, and not the service's."""


class Box:
    """A machine with demixd on it, and what its users do there."""

    def __init__(self, machine: Machine, songs: Path) -> None:
        self.machine, self.songs = machine, songs

    def install(self, *words: str) -> str:
        return self.machine.run(f"{PROJECT}/systemd/install", *words).stdout

    def make(self, name: str, seconds: float) -> Path:
        """A song in anna's home."""
        song = make_song(self.songs / name, seconds)
        there = self.machine.path(f"/home/{ANNA}/{name}")
        shutil.copyfile(song, there)
        there.chmod(0o644)
        return there

    def drop(self, name: str, seconds: float = 2.0, spool: str = SPOOL) -> None:
        self.make(name, seconds)
        self.machine.run("runuser", "-u", ANNA, "--", "cp", f"/home/{ANNA}/{name}", f"{spool}/inbox/{name}")

    def read(self, path: str, spool: str = SPOOL) -> dict[str, Any]:
        try:
            document: dict[str, Any] = json.loads(self.machine.path(f"{spool}/status/{path}").read_bytes())
        except FileNotFoundError:
            return {}
        return document

    def song(self, name: str, spool: str = SPOOL) -> dict[str, Any]:
        return self.read(f"{name}.json", spool)

    def state(self, name: str, *states: str, spool: str = SPOOL) -> dict[str, Any]:
        found: dict[str, Any] = self.machine.until(
            lambda: (song := self.song(name, spool)).get("state") in states and song, f"{name} is {states}"
        )
        return found

    def done(self, name: str, spool: str = SPOOL) -> dict[str, Any]:
        """Its final sidecar: it is done, once."""
        found = self.state(name, "done", "failed", "cancelled", spool=spool)
        assert found["state"] == "done", found
        results = [json.loads(path.read_bytes()) for path in self.machine.path(f"{spool}/outbox").glob("*/stems.json")]
        assert [each["song"] for each in results].count(name) == 1
        return found

    def separating(self, name: str) -> None:
        """Wait until it is in the middle of being separated."""
        self.machine.until(
            lambda: (song := self.song(name)).get("step") == "separate" and song["progress"]["fraction"] > 0.1,
            f"{name} is being separated",
        )

    def waits_for(self, reason: str, name: str, spool: str = SPOOL) -> dict[str, Any]:
        found: dict[str, Any] = self.machine.until(
            lambda: (song := self.song(name, spool)).get("reason") == reason and song, f"{name} waits: {reason}"
        )
        return found

    @property
    def pid(self) -> int:
        return int(self.machine.show(UNIT, "MainPID")["MainPID"])

    @property
    def worker(self) -> int:
        pid: int = self.read("_daemon.json")["worker"]["pid"]
        return pid

    def anonymous_bytes(self, pid: int) -> int:
        """The memory of a process that no file is behind, so that it cannot be given up."""
        lines = self.machine.path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) << 10

    def kill(self, signal: str, pid: int) -> None:
        self.machine.run("kill", f"-{signal}", str(pid))

    def is_warm(self) -> bool:
        told = self.read("_daemon.json")
        return (
            told.get("pid") == self.pid
            and told["state"] == "ready"
            and told["worker"]["state"] == "ready"
            and not told["queue"]
            and not told["running"]
        )

    def warm(self) -> None:
        self.machine.until(lambda: self.machine.is_active(UNIT) and self.is_warm(), "it is active, warm and idle")

    @contextlib.contextmanager
    def setting(self, name: str, text: str) -> Iterator[None]:
        """A drop-in of the administrator's."""
        file = f"/etc/systemd/system/{UNIT}.d/{name}.conf"
        self.machine.write(file, f"[Service]\n{text}\n")
        self._take_over()
        try:
            yield
        finally:
            self.machine.path(file).unlink()
            self._take_over()

    def _take_over(self) -> None:
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", UNIT)
        self.warm()


def configure(machine: Machine, text: str = "") -> None:
    machine.write(
        "/etc/demixd/demixd.toml", f'[model]\nname = "demo"\ndevice = "cpu"\n[status]\nheartbeat_s = 0.5\n{text}'
    )


def give_project(machine: Machine) -> None:
    """The project as it lies here, without what was made in it."""
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "tests")
    shutil.copytree(ROOT, machine.path(PROJECT), ignore=ignored, symlinks=True)


INSTALLED = """
set -e
cd "$PROJECT/config"
environment=$({ cat requirements{,-systemd}.lock; python3 --version; } | sha256sum | cut -c 1-12)
venv=/opt/demixd/.venv-$environment
python3 -m venv --without-pip "$venv"
for name in requirements requirements-systemd; do sha256sum <$name.lock >"$venv/$name.lock.sha256"; done
cd "$venv"/lib/python*/site-packages
echo "$PACKAGES" >tests.pth
"""
"""What pip installs, a minute's work, is there already."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with booted(tmp_path_factory.mktemp("machine")) as machine:
        give_project(machine)
        machine.run("bash", "-c", INSTALLED, PROJECT=PROJECT, PACKAGES=PACKAGES)
        configure(machine)
        box = Box(machine, tmp_path_factory.mktemp("songs"))
        box.first = box.install()  # type: ignore[attr-defined]
        machine.run("useradd", "--create-home", "--groups", "demixd", ANNA)
        machine.path(f"/home/{ANNA}").chmod(0o755)
        yield box


@pytest.fixture(autouse=True)
def idle(box: Box) -> Iterator[None]:
    yield
    if box.machine.path("/opt/demixd").exists():
        box.warm()


# ---- installed


def test_the_installed_service(box: Box) -> None:
    """Active, READY once it is warm, and the installer says what it did and ends with the status."""
    said: str = box.first  # type: ignore[attr-defined]
    assert "/etc/demixd/demixd.toml is there and stays as it is" in said
    assert "Still to do" not in said
    assert "Active: active (running)" in said.partition("Songs go into")[2]
    assert box.machine.is_active(UNIT)
    entries = box.machine.journal()
    warm = next(each for each in entries if "is warm on" in each["MESSAGE"] and each["SYSLOG_IDENTIFIER"] == "demixd")
    started = next(each for each in entries if each.get("UNIT") == UNIT and each.get("JOB_RESULT") == "done")
    assert int(warm["__MONOTONIC_TIMESTAMP"]) < int(started["__MONOTONIC_TIMESTAMP"])
    assert box.machine.run("stat", "-c", "%U", f"/proc/{box.pid}").stdout.strip() == "demixd"


def test_words_are_completed(box: Box) -> None:
    """bash completes commands and options; zsh and fish find what they need where they look for it."""
    script = """
        source /usr/local/share/bash-completion/completions/demixd
        COMP_WORDS=(demixd submit --prof) COMP_CWORD=2
        _demixd_completion demixd
        echo "${COMPREPLY[@]}"
        """
    assert box.machine.run("bash", "-c", script).stdout.split() == ["--profile"]
    shares = box.machine.path("/usr/local/share")
    assert (shares / "zsh/site-functions/_demixd").read_text().startswith("#compdef demixd\n")
    assert "fish_complete" in (shares / "fish/vendor_completions.d/demixd.fish").read_text()


def test_man_pages(box: Box) -> None:
    """There is a page for each command; a second run writes none, and removes that of a command that is gone."""
    folder = box.machine.path("/usr/local/share/man/man1")
    pages = {page.name: page for page in folder.glob("demixd*")}
    assert {"demixd.1", "demixd-status.1", "demixd-models-fetch.1"} <= {*pages}
    assert {page.stat().st_mode & 0o777 for page in pages.values()} == {0o644}
    assert ".SH OPTIONS\n" in pages["demixd-status.1"].read_text()
    before = {name: page.stat().st_mtime_ns for name, page in pages.items()}
    (folder / "demixd-gone.1").touch()
    (folder / "other.1").touch()
    assert "man1/demixd.1" in box.install()
    assert {page.name: page.stat().st_mtime_ns for page in folder.glob("demixd*")} == before
    assert "man1/demixd.1" not in box.install()
    assert (folder / "other.1").exists()


@pytest.mark.daily
def test_on_a_machine_that_has_nothing(tmp_path: Path) -> None:
    """The installer brings the packages too, as the lock files have them."""
    with booted(tmp_path) as machine:
        give_project(machine)
        configure(machine)
        box = Box(machine, tmp_path)
        assert "Still to do" not in box.install()
        box.warm()
        venv = machine.run("readlink", "-f", "/opt/demixd/.venv").stdout.strip()
        for name in ("requirements", "requirements-systemd"):
            assert machine.path(f"{venv}/{name}.lock.sha256").is_file()
        assert not machine.path(f"{venv}/tmp").exists()
        torch = "import sys, torch; print(torch.__cached__, file=sys.stderr)"
        compiled = machine.run(f"{venv}/bin/python", "-I", "-c", torch).stderr.strip()
        assert machine.path(compiled).is_file(), "the service cannot write there"


@pytest.mark.daily
def test_a_song_of_another_user(box: Box) -> None:
    """Somebody of the share's group drops it, and can read and delete what comes out."""
    box.drop("anna.flac")
    box.done("anna.flac")
    box.machine.run(
        "runuser", "-u", ANNA, "--", "cat", f"{SPOOL}/outbox/anna/vocals.flac", f"{SPOOL}/status/anna.flac.json"
    )
    box.machine.run("runuser", "-u", ANNA, "--", "rm", "-r", f"{SPOOL}/outbox/anna")


@pytest.mark.daily
def test_it_says_what_it_is_doing(box: Box) -> None:
    """`systemctl status` shows the song, its percent and the queue."""
    box.drop("one.flac", 30.0)
    box.drop("two.flac")
    box.separating("one.flac")

    def told() -> bool:
        text = box.machine.show(UNIT, "StatusText")["StatusText"]
        return text.startswith("one.flac: ") and "%" in text and text.endswith("; 1 waiting")

    box.machine.until(told, "STATUS")
    box.done("one.flac")
    box.done("two.flac")


@pytest.mark.daily
def test_installing_again_changes_nothing(box: Box) -> None:
    """The same version once more: the daemon goes on, and a changed configuration is not touched."""
    before, text = box.pid, box.machine.path("/etc/demixd/demixd.toml").read_text()
    assert "Active: active (running)" in box.install()
    assert box.pid == before
    assert box.machine.path("/etc/demixd/demixd.toml").read_text() == text


@pytest.mark.daily
def test_an_upgrade_in_the_middle_of_a_song(box: Box) -> None:
    """The running song waits for the new version, and is done once."""
    before = box.pid
    changed = box.machine.path(f"{PROJECT}/README.md")
    changed.write_text(changed.read_text() + "\nA line that is new.\n")
    box.drop("upgraded.flac", 60.0)
    box.separating("upgraded.flac")
    said = box.install()
    assert f"{UNIT}: stopped; a running song waits\n" in said and f"{UNIT}: started again\n" in said
    assert box.pid != before
    assert "A line that is new" in box.machine.path("/opt/demixd/README.md").read_text()
    assert box.done("upgraded.flac")["attempt"] == 1


@pytest.mark.daily
def test_a_dry_run_does_nothing(box: Box) -> None:
    said = box.install("--dry-run", "--instance", "never")
    assert "/etc/demixd/demixd@never.toml" in said
    assert not box.machine.path("/etc/demixd/demixd@never.toml").exists()
    assert "stopped and disabled" in box.install("--uninstall", "--dry-run")
    assert box.machine.is_active(UNIT)


# ---- what goes wrong


@pytest.mark.daily
def test_a_model_that_is_not_there(box: Box) -> None:
    """Active, and STATUS says what is missing; songs wait until the installer has fetched it, from a hub of our own."""
    text = box.machine.path("/etc/demixd/demixd.toml").read_text()
    box.machine.write("/etc/demixd/demixd.toml", text.replace('"demo"', '"htdemucs"'))
    box.machine.run("systemctl", "restart", UNIT)
    assert box.machine.is_active(UNIT)
    assert "htdemucs" in box.machine.show(UNIT, "StatusText")["StatusText"]
    box.drop("waits.flac")
    assert "`sudo demixd models fetch htdemucs`" in box.waits_for("model-missing", "waits.flac")["message"]
    said = box.install()
    assert "Still to do:" in said and "`sudo demixd models fetch htdemucs`" in said
    weights = packed(random_module(0), SMALL)
    files = {(REPO, "htdemucs.yaml"): f"models: ['{SIG}']\n".encode(), (REPO, f"{SIG}.safetensors"): weights}
    with Hub(files=files) as hub:
        words = [f"{PROJECT}/systemd/install", "--fetch", "htdemucs"]
        said = box.machine.run(*words, HF_ENDPOINT=hub.endpoint, no_proxy="127.0.0.1", NO_PROXY="127.0.0.1").stdout
    assert "Still to do" not in said
    assert box.done("waits.flac")["engine"]["model"] == "htdemucs"
    owners = box.machine.run("find", MODELS, "-printf", "%u %m\\n").stdout.split("\n")
    assert set(owners) == {"root 755", "root 644", ""}
    configure(box.machine)
    box.machine.run("systemctl", "reload", UNIT)
    box.machine.until(lambda: box.read("_daemon.json")["worker"]["model"] == "demo", "the demo model is warm")


@pytest.mark.daily
def test_the_models_of_a_former_version(box: Box) -> None:
    """An upgrade takes them out of the service's folder, follows no link there, and lets one be that a configuration names."""
    machine, old = box.machine, "/var/lib/demixd/models"
    weights = packed(random_module(1), SMALL)
    machine.run("install", "-d", "-o", "demixd", "-g", "demixd", old, f"{old}/recorded")
    machine.path(f"{old}/abc.safetensors").write_bytes(weights)
    machine.path(f"{old}/old.yaml").write_text("models: [abc]")
    machine.run("ln", "-s", "/etc/shadow", f"{old}/evil.yaml")
    machine.write("/etc/demixd/demixd@other.toml", f'[paths]\nspool = "/srv/other"\nmodels = "{old}"\n')
    said = box.install()
    assert f"{MODELS}/old.yaml, from {old}" in said
    assert f'/etc/demixd/demixd@other.toml names models = "{old}"' in said.partition("Still to do:")[2]
    assert machine.path(f"{MODELS}/abc.safetensors").read_bytes() == weights
    assert not machine.path(f"{MODELS}/evil.yaml").exists()
    machine.path("/etc/demixd/demixd@other.toml").unlink()
    assert "Still to do:" not in box.install()
    assert [path.name for path in machine.path(old).iterdir()] == ["evil.yaml"], (
        "what is no model's is nobody's business"
    )
    assert machine.path("/var/lib/demixd/recorded").is_dir()
    machine.run("rm", "-r", old)
    assert "old" in machine.run("demixd", "models", "list").stdout


@pytest.mark.daily
def test_a_configuration_that_is_wrong_from_the_start(box: Box) -> None:
    """It fails with exit status 78, says why, and is not started over and over; mended, it starts."""
    configure(box.machine, '[defaults]\nfromat = "wav"\n')
    assert box.machine.run("systemctl", "restart", UNIT, check=False).returncode != 0
    facts = box.machine.show(UNIT, "ActiveState", "ExecMainStatus", "NRestarts")
    assert facts == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    assert any("fromat" in each["MESSAGE"] for each in box.machine.journal("-t", "demixd"))
    configure(box.machine)
    box.machine.run("systemctl", "start", UNIT)
    box.warm()


@pytest.mark.daily
def test_a_hung_worker(box: Box) -> None:
    """It is killed, and the song is tried again."""
    box.drop("hung.flac", 60.0)
    box.separating("hung.flac")
    pid, hung = box.pid, box.worker
    box.kill("STOP", hung)
    assert box.done("hung.flac")["attempt"] == 2
    assert box.pid == pid and box.worker != hung
    assert any(
        each.get("MESSAGE_ID") == "7d46f19e8ba24c03b5f2e81d6a9c0754" for each in box.machine.journal("-t", "demixd")
    )


@pytest.mark.daily
def test_a_hung_supervisor(box: Box) -> None:
    """systemd kills it when WatchdogSec is over; the song is done once, after the restart."""
    with box.setting("60-watchdog", "WatchdogSec=3"):
        box.drop("stopped.flac", 60.0)
        box.separating("stopped.flac")
        hung = box.pid
        box.kill("STOP", hung)
        box.machine.until(lambda: box.pid not in (0, hung), "another process")
        assert box.done("stopped.flac")["attempt"] == 2
        box.warm()


@pytest.mark.daily
@pytest.mark.parametrize("who", ["supervisor", "worker"])
def test_killed(box: Box, who: str) -> None:
    """Either is started again, and the song is done once."""
    name = f"killed-{who}.flac"
    box.drop(name, 60.0)
    box.separating(name)
    pid, worker = box.pid, box.worker
    box.kill("KILL", pid if who == "supervisor" else worker)
    assert box.done(name)["attempt"] == 2
    assert (box.pid != pid) is (who == "supervisor")
    assert box.worker != worker


@pytest.mark.daily
def test_a_worker_beyond_its_memory_dies_alone(box: Box) -> None:
    """MemoryMax: the service stays, and the song is done when there is room again."""
    box.machine.run("systemctl", "restart", UNIT)  # a worker that has had no song yet has to grow for the first
    box.warm()
    pid = box.pid
    limit = sum(box.anonymous_bytes(each) for each in (pid, box.worker)) + (16 << 20)
    box.machine.run("systemctl", "set-property", "--runtime", UNIT, f"MemoryMax={limit}")
    worker = box.worker
    box.drop("greedy.flac", 30.0)
    box.machine.until(lambda: not box.machine.path(f"/proc/{worker}").exists(), "the worker is killed")
    box.machine.run("systemctl", "set-property", "--runtime", UNIT, "MemoryMax=infinity")
    box.done("greedy.flac")
    assert box.pid == pid


@pytest.mark.daily
def test_stopping_in_the_middle_of_a_song(box: Box) -> None:
    """Within 5 s, and the song is done after the next start, without an attempt charged."""
    box.drop("later.flac", 60.0)
    box.separating("later.flac")
    began = time.monotonic()
    box.machine.run("systemctl", "stop", UNIT)
    assert time.monotonic() - began < 5
    assert box.song("later.flac")["state"] == "waiting"
    box.machine.run("systemctl", "start", UNIT)
    assert box.done("later.flac")["attempt"] == 1


@pytest.mark.daily
def test_reloading(box: Box) -> None:
    """A good configuration is gone by from the next song on; a bad one is refused, and the journal says why."""
    pid, worker = box.pid, box.worker
    configure(box.machine, '[defaults]\nformat = "mp3"\n')
    box.machine.run("systemctl", "reload", UNIT)
    box.drop("reloaded.flac")
    assert box.done("reloaded.flac")["options"]["format"] == "mp3"
    configure(box.machine, '[defaults]\nfromat = "wav"\n')
    done = box.machine.run("systemctl", "reload", UNIT, check=False)
    assert done.returncode != 0
    said = box.machine.until(
        lambda: [each for each in box.machine.journal("-u", UNIT) if "fromat" in each["MESSAGE"]],
        "why",
    )
    assert "there is no such key; did you mean format?" in said[0]["MESSAGE"]
    box.machine.until(lambda: box.machine.is_active(UNIT), "it has reloaded")
    box.drop("unchanged.flac")
    assert box.done("unchanged.flac")["options"]["format"] == "mp3"
    configure(box.machine)
    box.machine.run("systemctl", "reload", UNIT)
    box.warm()
    assert (box.pid, box.worker) == (pid, worker)


@pytest.mark.daily
def test_a_second_spool_whose_mount_comes_late(box: Box) -> None:
    """An instance with a configuration of its own waits for its mount; on a full disk songs wait."""
    spool = "/srv/karaoke"
    machine = box.machine
    machine.write(
        "/etc/systemd/system/slow.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sleep 2\n"
    )
    machine.run("mkdir", "/var/disk")
    machine.run("mount", "-t", "tmpfs", "-o", "size=48m,mode=2775,gid=demixd", "disk", "/var/disk")
    machine.write(
        "/etc/systemd/system/srv-karaoke.mount",
        "[Unit]\nRequires=slow.service\nAfter=slow.service\n"
        f"[Mount]\nWhat=/var/disk\nWhere={spool}\nType=none\nOptions=bind\n",
    )
    machine.write(
        "/etc/demixd/demixd@karaoke.toml",
        f'[paths]\nspool = "{spool}"\nstate = "/var/lib/demixd@karaoke"\n[model]\nname = "demo"\ndevice = "cpu"\n',
    )
    box.install("--instance", "karaoke")
    assert machine.is_active("demixd@karaoke.service") and machine.is_active(UNIT)
    assert machine.run("findmnt", "-n", "-o", "FSTYPE", "--target", f"{spool}/inbox").stdout.strip() == "tmpfs"
    machine.run("systemctl", "stop", "demixd@karaoke.service", "srv-karaoke.mount", "slow.service")
    assert list(machine.path(spool).iterdir()) == [], "nothing was made where the share is not"
    machine.run("systemctl", "start", "demixd@karaoke.service")
    machine.run("dd", "if=/dev/zero", f"of={spool}/full", "bs=1M", "count=100", check=False)
    machine.run("truncate", "-s", "-3M", f"{spool}/full")
    box.drop("sung.flac", spool=spool)
    box.waits_for("no-space", "sung.flac", spool)
    machine.path(f"{spool}/full").unlink()
    box.done("sung.flac", spool)
    machine.run("systemctl", "stop", "demixd@karaoke.service")


@pytest.mark.daily
def test_without_cuda(box: Box) -> None:
    """`--cpu` makes an environment beside the one with CUDA, and upgrades keep to it."""
    machine, index = box.machine, "https://index.invalid/cpu"

    def installed(*words: str) -> str:
        box.install(*words)
        return machine.run("readlink", "/opt/demixd/.venv").stdout.strip()

    with_cuda = installed()
    machine.run(
        "bash",
        "-c",
        INSTALLED.replace("--version;", f"--version; echo {index};") + f"echo {index} >$venv/cpu-index",
        PROJECT=PROJECT,
        PACKAGES=PACKAGES,
    )
    without = installed("--cpu", index)
    assert installed() == without != with_cuda
    machine.path(f"/opt/demixd/{without}/cpu-index").unlink()
    machine.run("bash", "-c", INSTALLED, PROJECT=PROJECT, PACKAGES=PACKAGES)
    assert installed() == with_cuda


WITH_RAY = """
cat >"$venv/bin/ray" <<END
#!/opt/demixd/.venv/bin/python
from ray.scripts.scripts import main
main()
END
chmod 755 "$venv/bin/ray"
"""


@contextlib.contextmanager
def having_ray(box: Box) -> Iterator[None]:
    """What `--ray` has pip install is there already; afterwards the service is as it was."""
    machine, extra = box.machine, INSTALLED.replace(",-systemd}", ",-systemd,-ray}") + WITH_RAY
    extra = extra.replace("requirements-systemd;", "requirements-systemd requirements-ray;")
    machine.run("bash", "-c", extra, PROJECT=PROJECT, PACKAGES=PACKAGES)
    try:
        yield
    finally:
        machine.run("systemctl", "disable", "--now", "ray.service", check=False)
        machine.run("rm", "-rf", "/etc/demixd/ray.env", f"/etc/systemd/system/{UNIT}.d/60-ray.conf")
        machine.run("rm", "-rf", "/var/lib/demixd/.ray", "/opt/demixd/.venv/requirements-ray.lock.sha256")
        configure(machine)
        machine.run("bash", "-c", INSTALLED, PROJECT=PROJECT, PACKAGES=PACKAGES)
        box.install()


@pytest.mark.daily
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="no Ray: tests/run installs it")
def test_workers_in_a_cluster(box: Box) -> None:
    """After `--ray`, with the commands of the page, Ray separates the service's songs; an upgrade keeps to it."""
    machine = box.machine
    typed, cluster = (text for heading, text in blocks("sh", TUNING) if heading == "More than one machine")
    make, take = typed.replace("sudo -u demixd", "runuser -u demixd --").splitlines()[-2:]
    *head, _, start = cluster.replace("sudo ", "").replace("192.168.1.10", "127.0.0.1").splitlines()
    with socket.create_server(("127.0.0.1", 0)) as free:
        be_head = "\n".join(head).replace("6379", str(free.getsockname()[1])).replace("--num-cpus=0", "--num-cpus=1")
    with having_ray(box):
        assert f"/etc/systemd/system/{UNIT}.d/60-ray.conf" in box.install("--ray")
        token = machine.run("sh", "-c", make).stdout.split()[-1]
        machine.run("sh", "-c", f"rm /var/lib/demixd/.ray/auth_token; echo {token} | {take}")
        configure(machine, '[ray]\naddress = "auto"\nworkers = 1\n')
        machine.run("sh", "-ec", f"{be_head}\n{start}")
        machine.run("systemctl", "restart", UNIT)
        box.warm()
        box.drop("far.flac")
        box.done("far.flac")
        workers = [
            line for line in machine.run("ps", "-eo", "unit,args").stdout.splitlines() if "demixd.worker" in line
        ]
        assert "ray.service" in {line.split()[0] for line in workers}
        box.install()
        assert machine.show(UNIT, "PrivateNetwork", "PrivateTmp") == {"PrivateNetwork": "no", "PrivateTmp": "yes"}
        assert not machine.path("/tmp/ray").exists(), "every user of the machine could reach it"
        assert machine.run("systemd-analyze", "verify", UNIT, "ray.service").stderr == ""
        assert machine.path("/opt/demixd/.venv/requirements-ray.lock.sha256").exists()
    assert machine.show(UNIT, "PrivateNetwork") == {"PrivateNetwork": "yes"}


# ---- the page


@contextlib.contextmanager
def having_web(box: Box) -> Iterator[None]:
    """What `--web` has pip install is there already; afterwards the machine is as it was."""
    machine, extra = box.machine, INSTALLED.replace(",-systemd}", ",-systemd,-web}")
    extra = extra.replace("requirements-systemd;", "requirements-systemd requirements-web;")
    machine.run("bash", "-c", extra, PROJECT=PROJECT, PACKAGES=PACKAGES)
    try:
        yield
    finally:
        machine.run("systemctl", "disable", "--now", PAGE, check=False)
        machine.run("sh", "-c", f"rm -rf /etc/systemd/system/{PAGE}* /var/lib/demixd-web")
        machine.run("rm", "-f", "/opt/demixd/.venv/requirements-web.lock.sha256")
        machine.run("bash", "-c", INSTALLED, PROJECT=PROJECT, PACKAGES=PACKAGES)
        box.install()


@pytest.mark.daily
@pytest.mark.skipif(not importlib.util.find_spec("uvicorn"), reason="config/requirements-web.lock is not installed")
def test_the_page(box: Box) -> None:
    """`--web` makes it a service of its own, which takes songs in, tries them again, and writes nowhere else; it stays."""
    machine = box.machine
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with having_web(box):
        said = box.install("--web", address)
        assert (
            f"The page: http://{address}/. To let a browser in, open the link that `sudo demixd web --token` prints"
            in said
        )
        link = machine.run("demixd", "web", "--token").stdout.splitlines()[0]
        token = machine.path("/var/lib/demixd-web/token")
        assert link == f"http://{address}/?token={token.read_text().strip()}"
        assert machine.run("stat", "-c", "%U %a", "/var/lib/demixd-web/token").stdout == "demixd-web 600\n"
        cookie = ask(address, "GET", f"/?token={token.read_text().strip()}").headers["set-cookie"].partition(";")[0]
        song = make_song(box.songs / "page.flac", 2.0).read_bytes()
        assert ask(address, "PUT", "/inbox/Album/page.flac", song, cookie).status == 201
        box.state("Album/page.flac", "done")
        assert ask(address, "PUT", "/inbox/noise.mp3", b"no sound" * 99, cookie).status == 201
        failed = box.state("noise.mp3", "failed")["job_id"]
        machine.until(lambda: machine.path(f"{SPOOL}/failed/noise.mp3").exists(), "it is put away")
        assert ask(address, "POST", f"/songs/{failed}/again", b"{}", cookie).status == 200
        machine.until(lambda: box.song("noise.mp3").get("job_id") != failed, "it is tried again")
        box.state("noise.mp3", "failed")
        again = box.install()
        assert "60-listen" not in again and f"http://{address}/" in again and machine.is_active(PAGE)
        told = machine.show(PAGE, "User", "ReadWritePaths", "SupplementaryGroups", "CapabilityBoundingSet")
        assert told["User"] == "demixd-web" and told["CapabilityBoundingSet"] == ""
        assert told["SupplementaryGroups"] == "demixd"
        assert told["ReadWritePaths"] == f"-{SPOOL}/inbox -{SPOOL}/failed"
        assert machine.run("systemd-analyze", "verify", PAGE).stderr == ""
        machine.run("systemd-analyze", "security", "--threshold=25", "--no-pager", PAGE)
        said = box.install("--uninstall", "--dry-run")
        assert "the user demixd-web" in said and "/var/lib/demixd-web" in said
    assert not machine.is_active(PAGE)


def ask(address: str, method: str, path: str, body: bytes | None = None, cookie: str = "") -> http.client.HTTPResponse:
    """A request as a browser makes it, and its answer."""
    line = http.client.HTTPConnection(address, timeout=60)
    try:
        line.request(method, path, body, {"origin": f"http://{address}", "cookie": cookie})
        answer = line.getresponse()
        answer.read()
        return answer
    finally:
        line.close()


# ---- a service beside it


@pytest.fixture
def second(box: Box) -> Iterator[str]:
    """A second service's unit; its configuration is there, with a spool, and it is taken away afterwards."""
    machine = box.machine
    machine.run("install", "-d", "-m", "2775", "-g", "demixd", "/srv/second", "/srv/moved")
    machine.write(
        "/etc/demixd/demixd@second.toml",
        '[paths]\nspool = "/srv/second"\nstate = "/var/lib/demixd@second"\n[model]\nname = "demo"\ndevice = "cpu"\n',
    )
    yield "demixd@second.service"
    machine.run("systemctl", "disable", "--now", "demixd@second.service")
    machine.run("rm", "-rf", "/etc/demixd/demixd@second.toml", "/etc/systemd/system/demixd@second.service.d")
    machine.run("rm", "-rf", "/var/lib/demixd@second", "/srv/second", "/srv/moved")


def try_as_root(box: Box) -> None:
    """`demixd run`, as root, for a moment, before there is a service."""
    words = ("demixd", "--config", "/etc/demixd/demixd@second.toml", "run")
    box.machine.run("timeout", "--preserve-status", "10", *words)
    assert box.machine.path("/var/lib/demixd@second/ledger.sqlite3").exists()
    box.machine.run("rm", "-rf", "/srv/second")
    box.machine.run("install", "-d", "-m", "2775", "-g", "demixd", "/srv/second")


@pytest.mark.daily
def test_a_daemon_that_root_has_tried_before(box: Box, second: str) -> None:
    """The installer gives the service what it has left in the state folder, and follows no link there."""
    try_as_root(box)
    state = "/var/lib/demixd@second"
    box.machine.run("ln", "-s", "/etc/hostname", f"{state}/.cache")
    assert "Still to do" not in box.install("--instance", "second")
    assert box.machine.is_active(second)
    assert set(box.machine.run("find", state, "-printf", "%u\\n").stdout.split()) == {"demixd"}
    assert box.machine.run("stat", "-c", "%U", "/etc/hostname").stdout == "root\n"


@pytest.mark.daily
def test_a_service_that_does_not_start(box: Box, second: str) -> None:
    """It is in what is still to do, with the reason, and nobody is told where its songs go."""
    state = "/var/lib/demixd@second"
    box.machine.run("install", "-d", "-m", "700", "-o", "demixd", "-g", "demixd", state)
    box.machine.run("touch", f"{state}/lock")
    box.machine.run("chmod", "600", f"{state}/lock")
    done = box.machine.run(f"{PROJECT}/systemd/install", "--instance", "second", check=False)
    todo = done.stdout.partition("Still to do:")[2]
    assert done.returncode == 1 and "Songs go into" not in done.stdout
    assert f"{second} has not started, and journalctl -u {second} says why" in todo
    assert f"{state}/lock cannot be written by this user: change its owner or mode" in todo
    box.machine.run("systemctl", "reset-failed", second)


@pytest.mark.daily
def test_only_what_has_changed_is_started_anew(box: Box, second: str) -> None:
    """Neither a new service nor the other folders of one stop another, and what was stopped is said to be started again."""
    before = box.pid
    assert "stopped" not in box.install("--instance", "second")
    file = box.machine.path("/etc/demixd/demixd@second.toml")
    file.write_text(file.read_text().replace("/srv/second", "/srv/moved"))
    said = box.install()
    assert f"{second}: stopped; a running song waits\n" in said and f"{second}: started again\n" in said
    assert box.pid == before
    assert box.machine.path("/srv/moved/inbox").is_dir()


# ---- what it may do


@pytest.mark.daily
def test_the_units_are_spelt_right(box: Box) -> None:
    """`systemd-analyze verify` has nothing to say, and `security` no more than 2.0."""
    home = "/usr/src/home"
    program = box.machine.path(f"{home}/.local/share/demixd/.venv/bin/demixd")
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    for words in (
        [UNIT],
        ["demixd@other.service"],
        ["--user", "/opt/demixd/systemd/user/demixd.service"],
        ["--user", "/opt/demixd/systemd/user/demixd-web.service"],
    ):
        done = box.machine.run("systemd-analyze", "verify", *words, XDG_RUNTIME_DIR="/run", HOME=home)
        assert (done.stdout, done.stderr) == ("", "")
    shutil.rmtree(box.machine.path(home))
    box.machine.run("systemd-analyze", "security", "--threshold=20", "--no-pager", UNIT)


PROBE = """
import ctypes, fcntl, json, os, socket, subprocess
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

def fails(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return error.errno
    return 0

def call(name, *arguments):
    ctypes.set_errno(0)
    return ctypes.get_errno() if getattr(libc, name)(*arguments) == -1 else 0

def lease(path):
    handle = os.open(path, os.O_RDONLY)
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)

status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
print("PROBE " + json.dumps({
    "write": {path: fails(Path(path).write_text, "x") for path in (
        "/etc/x", "/usr/x", "/opt/demixd/x", "/var/x", "/srv/x", "/srv/demixd/x", "/var/lib/demixd@probe/x")},
    "home": fails(os.listdir, "/home/anna"),
    "network": fails(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
    "links": [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]],
    "capabilities": int(status["CapEff"], 16),
    "bounding": int(status["CapBnd"], 16),
    "no_new_privileges": status["NoNewPrivs"],
    "setuid": subprocess.run(["/srv/demixd/id", "-u"], capture_output=True, text=True).stdout.strip(),
    "user": os.geteuid(),
    "mount": call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "unshare": call("unshare", 0x10000000),
    "reboot": call("reboot", 0),
    "lease": fails(lease, "/srv/demixd/anna's"),
    "device": fails(os.open, "/srv/demixd/fuse", os.O_RDWR),
    "null": fails(os.open, "/dev/null", os.O_RDWR),
    "others": [pid for pid in os.listdir("/proc") if pid == "1"],
}))
"""


@pytest.mark.daily
def test_the_hardening_from_inside(box: Box) -> None:
    """A program in the service's place: what it may, and what it may not."""
    machine = box.machine
    machine.write("/opt/demixd/probe.py", PROBE)
    machine.run("install", "-m", "4755", "/usr/bin/id", "/srv/demixd/id")
    machine.run("runuser", "-u", ANNA, "--", "cp", "/etc/hostname", "/srv/demixd/anna's")
    fuse = machine.path("/srv/demixd/fuse")
    os.mknod(fuse, stat.S_IFCHR, os.makedev(10, 229))
    fuse.chmod(0o666)
    machine.run("sh", "-c", "exec 3<> /srv/demixd/fuse")  # whoever is not in the service may open it
    shutil.copytree(
        machine.path(f"/etc/systemd/system/{UNIT}.d"), machine.path("/etc/systemd/system/demixd@probe.service.d")
    )
    machine.write(
        "/etc/systemd/system/demixd@probe.service.d/90-probe.conf",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\n"
        "ExecStart=/opt/demixd/.venv/bin/python -P /opt/demixd/probe.py\n",
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "demixd@probe.service")
    (line,) = machine.until(
        lambda: [
            each["MESSAGE"] for each in machine.journal("-u", "demixd@probe") if each["MESSAGE"].startswith("PROBE ")
        ],
        "what it found",
    )
    found = json.loads(line.removeprefix("PROBE "))
    eperm, erofs, eafnosupport = 1, 30, 97
    written = found["write"]
    assert (written.pop("/srv/demixd/x"), written.pop("/var/lib/demixd@probe/x")) == (0, 0)
    assert set(written.values()) == {erofs}
    assert found["home"] != 0
    assert found["network"] == eafnosupport
    assert set(found["links"]) <= {"lo"}
    cap_lease = 1 << 28
    assert (found["capabilities"], found["bounding"], found["no_new_privileges"]) == (cap_lease, cap_lease, "1")
    assert found["user"] != 0 and found["setuid"] == str(found["user"])
    assert {found["mount"], found["unshare"], found["reboot"]} == {eperm}
    assert found["lease"] == 0
    assert (found["device"], found["null"]) == (eperm, 0)
    assert found["others"] == []
    for path in ("/opt/demixd/probe.py", "/srv/demixd/id", "/srv/demixd/anna's", "/srv/demixd/x", "/srv/demixd/fuse"):
        machine.path(path).unlink()
    machine.path("/var/lib/demixd@probe/x").unlink()
    shutil.rmtree(machine.path("/etc/systemd/system/demixd@probe.service.d"))
    machine.run("systemctl", "daemon-reload")


# ---- hooks

HOOK = """#!/bin/sh
id -un; cat > "$HOME/end"; echo "$DEMIXD_NAME is $DEMIXD_STATE in $DEMIXD_DIR, $TOLD"
touch /srv/demixd/inbox/hook /etc/hook 2>/dev/null || echo "nothing else is written to"
python3 -c 'import socket; socket.socket()' && echo "there is a network"
"""


@pytest.mark.daily
def test_hooks(box: Box) -> None:
    """`--hooks` brings a service with a user of its own, which runs what is in hooks.d; an upgrade keeps it."""
    machine = box.machine
    machine.write("/etc/demixd/hooks.env", "TOLD=quietly\n")
    said = box.install("--hooks")
    assert "demixd-hooks.service: enabled and started" in said
    assert machine.is_active("demixd-hooks.service")
    machine.write("/etc/demixd/hooks.d/tell", HOOK)
    machine.path("/etc/demixd/hooks.d/tell").chmod(0o755)
    state = machine.path("/var/lib/demixd-hooks")
    machine.until(lambda: any("tell" in path.read_text() for path in state.glob("*.json")), "it is found")
    box.drop("hooked.flac")
    box.done("hooked.flac")
    machine.until(lambda: (state / "end").exists(), "it has run")
    assert json.loads((state / "end").read_bytes())["input"]["name"] == "hooked.flac"

    def lines() -> list[str]:
        entries = [each["MESSAGE"] for each in machine.journal("-t", "demixd-hooks")]
        return [each.removeprefix("tell: ") for each in entries if each.startswith("tell: ")]

    told = ["demixd-hooks", "hooked.flac is done in /srv/demixd/outbox/hooked, quietly"]
    told += ["nothing else is written to", "there is a network"]
    machine.until(lambda: lines() == told, "its output")
    assert "demixd-hooks.service: enabled and started" in box.install()
    machine.run("systemd-analyze", "verify", "demixd-hooks.service")
    machine.run("systemd-analyze", "security", "--threshold=30", "--no-pager", "demixd-hooks.service")
    assert lines() == told, "it has run for no end again"
    machine.path("/etc/demixd/hooks.d/tell").unlink()


# ---- the journal


@pytest.mark.daily
def test_the_journal_has_fields(box: Box) -> None:
    """One entry for each change of state, with fields that find it; for a done, a failed and a cancelled job."""
    machine = box.machine

    def bring(name: str) -> None:
        """In one moment: a song that is looked at while it is being copied waits for two reasons, with an entry for each."""
        home, inbox = f"/home/{ANNA}", f"{SPOOL}/inbox"
        machine.run("runuser", "-u", ANNA, "--", "cp", f"{home}/{name}", f"{inbox}/.{name}.part")
        machine.run("runuser", "-u", ANNA, "--", "mv", f"{inbox}/.{name}.part", f"{inbox}/{name}")

    box.make("good.flac", 2.0)
    bring("good.flac")
    box.done("good.flac")
    machine.write(f"/home/{ANNA}/bad.wav", "this is not audio")
    machine.path(f"/home/{ANNA}/bad.wav").chmod(0o644)
    bring("bad.wav")
    failed = box.state("bad.wav", "failed")
    box.make("unwanted.flac", 60.0)
    bring("unwanted.flac")
    box.separating("unwanted.flac")
    machine.run("runuser", "-u", ANNA, "--", "touch", f"{SPOOL}/inbox/unwanted.flac.cancel")
    cancelled = box.state("unwanted.flac", "cancelled")

    def states(job: dict[str, Any]) -> list[str]:
        return [each["STATE"] for each in machine.journal("-t", "demixd", f"JOB_ID={job['job_id']}")]

    good = box.song("good.flac")
    assert states(good) == ["waiting", "running", "done"]
    assert states(failed) == ["waiting", "running", "failed"]
    assert states(cancelled) == ["waiting", "running", "cancelled"]
    (found,) = machine.journal("-t", "demixd", "CODE=bad-audio")
    assert (found["JOB_ID"], found["SONG"], found["DEVICE"]) == (failed["job_id"], "bad.wav", "cpu")
    assert (found["PRIORITY"], found["MESSAGE_ID"]) == ("4", "e2f3a7c15d8b4d4c9e06b7a1c84d9f35")
    started, done = machine.journal("-t", "demixd", f"JOB_ID={good['job_id']}")[1:]
    assert (started["STEP"], started["MESSAGE_ID"]) == ("snapshot", "5b0ad2f0d7f94f5c8d1b3fca0f7d3e61")
    assert (done["DEVICE"], done["MESSAGE_ID"]) == ("cpu", "0c9d2a5ee2ab4b0fa1ac9d3b6e7f4a18")
    (end,) = machine.journal("-t", "demixd", "SONG=unwanted.flac", "STATE=cancelled")
    assert end["MESSAGE_ID"] == "a81e64bd30cf4f6b92d57e0c1f3ab972"


@pytest.mark.daily
def test_a_share_of_a_group(box: Box) -> None:
    """`--group` gives the group a spool whose folders were made for the service alone; who is in it drops and takes away."""
    machine = box.machine
    spool, parts = "/srv/choir", ("inbox", "outbox", "status", "done", "failed")
    machine.run("groupadd", "choir")
    machine.run("useradd", "--groups", "choir", "bass")
    for path in (spool, *(f"{spool}/{part}" for part in parts)):
        machine.run("install", "-d", "-m", "755", "-o", "demixd", "-g", "demixd", path)
    private = f"{spool}/outbox/.demixd"
    machine.run("install", "-d", "-m", "2775", "-o", "demixd", "-g", "choir", private)
    assert f"{private}, for demixd alone" in box.install("--instance", "choir", "--spool", spool, "--group", "choir")
    assert machine.run("stat", "-c", "%U %a", private).stdout == "demixd 2700\n", "a former version had left it open"
    for path in (spool, *(f"{spool}/{part}" for part in parts)):
        assert machine.run("stat", "-c", "%G %a", path).stdout == "choir 2775\n"
    assert machine.run("systemctl", "show", "-P", "Group", "demixd@choir").stdout == "choir\n"
    machine.until(lambda: machine.path(f"{spool}/status/_daemon.json").exists(), "it writes")
    machine.run(
        "runuser", "-u", "bass", "--", "sh", "-c", f"touch {spool}/inbox/x.txt && rm {spool}/status/_daemon.json"
    )
    said = machine.run(f"{PROJECT}/systemd/install", "--group", "nobodys", check=False)
    assert said.returncode == 2 and "there is no group nobodys" in said.stderr
    machine.run("systemctl", "disable", "--now", "demixd@choir")


# ---- for one user


@pytest.mark.daily
def test_for_one_user(box: Box) -> None:
    """`--user` needs no root: installed, used and taken away by a user of a desktop, in that user's own manager."""
    machine = box.machine
    machine.run("useradd", "--create-home", "bob")
    number = machine.run("id", "-u", "bob").stdout.strip()
    machine.run("loginctl", "enable-linger", "bob")
    machine.until(lambda: machine.is_active(f"user@{number}.service"), "bob's own systemd")
    shutil.copytree(machine.path(PROJECT), machine.path("/home/bob/project"), symlinks=True)
    machine.write(
        "/home/bob/.config/demixd/demixd.toml",
        '[paths]\nspool = "/home/bob/songs"\nstate = "/home/bob/.local/state/demixd"\n[model]\nname = "demo"\n',
    )
    machine.run("chown", "-R", "bob:", "/home/bob")

    def bob(*words: str) -> str:
        environment = {"HOME": "/home/bob", "XDG_RUNTIME_DIR": f"/run/user/{number}"}
        return machine.run("runuser", "-u", "bob", "--", *words, **environment).stdout

    bob("install", "-d", "-m", "2775", "/home/bob/songs/outbox/.demixd")
    said = bob("/home/bob/project/systemd/install", "--user")
    assert "Active: active (running)" in said
    assert "/home/bob/songs/outbox/.demixd, for bob alone" in said, "a former version had left it open"
    make_song(machine.path("/home/bob/songs/inbox/song.flac"))
    box.done("song.flac", "/home/bob/songs")
    bob("/home/bob/project/systemd/install", "--user", "--uninstall")
    left = bob("find", "/home/bob", "-name", "demixd*", "-not", "-path", "/home/bob/project/*").split()
    assert sorted(left) == ["/home/bob/.config/demixd", "/home/bob/.config/demixd/demixd.toml"]
    assert machine.path("/home/bob/songs/outbox/song/vocals.flac").exists()


# ---- taken away


@pytest.mark.daily
def test_taking_it_away(box: Box) -> None:
    """Nothing is left but the configuration and the songs. The last test: there is no service after it."""
    machine = box.machine
    box.drop("kept.flac")
    box.done("kept.flac")
    machine.write("/etc/demixd/demixd@other.toml", "# a configuration whose service was never started\n")
    box.install("--hooks")
    configurations = sorted(f"/etc/demixd/{path.name}" for path in machine.path("/etc/demixd").glob("demixd*"))
    said = box.install("--uninstall")
    assert "What stays:" in said and SPOOL in said
    left = machine.run("find", "/etc", "/opt", "/run", "/srv", "/usr/local", "/var", "-name", "demixd*").stdout.split()
    assert sorted(left) == ["/etc/demixd", *configurations, SPOOL]
    assert machine.path(f"{SPOOL}/outbox/kept/vocals.flac").exists()
    assert machine.path(f"{SPOOL}/done/kept.flac").exists()
    for user in ("demixd", "demixd-hooks"):
        assert machine.run("getent", "passwd", user, check=False).returncode == 2
    assert machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "demixd*").stdout.strip() == ""
