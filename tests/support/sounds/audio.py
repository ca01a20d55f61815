"""Audio for tests, generated: nothing here is music, all of it is the same every time."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from demixd.audio.pcm import BLOCK, Frames
from demixd.protocol.track import Track

MUSIC = Path(__file__).parents[4] / "shared" / "audio"
"""Real music beside the checkout; tests that want it skip where it is not."""


def tones(frames: int, *, rate: int = 44100, channels: int = 2, seed: int = 0) -> Frames:
    """`[T, C]`: another tone in each channel and a little noise, peak about 0.5."""
    t = np.arange(frames)[:, None] / rate
    pitch = 110.0 * 1.5 ** np.arange(channels)
    noise = np.random.default_rng(seed).standard_normal((frames, channels))
    return (0.4 * np.sin(2 * np.pi * pitch * t) + 0.02 * noise).astype(np.float32)


def blocks(audio: Frames, size: int = BLOCK) -> Iterator[Frames]:
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


def song(path: Path, audio: NDArray[np.floating], rate: int = 44100, **how: Any) -> Path:
    """A file as soundfile writes it; `how` is its format, subtype and so on."""
    soundfile.write(path, audio, rate, **how)
    return path


def bytes_at(path: Path, changes: dict[int, bytes]) -> Path:
    """Overwrites parts of a file, by position."""
    data = bytearray(path.read_bytes())
    for at, new in changes.items():
        data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


def track(**changes: object) -> Track:
    facts: dict[str, object] = {
        "format": "wav",
        "subtype": "PCM_16",
        "rate": 44100,
        "channels": 2,
        "song_channels": 2,
        "frames": 1000,
        "bitrate": None,
    }
    return Track(**(facts | changes))  # type: ignore[arg-type]


def nothing(*_: object) -> None:
    """A `check` that never stops, a `progress` that nobody sees."""


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A filesystem of `size` bytes on `folder`. Skips the test where this process may not mount."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs the right to mount; run as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
