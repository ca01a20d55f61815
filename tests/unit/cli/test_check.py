"""What `demixd check` finds about the machine, of a configuration alone; and about the files of the state folder."""

import os
import sysconfig
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from demixd.cli.check import folders, machine
from demixd.cli.check.finding import Level
from demixd.config import Config, Limits
from demixd.engine import host


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
