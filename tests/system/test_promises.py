"""What the README promises, seen from outside: order, bytes, levels, memory, and a cancel of a model in full size."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from daemons import ROOT, Daemon, make_song, running
from demixd.engine.models.demo.songs import make_song as make_music
from demixd.supervisor.workers.process import ENVIRONMENT

FULL_SIZE: dict[str, Any] = {
    "sources": ["drums", "bass", "other", "vocals"],
    "channels": 48,
    "depth": 4,
    "t_layers": 5,
    "t_heads": 8,
    "bottom_channels": 512,
    "segment": Fraction(39, 5),
}


def stems(daemon: Daemon, name: str) -> dict[str, Any]:
    """The manifest of a song that must be done."""
    sidecar = daemon.final(name)
    assert sidecar["state"] == "done", sidecar
    manifest: dict[str, Any] = json.loads((daemon.outbox / sidecar["output"]["dir"] / "stems.json").read_text())
    return manifest


def save_random_model(folder: Path, name: str, **how: Any) -> None:
    """A model with random weights in the layout of Demucs' repositories."""
    torch.manual_seed(0)
    model = HTDemucs(**how)
    folder.mkdir()
    kwargs = {**how, "segment": {"_type": "fraction", "numerator": 39, "denominator": 5}}
    metadata = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": json.dumps(kwargs)}
    save_file(
        {key: value.half().contiguous() for key, value in model.state_dict().items()},
        folder / "a1.safetensors",
        metadata,
    )
    (folder / f"{name}.yaml").write_text("models: ['a1']\n")


def test_ten_songs_dropped_before_the_start_are_done_in_order(tmp_path: Path) -> None:
    """Songs dropped while the daemon was not running: begun, and done, by the time they became ready and name."""
    names = [f"{number:02d}.wav" for number in range(10)]
    daemon = Daemon(tmp_path, fake=True)
    for name in names:
        make_song(daemon.inbox / name, 0.3)
    try:
        daemon.start().ready()
        for name in names:
            assert daemon.final(name)["state"] == "done"
        assert daemon.stop() == 0
    finally:
        daemon.end()
    told = re.findall(r"(\d\d\.wav): (running \(snapshot\)|done)", daemon.log.read_text())
    for state in ("running (snapshot)", "done"):
        assert [name for name, each in told if each == state] == names


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_the_same_song_twice_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    """Two drops of one content under two names have stems of the same sha256."""
    song = make_song(tmp_path / f"song.{kind}", 1.0)
    with running(tmp_path / "d") as daemon:
        for name in ("one", "two"):
            shutil.copy(song, daemon.inbox / f"{name}.{kind}")
        first, second = (
            [file["sha256"] for file in stems(daemon, f"{name}.{kind}")["files"]] for name in ("one", "two")
        )
    assert first == second


def test_a_song_that_clips_has_one_gain(tmp_path: Path) -> None:
    """All stems get the gain that the manifest gives; divided by it they are what the engine made."""
    song = np.sum(list(make_music(seed=3, seconds=3.0).values()), axis=0).T
    soundfile.write(tmp_path / "loud.wav", 4 * song / np.abs(song).max(), 44100, subtype="FLOAT")
    made = {}
    for clip in ("joint", "none"):
        with running(tmp_path / clip, defaults={"clip": clip}) as daemon:
            shutil.copy(tmp_path / "loud.wav", daemon.inbox)
            manifest = stems(daemon, "loud.wav")
            folder = daemon.outbox / "loud"
            read = {
                file["stem"]: soundfile.read(folder / file["name"], dtype="float64")[0] for file in manifest["files"]
            }
            made[clip] = (manifest, read)
    manifest, joint = made["joint"]
    assert manifest["gain_db"] < 0
    assert {file["gain_db"] for file in manifest["files"]} == {manifest["gain_db"]}
    assert max(np.abs(stem).max() for stem in joint.values()) <= 1
    for name, stem in joint.items():
        np.testing.assert_allclose(stem / 10 ** (manifest["gain_db"] / 20), made["none"][1][name], atol=1e-6)


