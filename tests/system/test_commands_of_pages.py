"""The commands of the pages, typed in a fresh copy of the project, with the demo model."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from daemons import ROOT, make_song
from demixd.engine.models.catalog import hub_repo
from demixd.engine.models.store import DEMO_FOLDER
from hub import Hub
from pages import CONTRIBUTING, PAGES, PROTOCOL, README, SERVICE, TUNING, blocks, ended, soon

RUN: dict[tuple[str, str], tuple[str, ...]] = {
    (README, "Two commands"): ("test_the_first_command",),
    (README, "Running it"): ("test_running_it",),
    (PROTOCOL, "Clients"): ("test_running_it",),
    (PROTOCOL, "The queue, from another language"): ("test_the_queue_in_a_shell",),
    (TUNING, "Three examples"): ("test_an_example_without_the_service",),
    (TUNING, "The page"): ("test_serving_the_page",),
    (TUNING, "Without a GPU"): ("test_installing_openvino",),
    (TUNING, "More than one machine"): ("test_workers_in_a_cluster",),
    (TUNING, "Without the service, or on one machine"): ("test_the_pages_cluster",),
    (SERVICE, "Installing, and taking it away"): ("test_a_model_that_is_not_there", "test_taking_it_away"),
    (SERVICE, "Mounts and permissions"): ("test_a_second_spool_whose_mount_comes_late",),
    (SERVICE, "The page"): ("test_the_page",),
    (SERVICE, "Hooks"): ("test_hooks",),
    (PROTOCOL, "The list of ends"): ("test_follow",),
    (SERVICE, "The journal"): ("test_the_journal_has_fields", "test_every_kind_of_entry_in_the_journal_is_there"),
    (CONTRIBUTING, "Where is what"): ("test_making_files_anew", "test_drawing_the_picture_again"),
    (CONTRIBUTING, "Changing the locked versions"): (),  # takes uv and the package index
}
"""Which tests run the commands below a heading."""


def test_every_block_is_run() -> None:
    """There are no other commands in the pages than those that tests run, and the tests are there."""
    assert {(page, heading) for page in PAGES for heading, _ in blocks("sh", page)} == RUN.keys()
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for names in RUN.values() for name in names if f"\ndef {name}(" not in tests] == []


class Copy:
    """A fresh copy of the project, with an environment that has this one's packages, and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.project, self.home = folder / "project", folder / "home"
        self.home.mkdir()
        self.project.mkdir()
        for part in ("daemon", "config", "systemd", "tests"):
            shutil.copytree(
                ROOT / part, self.project / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        made = self.project / ".venv"
        venv.create(made, symlinks=True)
        (packages,) = made.glob("lib/python*/site-packages")
        (packages / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        for lock in self.project.glob("config/*.lock"):
            # So that nothing is fetched: all of it is there.
            (made / f"{lock.name}.sha256").write_text(hashlib.sha256(lock.read_bytes()).hexdigest() + "  -")
        make_song(self.project / "Song.flac", 2.0)
        self.env = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(folder),
            "OMP_WAIT_POLICY": "passive",
        }

    def start(self, script: str, **env: str) -> subprocess.Popen[str]:
        """Type these lines; the first that fails is the last."""
        return subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=self.project,
            env=self.env | env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def set_up(self) -> None:
        """Make the environment, as `daemon/try` does first."""
        self.type("root=$PWD; . daemon/setup.sh; make_venv")

    def type(self, script: str, **env: str) -> str:
        """What they say; all of them must succeed."""
        code, said = ended(self.start(script, **env))
        assert code == 0, said
        return said


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


def lines(page: str, heading: str, number: int = 0) -> list[str]:
    """The lines of a block of commands."""
    return [text for title, text in blocks("sh", page) if title == heading][number].splitlines()


def test_the_first_command(copy: Copy) -> None:
    """`daemon/try` makes the environment, separates the song, and lists its stems. The second command is this suite."""
    first_command, second_command = lines(README, "Two commands")
    said = copy.type(first_command)
    assert "the song's" in said and "NOT" not in said
    assert {"vocals", "instrumental"} <= set(said.split())
    assert os.access(copy.project / second_command.split()[0], os.X_OK)


@pytest.mark.daily
def test_running_it(copy: Copy) -> None:
    """A model is fetched (from a hub of ours), a daemon started; a song dropped and found, and both clients used."""
    copy.set_up()
    spool = copy.home / "demixd"
    weights = next(DEMO_FOLDER.glob("*.safetensors"))
    files = {
        (hub_repo("htdemucs"), "htdemucs.yaml"): f"models: ['{weights.stem}']\n".encode(),
        (hub_repo("htdemucs"), weights.name): weights.read_bytes(),
    }
    with Hub(files=files) as hub:
        script = "\n".join(lines(README, "Running it"))
        daemon = copy.start(script, HF_ENDPOINT=hub.endpoint, no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")
        try:
            soon(lambda: daemon.poll() is not None or document(spool, "_daemon.json").get("state") == "ready")
            assert daemon.poll() is None, daemon.communicate()[0]
            drop, look = lines(README, "Running it", 1)
            copy.type(drop)
            soon(lambda: document(spool, "Song.flac.json").get("state") == "done")
            assert copy.type(look).split() == look.partition("#")[2].split()
            for client in lines(PROTOCOL, "Clients"):
                assert copy.type(client) == ""
                assert {path.name for path in (copy.project / "stems").iterdir()} == {
                    "vocals.mp3",
                    "instrumental.mp3",
                    "stems.json",
                }
                shutil.rmtree(copy.project / "stems")
        finally:
            os.killpg(daemon.pid, signal.SIGTERM)
            _, said = ended(daemon)
    assert "FAIL" not in said


def document(spool: Path, name: str) -> dict[str, Any]:
    """A status file; {} where it is not there."""
    path = spool / "status" / name
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


def test_an_example_without_the_service(copy: Copy) -> None:
    """Copied, with another spool and a state folder, it is a configuration that counts; git does not see the copy."""
    copy.set_up()
    (line,) = lines(TUNING, "Three examples")
    copy.type(line)
    file = copy.project / "demixd.toml"
    text = file.read_text(encoding="utf-8")
    spool = f'spool = "{copy.home}/music"\nstate = "{copy.home}/state"'
    file.write_text(re.sub("^spool = .*", spool, text, flags=re.MULTILINE), encoding="utf-8")
    said = copy.type("mkdir ~/music; .venv/bin/demixd --config demixd.toml check || true")
    assert f"{copy.home}/music/inbox is not there yet" in said and f"{copy.home}/state is not there yet" in said
    assert "/demixd.toml" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


@pytest.mark.skipif(not importlib.util.find_spec("uvicorn"), reason="config/requirements-web.lock is not installed")
def test_serving_the_page(copy: Copy) -> None:
    """What it needs is found by its lock file; it is served at the address that is given, and the link is told."""
    copy.set_up()
    install, serve, link = lines(TUNING, "The page")
    assert "already satisfied: uvicorn" in copy.type(f"{install} --no-index")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    server = copy.start(serve.replace("0.0.0.0:8377", f"0.0.0.0:{port}", 1))
    try:
        soon(lambda: (copy.home / ".local/state/demixd-web/address").exists())
        address, _, code = copy.type(link.partition("#")[0]).partition("\n")
        assert re.fullmatch(rf"http://[0-9.]+:{port}/\?token=[\w-]{{43}}", address) and "\u2580" in code
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        ended(server)


@pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="no openvino: tests/run installs it")
def test_installing_openvino(copy: Copy) -> None:
    """What is there already is found, by its hashes' file and without an index."""
    (line,) = lines(TUNING, "Without a GPU")
    assert "already satisfied: openvino" in copy.type(f"{line} --no-index")


def test_making_files_anew(copy: Copy) -> None:
    """The commands for contributors make the schemas that are shipped."""
    copy.set_up()
    *schemas, _ = lines(CONTRIBUTING, "Where is what")
    shipped = {path: path.read_bytes() for path in copy.project.glob("config/*.json")}
    for path in shipped:
        path.write_bytes(b"")
    copy.type("\n".join(schemas))
    assert {path: path.read_bytes() for path in shipped} == shipped


@pytest.mark.slow
def test_drawing_the_picture_again(copy: Copy) -> None:
    """The picture can be drawn again, from a daemon of today."""
    copy.set_up()
    *_, draw = lines(CONTRIBUTING, "Where is what")
    picture = copy.project / "tests" / "picture" / "demixd.svg"
    picture.unlink()
    copy.type(draw)
    text = "".join(ElementTree.parse(picture).getroot().itertext()).replace("\xa0", " ")
    assert [part for part in ("is ready", "Running", "Queue: 2", "stems.json") if part not in text] == []
