"""`demixd separate`: one song, without a daemon, by a real model."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from commands import ENVIRONMENT
from daemons import Daemon, make_song


def test_one_song(tmp_path: Path) -> None:
    """The stems that are asked for lie in the folder, and nothing else does; each is told, a line each."""
    daemon = Daemon(tmp_path / "d")
    song = make_song(tmp_path / "Song.wav", 1.0)
    out = tmp_path / "new" / "out"
    done = daemon.command(
        "separate", "--stems", "vocals,no_vocals", "--set", "bit_depth=24", "--format", "flac", song, out
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(out / "vocals.flac"), str(out / "no_vocals.flac")]
    assert sorted(path.name for path in out.iterdir()) == ["no_vocals.flac", "vocals.flac"]
    for path in out.iterdir():
        assert (soundfile.info(path).subtype, soundfile.info(path).frames) == ("PCM_24", soundfile.info(song).frames)
    assert list(daemon.inbox.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("none.wav", "out"), 1, "none.wav: No such file or directory."),
        (("--model", "none", "Song.wav", "out"), 2, "none: there is no such model"),
        (("--set", "format=none", "Song.wav", "out"), 2, 'format = "none": it must be'),
        (("--stems", "vocal", "Song.wav", "out"), 2, "did you mean vocals?"),
        (("Song.wav", "Song.wav/out/deeper"), 1, "Song.wav is no folder"),
        (("Song.wav", "Song.wav"), 1, "Song.wav is no folder"),
        (("--stems", "vocal", "Song.wav", "missing/out"), 2, "did you mean vocals?"),
        (("Song.wav",), 2, "Missing argument 'FOLDER'"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, words: tuple[str, ...], status: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence and no traceback, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    daemon = Daemon(tmp_path / "d")
    make_song(tmp_path / "Song.wav", 0.2)
    done = daemon.command("separate", *words)
    assert done.returncode == status, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "?." not in done.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "missing").exists()


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    """Only a folder that the command has made itself goes again where it fails."""
    daemon = Daemon(tmp_path / "d")
    song, out = make_song(tmp_path / "Song.wav", 0.2), tmp_path / "out"
    out.mkdir()
    assert daemon.command("separate", "--stems", "vocal", song, out).returncode == 2
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path: Path, number: int, status: int) -> None:
    """Nothing is left behind, the folder neither."""
    daemon = Daemon(tmp_path / "d")
    song, out = make_song(tmp_path / "Song.wav", 300.0), tmp_path / "out"
    words = [sys.executable, "-m", "demixd", "--config", daemon.config, "separate", song, out]
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        daemon.until(lambda: out.is_dir() and any(out.glob(".*/tmp")), "it works")
        time.sleep(1.0)
        process.send_signal(number)
        assert process.wait() == status
    assert not out.exists()
