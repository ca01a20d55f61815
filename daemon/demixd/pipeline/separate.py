"""Separate: the engine makes the stems that were asked for, at the song's own rate and channels, and they are measured.

    song --rate, channels, level--> engine: sums of parts --level, channels, rate--> + song --> one buffer a stem
                                                                                 |--> peaks, energies (`Survey`)

All of it happens on the engine's device, and what comes back are the stems. The model gets the song less its mean and divided
by its standard deviation, as `demucs.api.Separator` does it. The sums undo the deviation by their weights, and the mean is
shared out among all parts that the model has, so that they add up to the song; `Separator` gives all of it to each of them.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

import msgspec
import torch
from torch import Tensor

from demixd.audio.pcm import BLOCK, Pcm, Shelf
from demixd.audio.resample import model_ratio, resample
from demixd.engine import device as devices
from demixd.engine.engine import Engine
from demixd.engine.segments import cut, measure, normalised
from demixd.engine.separation import Plan, SegmentProgress, Separation, Song
from demixd.errors import AudioProcessingError, Code
from demixd.pipeline import mix
from demixd.protocol.job import EngineFacts
from demixd.protocol.track import Track

__all__ = ["SegmentProgress", "Survey", "separate"]

log = logging.getLogger(__name__)

STRETCH = 1 << 22
"""Frames of a song that a GPU holds at once, at least: 34 MB of stereo, less than any network takes."""

LEVEL_BLOCK = 1 << 18
"""Frames of which the level is taken at once: 2 MB, which a processor's caches hold."""


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of all stems that are needed before the first is written. `peaks`: linear, full scale 1."""

    peaks: dict[str, float]
    song: float
    """The mean square of the song's samples."""
    residual_db: float | None


def separate(
    track: Track,
    song: Pcm,
    shelf: Shelf,
    engine: Engine,
    *,
    recipe: mix.Recipe,
    overlap: float,
    shifts: int,
    seed: int,
    check: Callable[[], None],
    progress: Callable[[SegmentProgress], None],
) -> tuple[dict[str, Pcm], Survey, EngineFacts]:
    """The stems of `recipe`, each exactly `track.frames` long in a buffer of `shelf`; their measures, and the engine's facts.

    Where an engine fails at the song (out of memory, an error of its device, NaN), `Engine.fallback_after` gives another
    one, which does the whole song again, and the facts are that one's; `engine` itself can be used for the next song.
    Raises what `check` raises, NO_SPACE, TOO_LARGE, BAD_OUTPUT, OSError and `DeviceLostError`.
    """
    matrix = recipe.matrix(engine.sources)
    plan = Plan(mix=matrix, overlap=overlap, shifts=shifts, seed=seed, check=check, progress=progress)
    stems = {stem: shelf.new(track.frames, track.channels) for stem in recipe.separated}
    ratio, heard = model_ratio(track.rate, engine.rate), song
    if (track.rate, track.channels) != (engine.rate, engine.channels):
        heard = shelf.new(math.ceil(track.frames * ratio), engine.channels)
    while True:
        try:
            if heard is not song:
                _hear(song, heard, ratio, engine, check)
            survey, facts = _fill(stems, track, song, heard, engine, plan, recipe)
            return {stem: stems.get(stem, song) for stem in recipe.stems}, survey, facts
        except (RuntimeError, AudioProcessingError) as error:
            engine = engine.fallback_after(error)
            log.warning("%s: %s", engine.facts.fallback, error)
        # Outside the handler: the exception's traceback holds what the failed engine has on the device.
        devices.give_back()
        for stem in stems.values():
            stem.clear()


def _hear(song: Pcm, heard: Pcm, ratio: Fraction, engine: Engine, check: Callable[[], None]) -> None:
    """Fill `heard` with the song at the model's rate and channels, converted on the engine's device."""
    heard.clear()
    blocks = (_to_channels(block, heard.channels) for block in _OnDevice(song, engine.device).blocks(BLOCK))
    for block in devices.to_host(resample(blocks, ratio)):
        check()
        heard.append(block.T.numpy())


def _to_channels(block: Tensor, channels: int) -> Tensor:
    """`[..., C, T]` with `channels` for C: mono goes to both, or the mean of both becomes one."""
    if block.shape[-2] == channels:
        return block
    if channels == 1:
        return block.mean(-2, keepdim=True)
    return block.expand(*block.shape[:-2], channels, block.shape[-1])


