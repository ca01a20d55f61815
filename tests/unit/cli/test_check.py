"""What `demixd check` finds about the machine, of a configuration alone."""

import sysconfig
from pathlib import Path

import pytest

from demixd.cli.check import machine
from demixd.cli.check.finding import Level
from demixd.config import Config, Limits
from demixd.engine import host


def test_the_memory_for_sound() -> None:
    """It is told in bytes and in minutes of a song with two stems, with the key, and with the folder for what is beyond it."""
    found = machine.memory(Config(limits=Limits(memory_bytes=512 << 20)), Path("/there/work"))
    told = "512 MiB for decoded sound, 8 minutes with two stems ([limits] memory_bytes); what is beyond it goes to /there/work"
    assert (found.level, found.subject, found.text) == (Level.OK, "memory", told)


def test_the_memory_that_auto_takes() -> None:
    """What it would be now: 256 MiB to 8 GiB, however much is free."""
    found = machine.memory(Config(), Path("/there/work"))
    assert 256 <= int(found.text.split()[0]) <= 8192


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
