"""The linters are tests, so that `tests/run` is the whole gate."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command", [["ruff", "check", "-q"], ["ruff", "format", "--check", "-q"], ["mypy"]], ids=" ".join
)
def test_linter(command: list[str]) -> None:
    """Ruff and strict mypy have nothing to say."""
    places = [] if command == ["mypy"] else ["daemon", "tests"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *places], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck: apt-get install shellcheck")
def test_shell() -> None:
    """shellcheck has nothing to say about the scripts."""
    scripts = [
        "daemon/setup.sh",
        "daemon/try",
        "systemd/install",
        "tests/run",
        "tests/benchmarks/run",
        "config/hooks/apprise",
    ]
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