def _fill(
    stems: Mapping[str, Pcm], track: Track, song: Pcm, heard: Pcm, engine: Engine, plan: Plan, recipe: mix.Recipe
) -> tuple[Survey, EngineFacts]:
    """Stream the song through the engine, and each stem into its buffer."""
    mixture = _OnDevice(heard, engine.device)
    level = measure(mixture.blocks(LEVEL_BLOCK))
    separation = Separation(
        engine,
        Song(read=normalised(mixture.read, heard.frames, level), frames=heard.frames),
        msgspec.structs.replace(plan, mix=[[weight * level.std for weight in row] for row in plan.mix]),
    )
    means = torch.tensor(plan.mix, device=engine.device).sum(1)[:, None, None] * (level.mean / len(engine.sources))
    sums = (_to_channels(block.add_(means), track.channels) for block in separation.blocks())
    at_its_rate = cut(resample(sums, 1 / model_ratio(track.rate, engine.rate)), 0, track.frames)
    measures = _Measures(recipe, mixture if heard is song else _OnDevice(song, engine.device))
    for block in devices.to_host(measures.of(at_its_rate)):
        for pcm, stem in zip(stems.values(), block, strict=True):
            pcm.append(stem.T.numpy())
    survey = measures.read()
    if measures.frames < track.frames:
        missing = track.frames - measures.frames
        raise AudioProcessingError(Code.BAD_OUTPUT, f"The stems are {missing} frames shorter than the song.")
    return survey, separation.facts


class _OnDevice:
    """A buffer as an engine's device sees it."""

    def __init__(self, pcm: Pcm, device: torch.device) -> None:
        self._pcm, self._device = pcm, device
        self.channels = pcm.channels
        self._first = self._last = 0
        self._held = torch.zeros(0)

    def read(self, start: int, stop: int) -> Tensor:
        """Frames `start` to `stop`, `[C, stop - start]`; frames outside the song are zero. Not to be written to."""
        if self._device.type == "cpu":
            return torch.from_numpy(self._pcm.read(start, stop)).T
        if not self._first <= start <= stop <= self._last:
            self._hold(start, stop)
        return self._held[:, start - self._first : stop - self._first]

    def _hold(self, start: int, stop: int) -> None:
        """Copy a stretch from `start` on to the device; where that does not fit, no more than up to `stop`."""
        self._held = torch.zeros(0)
        for last in (max(stop, min(start + STRETCH, self._pcm.frames)), stop):
            block = torch.from_numpy(self._pcm.read(start, last))
            try:
                self._held, self._first, self._last = devices.to_device(block, self._device).T, start, last
                return
            except torch.OutOfMemoryError:
                self._first = self._last = 0
                if last == stop:
                    raise
            devices.give_back()  # after the handler: its exception holds memory

    def blocks(self, size: int) -> Iterator[Tensor]:
        """All of it in order."""
        for start in range(0, self._pcm.frames, size):
            yield self.read(start, min(start + size, self._pcm.frames))


class _Measures:
    """Adds the song's own share to stems, and measures them. `frames`: how many have come."""

    def __init__(self, recipe: mix.Recipe, song: _OnDevice) -> None:
        self._names, self._song = recipe.separated, song
        rows = enumerate(recipe.stems[stem] for stem in self._names)
        self._shares = {number: row[mix.SONG] for number, row in rows if mix.SONG in row}
        self._cover = [self._names.index(stem) for stem in recipe.cover]
        self._masters = [stem for stem in recipe.stems if stem not in self._names]
        self._peaks = self._energies = torch.zeros(())
        self.frames = 0

    def of(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """The stems `[N, C, T]`, block by block, with the song's share."""
        for block in blocks:
            song = self._song.read(self.frames, self.frames + block.shape[-1])
            self.frames += block.shape[-1]
            for number, share in self._shares.items():
                block[number].add_(song, alpha=share)
            self._measure(block, song)
            yield block

    def _measure(self, block: Tensor, song: Tensor) -> None:
        sounds = [*block, *(song for _ in self._masters)]
        ends = [torch.aminmax(sound) for sound in sounds]
        # Of samples that are not numbers all of these make a peak that is none.
        peaks = torch.stack([torch.maximum(high, -low) for low, high in ends])
        energies = [_energy(song.T)]
        if self._cover:
            first, *others = self._cover
            left = block[first] - song
            for number in others:
                left += block[number]
            energies.append(_energy(left))
        self._peaks = torch.maximum(self._peaks.to(peaks.device), peaks)
        self._energies = self._energies.to(peaks.device) + torch.stack(energies)

    def read(self) -> Survey:
        """Raises BAD_OUTPUT where the model has made samples that are not numbers."""
        peaks = dict(zip((*self._names, *self._masters), self._peaks.tolist(), strict=True))
        if not all(map(math.isfinite, peaks.values())):
            raise AudioProcessingError(Code.BAD_OUTPUT, "The model made samples that are not numbers.")
        song, *rest = self._energies.tolist()
        return Survey(
            peaks=peaks,
            song=song / (self.frames * self._song.channels),
            residual_db=mix.residual_db(song, rest[0]) if rest else None,
        )


def _energy(sound: Tensor) -> Tensor:
    """The sum of squares, in float64."""
    flat = sound.reshape(-1)
    if flat.device.type == "cpu" and math.isfinite(found := torch.dot(flat, flat)):
        return found.double()
    return torch.dot(
        flat.double(), flat.double()
    )  # samples of float files may be larger than the root of float32's largest
