"""Separate: the song's spool through the engine into one spool a source, at the song's own rate and channels.

What the model hears is the song at the model's rate and channels (`mixture.f32`, only where they differ), less its mean
and divided by its standard deviation, as `demucs.api.Separator` does it; both are undone on the way out.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from demixd.audio.pcm import SpoolReader, SpoolWriter
from demixd.audio.resample import model_ratio, resample
from demixd.engine import device as devices
from demixd.engine.engine import Engine
from demixd.engine.segments import Read, measure, normalised
from demixd.engine.separation import Plan, SegmentProgress, Separation, Song
from demixd.errors import AudioProcessingError, Code
from demixd.protocol.job import EngineFacts
from demixd.protocol.track import Track

__all__ = ["SegmentProgress", "separate"]

log = logging.getLogger(__name__)


def separate(
    track: Track,
    song: Path,
    work: Path,
    engine: Engine,
    *,
    needed: frozenset[str],
    overlap: float,
    shifts: int,
    seed: int,
    check: Callable[[], None],
    progress: Callable[[SegmentProgress], None],
) -> tuple[dict[str, Path], EngineFacts]:
    """Write `work/SOURCE.f32` for every needed source, exactly `track.frames` long; and what made them.

    Where an engine fails at the song (out of memory, an error of its device, NaN), the whole song is done again by the
    next one of `Engine.fallback_after`, and the facts say so; the engine itself is as good as before. Raises what `check`
    raises, BAD_OUTPUT, and `DeviceLostError`.
    """
    plan = Plan(needed=needed, overlap=overlap, shifts=shifts, seed=seed, check=check, progress=progress)
    heard = work / "mixture.f32"
    same = track.rate == engine.rate and track.channels == engine.channels
    if not same:
        _hear(track, song, heard, engine, check)
    try:
        with SpoolReader(song if same else heard, engine.channels) as reader:
            while True:
                try:
                    return _write(track, reader, work, engine, plan)
                except (RuntimeError, AudioProcessingError) as error:
                    engine = engine.fallback_after(error)
                    log.warning("%s: %s", engine.facts.fallback, error)
                # Here and not there: what the failed engine held is only given up when its exception is.
                devices.give_back()
    finally:
        heard.unlink(missing_ok=True)


def _hear(track: Track, song: Path, heard: Path, engine: Engine, check: Callable[[], None]) -> None:
    """The song at the model's rate and channels, as a spool."""
    with SpoolReader(song, track.channels) as reader, SpoolWriter(heard) as writer:
        blocks = (_to_channels(torch.from_numpy(block.T), engine.channels) for block in reader.blocks())
        for block in resample(blocks, model_ratio(track.rate, engine.rate)):
            check()
            writer.write(block.T.numpy())


def _to_channels(block: Tensor, channels: int) -> Tensor:
    """`[..., C, T]`: mono to both sides, or the mean of both where one is wanted."""
    if block.shape[-2] == channels:
        return block
    if channels == 1:
        return block.mean(-2, keepdim=True)
    return block.expand(*block.shape[:-2], channels, block.shape[-1])


def _write(
    track: Track, reader: SpoolReader, work: Path, engine: Engine, plan: Plan
) -> tuple[dict[str, Path], EngineFacts]:
    """Stream the song through the engine and each needed source into its spool."""
    level = measure(torch.from_numpy(block.T) for block in reader.blocks())
    read = normalised(_reading(reader), reader.frames, level)
    separation = Separation(engine, Song(read=read, frames=reader.frames), plan)
    paths = {source: work / f"{source}.f32" for source in separation.sources}
    sources = (_to_channels(block * level.std + level.mean, track.channels) for block in separation.blocks())
    back = 1 / model_ratio(track.rate, engine.rate)
    left = track.frames
    with ExitStack() as stack:
        writers = [stack.enter_context(SpoolWriter(path)) for path in paths.values()]
        for block in resample(sources, back):
            block = block[..., :left]
            left -= block.shape[-1]
            for writer, source in zip(writers, block, strict=True):
                writer.write(source.T.contiguous().numpy())
        if left:
            raise AudioProcessingError(Code.BAD_OUTPUT, f"The stems are {left} frames shorter than the song.")
    return paths, separation.facts


def _reading(reader: SpoolReader) -> Read:
    return lambda start, stop: torch.from_numpy(reader.read(start, stop)).T
