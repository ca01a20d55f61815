"""Tests of the tests: bugs that this kind of program has, sown one at a time, and each is caught.

The folders beside this file have them as patches; each begins with what it gets wrong, and the tests that are to fail by
it. `tests/run --seeded` sows all of them, the everyday run one, another every day; that each can still be sown is seen
every day.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemons import ROOT

PATCHES = sorted((ROOT / "tests" / "seeded").rglob("*.patch"), key=lambda patch: patch.stem)

NEEDED = ("daemon", "tests", "config", "systemd", "pyproject.toml", "README.md")


def caught_by(patch: Path) -> list[str]:
    """The tests that are to fail, as pytest is told them."""
    return re.findall(r"^Caught by: (.+)$", patch.read_text(encoding="utf-8"), re.MULTILINE)


def sown(folder: Path, patch: Path) -> Path:
    """A copy of the project with that bug in it."""
    copy = folder / "project"
    copy.mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    subprocess.run(["git", "apply", str(patch)], cwd=copy, check=True)
    return copy


def verdict(project: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """What these tests say of the project that they are in."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--full", *tests]
    # A test that fails may leave open what it had, which must not end pytest before it has said so.
    words += ["-W", "ignore::ResourceWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning"]
    # Who waits for what never comes has waited long enough after this.
    environment = {**os.environ, "PATIENCE_S": "30", "PYTHONPATH": str(project / "daemon")}
    return subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_there_are_enough() -> None:
    """Fifteen at least, and each says by which test it is caught."""
    assert len(PATCHES) >= 15
    assert all(caught_by(patch) for patch in PATCHES)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_each_can_be_sown(tmp_path: Path, patch: Path) -> None:
    """The code has not moved on from under it."""
    sown(tmp_path, patch)


def caught(folder: Path, patch: Path) -> None:
    said = verdict(sown(folder, patch), caught_by(patch))
    # 1: tests have failed. Anything else, such as tests that are not there, or an error before them, is no catch.
    assert said.returncode == 1, said.stdout + said.stderr
    assert re.search(r"\d+ failed", said.stdout), said.stdout


def test_one_is_caught(tmp_path: Path, day: int, record_property: Callable[[str, object], None]) -> None:
    """One of them, another every day."""
    caught(tmp_path, random.Random(day).choice(PATCHES))
    record_property("seeded bugs caught", 1)


@pytest.mark.seeded
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_every_one_is_caught(tmp_path: Path, patch: Path, record_property: Callable[[str, object], None]) -> None:
    """All of them."""
    caught(tmp_path, patch)
    record_property("seeded bugs caught", 1)
