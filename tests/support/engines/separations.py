"""Networks with random weights, and their stems as the separate step and as Demucs make them."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demucs.api import Separator
from demucs.apply import BagOfModels
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from demixd.audio.budget import Budget
from demixd.audio.pcm import Shelf
from demixd.engine.engine import Engine
from demixd.pipeline import mix
from demixd.pipeline.separate import SegmentProgress, separate
from demixd.protocol.job import EngineFacts
from demixd.protocol.track import Track

SOURCES = ["drums", "bass", "other", "vocals"]


SMALL = {"channels": 8, "depth": 4, "t_layers": 1, "t_heads": 2, "bottom_channels": 32}


def loud(model: torch.nn.Module) -> torch.nn.Module:
    """LayerScale starts at 1e-4, which would hide every branch behind it."""
    for module in model.modules():
        if type(module).__name__ == "LayerScale":
            module.scale.data.fill_(0.3)  # type: ignore[union-attr, operator]
    return model.eval()


def htdemucs(seed: int, **how: Any) -> HTDemucs:
    torch.manual_seed(seed)
    full = {"channels": 48, "t_layers": 5, "t_heads": 8, "bottom_channels": 512, "segment": Fraction(39, 5)}
    return loud(HTDemucs(sources=SOURCES, dconv_mode=3, **{**full, **how}))  # type: ignore[return-value]


def full_size() -> BagOfModels:
    return BagOfModels([htdemucs(0)])


def unequal_bag() -> BagOfModels:
    members = [htdemucs(seed, segment=Fraction(39, 10), **SMALL) for seed in (1, 2)]
    return BagOfModels(members, weights=[[1.0, 0.5, 2.0, 1.0], [0.25, 1.0, 1.0, 3.0]])


def hdemucs() -> BagOfModels:
    torch.manual_seed(3)
    return BagOfModels([loud(HDemucs(sources=SOURCES, channels=8, segment=4))])


def generated(seconds: float, rate: int = 44100, channels: int = 2) -> torch.Tensor:
    rng = np.random.default_rng(5)
    t = np.arange(int(seconds * rate)) / rate
    swell = 0.3 * np.sin(2 * np.pi * 0.3 * t) * np.sin(2 * np.pi * 220 * t)
    return torch.tensor(swell + 0.1 * rng.standard_normal((channels, len(t))) + 0.01, dtype=torch.float32)


class Reference(Separator):
    """Demucs' own Separator around a model that is at hand."""

    def __init__(self, bag: BagOfModels, *, overlap: float = 0.25, shifts: int = 0) -> None:
        self._bag = bag
        super().__init__(device="cpu", overlap=overlap, shifts=shifts)

    def _load_model(self) -> None:
        self._model = self._bag
        self._audio_channels, self._samplerate = self._bag.audio_channels, self._bag.samplerate


def nothing(*_: object) -> None:
    """Nobody stops, nobody listens."""


def warm(bag: BagOfModels, **how: Any) -> Engine:
    return Engine.warm(bag, name="test", sha256="0", device="cpu", **how)


def ours(bag: BagOfModels, song: torch.Tensor, rate: int, folder: Path, **how: Any) -> dict[str, torch.Tensor]:
    """Each source as the separate step writes it, `[C, T]`."""
    return separated(bag, song, rate, folder, **how)[0]


def separated(
    bag: BagOfModels,
    song: torch.Tensor,
    rate: int,
    folder: Path,
    *,
    engine: Engine | None = None,
    check: Callable[[], None] = nothing,
    progress: Callable[[SegmentProgress], None] = nothing,
    shifts: int = 0,
    overlap: float = 0.25,
    memory_bytes: int = 1 << 30,
    stems: Sequence[str] = (),
) -> tuple[dict[str, torch.Tensor], EngineFacts]:
    """The same, and what made them."""
    engine = engine or warm(bag)
    channels, frames = song.shape
    shelf = Shelf(Budget(memory_bytes), (folder,))
    pcm = shelf.new(frames, channels)
    pcm.append(song.T.numpy().astype("<f4"))
    track = Track(
        format="wav", subtype="FLOAT", rate=rate, channels=channels, song_channels=channels, frames=frames, bitrate=None
    )
    made, _, facts = separate(
        track,
        pcm,
        shelf,
        engine,
        recipe=mix.recipe(stems or engine.sources, engine.sources),
        overlap=overlap,
        shifts=shifts,
        seed=1,
        check=check,
        progress=progress,
    )
    assert all(stem.frames == frames for stem in made.values())
    return {name: torch.from_numpy(stem.read(0, frames).T.copy()) for name, stem in made.items()}, facts


def worst(reference: dict[str, torch.Tensor], stems: dict[str, torch.Tensor]) -> float:
    """The lowest SDR of all stems in dB, each less its mean: Demucs gives the song's whole mean to every stem."""
    return min(_sdr(_level(ref), _level(stems[name])) for name, ref in reference.items())


def _level(stem: torch.Tensor) -> torch.Tensor:
    return stem.double() - stem.double().mean()


def _sdr(reference: torch.Tensor, stem: torch.Tensor) -> float:
    return 10 * math.log10(float((reference**2).sum() / ((reference - stem) ** 2).sum()))


def short_bag() -> BagOfModels:
    """Small, and with short segments: many of them in a short song."""
    members = [htdemucs(seed, segment=Fraction(39, 40), **SMALL) for seed in (1, 2)]
    return BagOfModels(members, weights=[[1.0, 0.5, 2.0, 1.0], [0.25, 1.0, 1.0, 3.0]])
