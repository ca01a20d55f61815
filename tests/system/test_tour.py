"""`daemon/try`: the tour of a newcomer, on the demo model."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemons import PATIENCE_S, ROOT, make_song


def tour(folder: Path, *songs: Path) -> subprocess.CompletedProcess[str]:
    """What `daemon/try` runs once its packages are there; its folder is below `folder`."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "demixd.cli.tour", *map(str, songs)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_S,
    )


@pytest.mark.daily
def test_every_stem_is_listed(tmp_path: Path) -> None:
    """Each song is dropped, followed to its end and listed with its stems, which have its number of frames."""
    songs = [make_song(tmp_path / name, 1.0) for name in ("one.wav", "two.flac")]
    done = tour(tmp_path, *songs)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = tmp_path.glob("demixd-try-*")
    lines = done.stdout.splitlines()
    for song, kind in (("one", "wav"), ("two", "flac")):
        assert f"{song}.{kind}: done, in {folder}/spool/outbox/{song}" in lines
        at = lines.index(f"{song}.{kind}: 44100 frames, {kind}")
        for number, stem in enumerate(("vocals", "instrumental")):
            facts, path = lines[at + 1 + 2 * number : at + 3 + 2 * number]
            assert facts.split()[0] == stem
            assert facts.endswith("44100 frames (the song's)")
            assert Path(path.strip()) == folder / "spool" / "outbox" / song / f"{stem}.{kind}"
            assert Path(path.strip()).is_file()
    assert lines[-1].startswith(f"Everything is in {folder}")


def test_what_is_no_song(tmp_path: Path) -> None:
    """It is refused in a sentence before the daemon starts."""
    done = tour(tmp_path, ROOT / "README.md")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"daemon/try: {ROOT / 'README.md'}: the daemon would leave it in the inbox (not-audio)"
    )
    assert "Starting the daemon" not in done.stdout


@pytest.mark.daily
def test_a_song_that_cannot_be(tmp_path: Path) -> None:
    """A broken one makes the tour end with 1; the one after it is done."""
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"no" * 5000)
    done = tour(tmp_path, broken, make_song(tmp_path / "good.wav", 0.5))
    assert done.returncode == 1
    assert "broken.mp3: failed: " in done.stderr
    assert "good.wav: done, in " in done.stdout


# ---- what daemon/try sets up first

PYTHON = """#!/bin/sh
printf '%s\\n' "$*" >>"$LOG"
while [ $# -gt 0 ]; do
    [ "$1" != -r ] || cat "$2" >>"$LOG.locks"
    shift
done
"""
"""Stands for the environment's own Python: it notes what pip is asked for, and installs nothing."""


def first_run(folder: Path, *words: str, terminal: bool = False) -> tuple[subprocess.CompletedProcess[str], str, str]:
    """`daemon/try` in a copy of the project: how it ends, what Python is asked for, and the locks that pip is given."""
    for name in ("daemon/try", "daemon/setup.sh", "config/requirements.lock"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    log, locks = folder / "log", folder / "log.locks"
    for path in (log, locks):
        path.write_text("")
    command = [str(folder / "daemon" / "try"), *words]
    if terminal:
        command = ["script", "-qec", shlex.join(command), "/dev/null"]
    done = subprocess.run(
        command,
        env={**os.environ, "LOG": str(log)},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done, log.read_text(), locks.read_text()


def test_try_says_what_it_can_do(tmp_path: Path) -> None:
    """`--help` is its help, and nothing is set up for it; a song that is not there ends with 2."""
    for word in ("-h", "--help"):
        done, asked, _ = first_run(tmp_path, word)
        assert (done.returncode, done.stderr, asked) == (0, "", "")
        assert done.stdout.startswith("daemon/try [--cpu INDEX] [SONG...]\n")
    for words in (
        ["--cpu"],
        ["--cpu", "--dry-run"],
        ["missing.wav"],
        ["--cpu", "https://index.invalid/cpu", "missing.wav"],
    ):
        done, asked, _ = first_run(tmp_path, *words)
        assert (done.returncode, done.stdout, asked) == (2, "", "")
        assert "--help" in done.stderr


def test_try_without_cuda(tmp_path: Path) -> None:
    """With `--cpu` everything but torch comes from the lock, torch in its version from the other index, and no CUDA at all."""
    lock = (ROOT / "config" / "requirements.lock").read_text()
    done, asked, locks = first_run(tmp_path, "--cpu", "https://index.invalid/cpu")
    assert done.returncode == 0, done.stderr
    assert "about 1.5 GB, with torch for the CPU alone" in done.stderr
    names = re.findall(r"^([\w.-]+)==", locks, re.MULTILINE)
    left_out = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)) - set(names)
    assert {"torch", "torchaudio", "triton"} <= left_out
    assert {name.partition("-")[0] for name in left_out} == {"torch", "torchaudio", "triton", "nvidia", "cuda"}
    assert set(re.findall("--hash=.*", locks)) < set(re.findall("--hash=.*", lock))
    first, second = [line for line in asked.splitlines() if " pip install " in line]
    assert "--require-hashes" in first and "--index-url" not in first
    torch = re.findall(r"^(torch(?:audio)?==\S+)", lock, re.MULTILINE)
    assert second.endswith(f"--index-url https://index.invalid/cpu {' '.join(torch)}")
    _, asked, _ = first_run(tmp_path, "--cpu", "https://index.invalid/cpu")
    assert "pip install" not in asked, "it is done once"


def test_an_upgrade_has_no_cuda_either(tmp_path: Path) -> None:
    """A lock file that has changed is installed from the index that `--cpu` has named before."""
    first_run(tmp_path, "--cpu", "https://index.invalid/cpu")
    (tmp_path / ".venv" / "requirements.lock.sha256").write_text("another one's")
    done, asked, _ = first_run(tmp_path)
    assert "with torch for the CPU alone" in done.stderr
    assert "--index-url https://index.invalid/cpu torch==" in asked


def test_try_shows_how_far_it_is(tmp_path: Path) -> None:
    """It says how much is to come, for whom; on a terminal pip has its bars, elsewhere it is quiet."""
    done, asked, locks = first_run(tmp_path)
    assert "once: about 5 GB" in done.stderr
    assert "--quiet" in asked and "--progress-bar" not in asked
    assert locks == (ROOT / "config" / "requirements.lock").read_text()
    if not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg"))):
        assert "there is none here; daemon/try and systemd/install leave that out by --cpu" in done.stderr
    shutil.rmtree(tmp_path / ".venv")
    _, asked, _ = first_run(tmp_path, terminal=True)
    assert "--progress-bar=on" in asked and "--quiet" not in asked
