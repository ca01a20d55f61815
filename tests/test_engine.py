"""The engine against Demucs itself: same weights, float32, better than 80 dB on every stem."""

import itertools
import math
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from demucs.api import Separator
from demucs.apply import BagOfModels
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from torchaudio.functional import resample

from demixd.audio.pcm import PcmReader
from demixd.engine.engine import Engine
from demixd.errors import AudioProcessingError, Code, StopProcessingError
from demixd.pipeline.separate import SegmentProgress, separate
from demixd.protocol.job import EngineFacts
from demixd.protocol.track import Track

MUSIC = Path(__file__).parents[1].parent / "shared" / "audio" / "mardy20s.flac"
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


class _Reference(Separator):
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
) -> tuple[dict[str, torch.Tensor], EngineFacts]:
    """The same, and what made them."""
    engine = engine or warm(bag)
    spool = folder / "song.f32"
    spool.write_bytes(song.T.contiguous().numpy().astype("<f4").tobytes())
    channels, frames = song.shape
    track = Track(
        format="wav", subtype="FLOAT", rate=rate, channels=channels, song_channels=channels, frames=frames, bitrate=None
    )
    spools, facts = separate(
        track,
        spool,
        folder,
        engine,
        needed=frozenset(engine.sources),
        overlap=overlap,
        shifts=shifts,
        seed=1,
        check=check,
        progress=progress,
    )
    stems = {}
    for source, path in spools.items():
        with PcmReader(path, channels) as reader:
            assert reader.frames == frames
            stems[source] = torch.from_numpy(reader.read(0, frames).T.copy())
    return stems, facts


def worst(reference: dict[str, torch.Tensor], stems: dict[str, torch.Tensor]) -> float:
    """The lowest SDR of all stems in dB."""
    return min(
        10 * math.log10(float((ref.double() ** 2).sum() / ((ref.double() - stems[name].double()) ** 2).sum()))
        for name, ref in reference.items()
    )


def twelve() -> torch.Tensor:
    return generated(12.0)


def music() -> torch.Tensor:
    if not MUSIC.exists():
        pytest.skip("no real music beside the repository (../shared/audio)")
    return torch.from_numpy(soundfile.read(MUSIC, dtype="float32", always_2d=True)[0].T.copy())


@pytest.mark.parametrize(
    ("make", "song"),
    [
        (full_size, twelve),
        pytest.param(full_size, music, marks=pytest.mark.slow),
        *((make, song) for make in (unequal_bag, hdemucs) for song in (music, twelve)),
    ],
)
def test_equals_demucs(make: Callable[[], BagOfModels], song: Callable[[], torch.Tensor], tmp_path: Path) -> None:
    """A full-size htdemucs, a bag of two with unequal weights, and an HDemucs, all with random weights."""
    bag, wave = make(), song()
    _, reference = _Reference(bag).separate_tensor(wave)
    assert worst(reference, ours(bag, wave, 44100, tmp_path)) > 80


@pytest.mark.parametrize("frames", [1, 2, 1000, 171990, 171991, 128992, 128993, 257984])
def test_equals_demucs_at_every_length(frames: int, tmp_path: Path) -> None:
    """A sample, a segment, a stride, and one more."""
    bag = BagOfModels([htdemucs(4, segment=Fraction(39, 10), **SMALL)])
    song = generated(7.0)[:, :frames]
    stems = ours(bag, song, 44100, tmp_path)
    if frames > 1:  # a single sample has no deviation: Demucs answers NaN, we answer
        _, reference = _Reference(bag).separate_tensor(song)
        assert worst(reference, stems) > 80
    assert all(torch.isfinite(stem).all() for stem in stems.values())


def test_equals_demucs_at_48_khz_and_mono(tmp_path: Path) -> None:
    """At another rate and in mono, against Demucs on the same resampled input, resampled back."""
    bag, song = unequal_bag(), generated(6.1, rate=48000, channels=1)
    heard = resample(song, 48000, 44100).expand(2, -1)
    _, reference = _Reference(bag).separate_tensor(heard)
    back = {
        name: resample(stem, 44100, 48000)[:, : song.shape[1]].mean(0, keepdim=True) for name, stem in reference.items()
    }
    assert worst(back, ours(bag, song, 48000, tmp_path)) > 80


def demucs_with_our_lags(monkeypatch: pytest.MonkeyPatch, seed: int, members: int, shifts: int) -> None:
    """Demucs draws how far it shifts from the global dice; here it gets what our engine draws for this seed."""
    dice = [random.Random(f"{seed} {place + 1}") for place in range(members)]
    drawn = iter([each.randint(0, 22050) for each in dice for _ in range(shifts)])
    monkeypatch.setattr("demucs.apply.random.randint", lambda *_: next(drawn))


