"""What children of this program run: its own code, wherever they are started."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from demixd.spool import child_process

PACKAGE = Path(child_process.__file__).parents[1]


@pytest.mark.parametrize("module", ["demixd.worker", "demixd.engine.openvino.convert", "demixd.audio.tags"])
def test_nothing_of_the_working_directory_counts(module: str, tmp_path: Path) -> None:
    """Neither there nor in PYTHONPATH are modules looked for, under any name that one of these loads."""
    names = ("demixd", "runpy", "msgspec", "torch", "numpy", "av", "mutagen", "sitecustomize", "usercustomize", "json")
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'heard')!r}, 'a').write('{name} ')")
    subprocess.run(
        child_process.python(module),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f".:{tmp_path}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert not (tmp_path / "heard").exists(), (tmp_path / "heard").read_text()


def test_python_is_started_in_one_place() -> None:
    """Whoever starts a child with Python of ours asks `child_process`; scripts isolate each Python that they start."""
    starters = {path.name for path in PACKAGE.rglob("*.py") if "sys.executable" in path.read_text(encoding="utf-8")}
    assert starters == {"child_process.py"}
    root = PACKAGE.parents[1]
    for script in (root / "daemon" / "setup.sh", root / "daemon" / "try", root / "systemd" / "install"):
        starts = re.findall(r'python" (-\S*)', script.read_text(encoding="utf-8"))
        assert starts, script
        assert {each for each in starts if each not in ("-I", "-P")} == set(), script


def test_a_module_gets_its_arguments() -> None:
    """A module sees the arguments that follow it, and neither its own name nor the path."""
    done = subprocess.run([*child_process.python("demixd"), "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.partition(",")[0]) == (0, "demixd")
