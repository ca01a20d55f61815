"""What size costs: a model in full size stops soon, and a long song takes no more memory than a short one."""

import json
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

from daemons import ROOT, make_song, running
from demixd.engine.host import WORKER

FULL_SIZE: dict[str, Any] = {
    "sources": ["drums", "bass", "other", "vocals"],
    "channels": 48,
    "depth": 4,
    "t_layers": 5,
    "t_heads": 8,
    "bottom_channels": 512,
    "segment": Fraction(39, 5),
}


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


@pytest.mark.daily
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
        assert daemon.final("next.wav")["state"] == "done"
        assert daemon.read("_daemon.json")["worker"]["pid"] == worker


def peak_mb(folder: Path, seconds: float, *, quick: bool = False) -> float:
    """The peak memory in MB of a process, set up as a worker is, that separates a song of that length with the demo model.

    Its sound lies on the disk, as it does beyond the budget of memory, which a long song fills and a short one does not.
    `quick`: the network passes its input on, so that hours take minutes. All that could grow with the song is there.
    """
    folder.mkdir()
    song = folder / "song.flac"
    with soundfile.SoundFile(song, "w", 44100, 2) as file:
        minute = np.random.default_rng(0).uniform(-0.3, 0.3, (60 * 44100, 2)).astype(np.float32)
        for _ in range(int(seconds // 60)):
            file.write(minute)
    settings = '[model]\nname = "demo"\ndevice = "cpu"\n[limits]\nmemory_bytes = 0\n'
    (folder / "demixd.toml").write_text(settings)
    passes_on = "lambda self, mix: mix[:, None].expand(-1, len(self.sources), -1, -1) / 4"
    code = (
        "import resource, sys, demixd\n"
        + (f"from demucs.htdemucs import HTDemucs\nHTDemucs.forward = {passes_on}\n" if quick else "")
        + "demixd.separate_audio(sys.argv[1], sys.argv[2])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)"
    )
    env = {
        **WORKER,
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


@pytest.mark.slow
def test_memory_does_not_grow_with_the_song(tmp_path: Path) -> None:
    """With the model itself: the peak memory for an hour is within 100 MB of that for two minutes."""
    assert peak_mb(tmp_path / "long", 3600) < peak_mb(tmp_path / "short", 120) + 100


@pytest.mark.parametrize(
    "minutes", [pytest.param(30, marks=pytest.mark.daily), pytest.param(240, marks=pytest.mark.slow)]
)
def test_hours_take_the_memory_of_minutes(tmp_path: Path, minutes: int) -> None:
    """Four hours of audio (and half an hour) are within 10 % of the memory of five minutes."""
    assert peak_mb(tmp_path / "long", 60 * minutes, quick=True) < 1.1 * peak_mb(tmp_path / "short", 300, quick=True)