def short_bag() -> BagOfModels:
    """Small, and with short segments: many of them in a short song."""
    members = [htdemucs(seed, segment=Fraction(39, 40), **SMALL) for seed in (1, 2)]
    return BagOfModels(members, weights=[[1.0, 0.5, 2.0, 1.0], [0.25, 1.0, 1.0, 3.0]])


@pytest.mark.parametrize("seconds", [0.4, 3.7], ids=["shorter than a segment", "longer"])
@pytest.mark.parametrize("shifts", [0, 2])
@pytest.mark.parametrize("overlap", [0.1, 0.5])
@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_equals_demucs_in_every_batch(
    batch: int, overlap: float, shifts: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of a batch, the overlap and the shifts: the stems are those of Demucs."""
    bag, song = short_bag(), generated(seconds)
    stems = ours(bag, song, 44100, tmp_path, engine=warm(bag, batch=batch), overlap=overlap, shifts=shifts)
    demucs_with_our_lags(monkeypatch, 1, len(bag.models), shifts)
    _, reference = _Reference(bag, overlap=overlap, shifts=shifts).separate_tensor(song)
    assert worst(reference, stems) > 80


def test_an_hdemucs_in_batches(tmp_path: Path) -> None:
    """A model without a segment of its own gets shorter windows at the end; they go by themselves."""
    bag, song = hdemucs(), generated(9.5)
    _, reference = _Reference(bag).separate_tensor(song)
    assert worst(reference, ours(bag, song, 44100, tmp_path, engine=warm(bag, batch=4))) > 80


def test_progress_counts_every_segment(tmp_path: Path) -> None:
    """In batches too: up to the total, by as many as were done, and of the right model."""
    bag, song = short_bag(), generated(3.7)
    seen: list[SegmentProgress] = []
    ours(bag, song, 44100, tmp_path, engine=warm(bag, batch=2), shifts=2, progress=seen.append)
    counted = [each.done for each in seen]
    assert counted == sorted(set(counted))
    assert counted[-1] == seen[-1].total
    assert {each.model for each in seen} == {1, 2}
    assert {later - before for before, later in itertools.pairwise([0, *counted])} <= {1, 2}


@pytest.mark.parametrize("shifts", [0, 2])
def test_same_song_same_stems(shifts: int, tmp_path: Path) -> None:
    """The same song twice gives the same samples, with shifts too."""
    bag, song = unequal_bag(), generated(5.0)
    first, second = (ours(bag, song, 44100, tmp_path, shifts=shifts) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in SOURCES)


def test_stop_within_a_segment(tmp_path: Path) -> None:
    """A stop is felt between the layers, and the engine is good for the next song."""
    bag, song = unequal_bag(), generated(5.0)
    engine = warm(bag)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:  # the first is the step's own, so this one comes from inside the first segment
            raise StopProcessingError("stop")

    segments: list[SegmentProgress] = []
    with pytest.raises(StopProcessingError):
        ours(bag, song, 44100, tmp_path, engine=engine, check=check, progress=segments.append)
    assert segments == []
    assert torch.isfinite(ours(bag, song, 44100, tmp_path, engine=engine)["vocals"]).all()


def test_idle_members_are_not_run(tmp_path: Path) -> None:
    """A specialist that nothing is asked of is not run."""
    members = [htdemucs(seed, segment=Fraction(39, 10), **SMALL) for seed in (1, 2)]
    engine = warm(BagOfModels(members, weights=[[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    assert engine.alone == frozenset(SOURCES)
    ran = []
    members[0].register_forward_pre_hook(lambda *_: ran.append("first"))
    spool = tmp_path / "song.f32"
    spool.write_bytes(generated(3.0).T.contiguous().numpy().tobytes())
    track = Track(
        format="wav", subtype="FLOAT", rate=44100, channels=2, song_channels=2, frames=3 * 44100, bitrate=None
    )
    spools, _ = separate(
        track,
        spool,
        tmp_path,
        engine,
        needed=frozenset({"vocals"}),
        overlap=0.25,
        shifts=0,
        seed=1,
        check=nothing,
        progress=nothing,
    )
    assert set(spools) == {"vocals"}
    assert ran == []


def test_not_a_number_from_the_model(tmp_path: Path) -> None:
    """A model that answers NaN on the CPU is `bad-output`."""
    bag = unequal_bag()
    engine = warm(bag)
    next(engine.members[0].parameters()).data.fill_(math.nan)
    with pytest.raises(AudioProcessingError) as error:
        ours(bag, generated(3.0), 44100, tmp_path, engine=engine)
    assert error.value.code is Code.BAD_OUTPUT
