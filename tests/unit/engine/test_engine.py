"""The engine against Demucs itself: same weights, float32, better than 80 dB on every stem."""

import itertools
import math
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import soundfile
import torch
from demucs.apply import BagOfModels
from torchaudio.functional import resample

from demixd.errors import AudioProcessingError, Code, StopProcessingError
from demixd.pipeline.separate import SegmentProgress
from separations import (
    SMALL,
    SOURCES,
    Reference,
    full_size,
    generated,
    hdemucs,
    htdemucs,
    ours,
    short_bag,
    unequal_bag,
    warm,
    worst,
)

MUSIC = Path(__file__).parents[4] / "shared" / "audio" / "mardy20s.flac"


def twelve() -> torch.Tensor:
    return generated(12.0)


def music() -> torch.Tensor:
    if not MUSIC.exists():
        pytest.skip("no real music beside the repository (../shared/audio)")
    return torch.from_numpy(soundfile.read(MUSIC, dtype="float32", always_2d=True)[0].T.copy())


@pytest.mark.parametrize(
    ("make", "song"),
    [
        *(pytest.param(full_size, song, marks=pytest.mark.daily) for song in (twelve, music)),
        (hdemucs, twelve),
        *(pytest.param(*each, marks=pytest.mark.daily) for each in ((unequal_bag, music), (unequal_bag, twelve))),
        pytest.param(hdemucs, music, marks=pytest.mark.daily),
    ],
)
def test_equals_demucs(make: Callable[[], BagOfModels], song: Callable[[], torch.Tensor], tmp_path: Path) -> None:
    """A full-size htdemucs, a bag of two with unequal weights, and an HDemucs, all with random weights."""
    bag, wave = make(), song()
    _, reference = Reference(bag).separate_tensor(wave)
    assert worst(reference, ours(bag, wave, 44100, tmp_path)) > 80


@pytest.mark.daily
@pytest.mark.parametrize("frames", [1, 2, 1000, 171990, 171991, 128992, 128993, 257984])
def test_equals_demucs_at_every_length(frames: int, tmp_path: Path) -> None:
    """A sample, a segment, a stride, and one more."""
    bag = BagOfModels([htdemucs(4, segment=Fraction(39, 10), **SMALL)])
    song = generated(7.0)[:, :frames]
    stems = ours(bag, song, 44100, tmp_path)
    if frames > 1:  # a single sample has no deviation: Demucs answers NaN, we answer
        _, reference = Reference(bag).separate_tensor(song)
        assert worst(reference, stems) > 80
    assert all(torch.isfinite(stem).all() for stem in stems.values())


def test_equals_demucs_at_48_khz_and_mono(tmp_path: Path) -> None:
    """At another rate and in mono, against Demucs on the same resampled input, resampled back."""
    bag, song = unequal_bag(), generated(6.1, rate=48000, channels=1)
    heard = resample(song, 48000, 44100).expand(2, -1)
    _, reference = Reference(bag).separate_tensor(heard)
    more = heard.mean() * (1 - 1 / len(reference))  # of the song's mean, which rings where a resampled stem ends
    back = {
        name: resample(stem - more, 44100, 48000)[:, : song.shape[1]].mean(0, keepdim=True)
        for name, stem in reference.items()
    }
    assert worst(back, ours(bag, song, 48000, tmp_path)) > 80


def demucs_with_our_lags(monkeypatch: pytest.MonkeyPatch, seed: int, members: int, shifts: int) -> None:
    """Demucs draws how far it shifts from the global dice; here it gets what our engine draws for this seed."""
    dice = [random.Random(f"{seed} {place + 1}") for place in range(members)]
    drawn = iter([each.randint(0, 22050) for each in dice for _ in range(shifts)])
    monkeypatch.setattr("demucs.apply.random.randint", lambda *_: next(drawn))


@pytest.mark.daily
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
    _, reference = Reference(bag, overlap=overlap, shifts=shifts).separate_tensor(song)
    assert worst(reference, stems) > 80


def test_an_hdemucs_in_batches(tmp_path: Path) -> None:
    """A model without a segment of its own gets shorter windows at the end; they go by themselves."""
    bag, song = hdemucs(), generated(9.5)
    _, reference = Reference(bag).separate_tensor(song)
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


@pytest.mark.parametrize("shifts", [0, pytest.param(2, marks=pytest.mark.daily)])
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
    bag = BagOfModels(members, weights=[[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    engine = warm(bag)
    assert engine.alone == frozenset(SOURCES)
    ran = []
    members[0].register_forward_pre_hook(lambda *_: ran.append("first"))
    stems = ours(bag, generated(3.0), 44100, tmp_path, engine=engine, stems=["vocals"])
    assert set(stems) == {"vocals"}
    assert ran == []


def test_not_a_number_from_the_model(tmp_path: Path) -> None:
    """A model that answers NaN on the CPU is `bad-output`."""
    bag = unequal_bag()
    engine = warm(bag)
    next(engine.members[0].parameters()).data.fill_(math.nan)
    with pytest.raises(AudioProcessingError) as error:
        ours(bag, generated(3.0), 44100, tmp_path, engine=engine)
    assert error.value.code is Code.BAD_OUTPUT