@pytest.mark.xdist_group("computing")
def test_cancel_of_a_model_in_full_size(tmp_path: Path) -> None:
    """htdemucs in full size on the CPU stops within 5 s, and the next song runs without loading it again."""
    save_random_model(tmp_path / "repo", "full", **FULL_SIZE)
    with running(tmp_path / "d", model={"name": "full", "repo": str(tmp_path / "repo")}) as daemon:
        worker = daemon.read("_daemon.json")["worker"]["pid"]
        make_song(tmp_path / "long.flac", 120.0)
        shutil.copy(tmp_path / "long.flac", daemon.inbox)
        daemon.until(lambda: daemon.song("long.flac").get("step") == "separate", "separate")
        began = time.monotonic()
        (daemon.inbox / "long.flac.cancel").touch()
        assert daemon.final("long.flac")["state"] == "cancelled"
        assert time.monotonic() - began < 5
        daemon.until(lambda: not daemon.works(), "no work folder")
        assert daemon.results() == set()
        make_song(daemon.inbox / "next.wav", 0.5)
        stems(daemon, "next.wav")
        assert daemon.read("_daemon.json")["worker"]["pid"] == worker


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small filesystem: sudo tests/run")
def test_no_space_waits_until_there_is_room(tmp_path: Path) -> None:
    """A song that needs more room than there is waits as `no-space` before it is separated; nothing is left behind."""
    work = tmp_path / "work"
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(work)], check=True)
    try:
        with running(tmp_path / "d", paths={"work": str(work)}) as daemon:
            make_song(daemon.inbox / "song.flac", 10.0)
            waiting = daemon.until(
                lambda: (s := daemon.song("song.flac")).get("reason") == "no-space" and s, "no-space"
            )
            assert "MB are free" in waiting["message"]
            assert waiting["state"] == "waiting"
            daemon.until(lambda: not list(work.iterdir()), "nothing left behind")
    finally:
        subprocess.run(["umount", str(work)], check=True)


def peak_mb(folder: Path, seconds: float, *, quick: bool = False) -> float:
    """The peak memory in MB of a process, set up as a worker is, that separates a song of that length with the demo model.

    `quick`: the network passes its input on, so that hours take minutes. All that could grow with the song is there.
    """
    folder.mkdir()
    song = folder / "song.flac"
    with soundfile.SoundFile(song, "w", 44100, 2) as file:
        minute = np.random.default_rng(0).uniform(-0.3, 0.3, (60 * 44100, 2)).astype(np.float32)
        for _ in range(int(seconds // 60)):
            file.write(minute)
    (folder / "demixd.toml").write_text('[model]\nname = "demo"\ndevice = "cpu"\n')
    passes_on = "lambda self, mix: mix[:, None].expand(-1, len(self.sources), -1, -1) / 4"
    code = (
        "import resource, sys, demixd\n"
        + (f"from demucs.htdemucs import HTDemucs\nHTDemucs.forward = {passes_on}\n" if quick else "")
        + "demixd.separate_audio(sys.argv[1], sys.argv[2])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)"
    )
    env = {
        **ENVIRONMENT,
        "PYTHONPATH": str(ROOT / "daemon"),
        "DEMIXD_CONFIG": str(folder / "demixd.toml"),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(song), str(folder / "out")],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout)


@pytest.mark.xdist_group("computing")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_song(tmp_path: Path) -> None:
    """With the model itself: the peak memory for an hour is within 100 MB of that for two minutes."""
    assert peak_mb(tmp_path / "long", 3600) < peak_mb(tmp_path / "short", 120) + 100


@pytest.mark.parametrize(
    "minutes", [pytest.param(30, marks=pytest.mark.daily), pytest.param(240, marks=pytest.mark.slow)]
)
@pytest.mark.xdist_group("computing")
def test_hours_take_the_memory_of_minutes(tmp_path: Path, minutes: int) -> None:
    """Four hours of audio (and half an hour) are within 10 % of the memory of five minutes."""
    assert peak_mb(tmp_path / "long", 60 * minutes, quick=True) < 1.1 * peak_mb(tmp_path / "short", 300, quick=True)
