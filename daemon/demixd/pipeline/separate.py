"""Separate: the engine makes one PCM file for each part that is needed, at the song's own rate and channels.

The model gets the song at the model's rate and channels (`mixture.f32`, written only where they differ), less its mean
and divided by its standard deviation, as `demucs.api.Separator` does it. The deviation is undone in each part, and the mean
is shared out among all that the model has, so that they add up to the song; `Separator` gives all of it to each of them.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from demixd.audio.pcm import PcmReader, PcmWriter
from demixd.audio.resample import model_ratio, resample
from demixd.engine import device as devices
from demixd.engine.engine import Engine
from demixd.engine.segments import Read, measure, normalised
from demixd.engine.separation import Plan, SegmentProgress, Separation, Song
from demixd.errors import AudioProcessingError, Code
from demixd.protocol.job import EngineFacts
from demixd.protocol.track import Track
from demixd.spool.files import open_own

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
    """Write `work/PART.f32` for each part in `needed`, exactly `track.frames` long; their paths, and the engine's facts.

    Where an engine fails at the song (out of memory, an error of its device, NaN), `Engine.fallback_after` gives another
    one, which does the whole song again, and the facts are that one's; `engine` itself can be used for the next song.
    Raises what `check` raises, BAD_OUTPUT, and `DeviceLostError`.
    """
    plan = Plan(needed=needed, overlap=overlap, shifts=shifts, seed=seed, check=check, progress=progress)
    mixture = work / "mixture.f32"
    same = track.rate == engine.rate and track.channels == engine.channels
    if not same:
        _write_mixture(track, song, mixture, engine, check)
    try:
        with PcmReader(song if same else mixture, engine.channels) as reader:
            while True:
                try:
                    return _write_parts(track, reader, work, engine, plan)
                except (RuntimeError, AudioProcessingError) as error:
                    engine = engine.fallback_after(error)
                    log.warning("%s: %s", engine.facts.fallback, error)
                # Outside the handler: the exception's traceback holds what the failed engine has on the device.
                devices.give_back()
    finally:
        mixture.unlink(missing_ok=True)


def _write_mixture(track: Track, song: Path, mixture: Path, engine: Engine, check: Callable[[], None]) -> None:
    """The song at the model's rate and channels, as a PCM file."""
    with PcmReader(song, track.channels) as reader, PcmWriter(open_own(mixture, "x+b")) as writer:
        blocks = (_to_channels(torch.from_numpy(block.T), engine.channels) for block in reader.blocks())
        for block in resample(blocks, model_ratio(track.rate, engine.rate)):
            check()
            writer.write(block.T.numpy())


def _to_channels(block: Tensor, channels: int) -> Tensor:
    """`[..., C, T]` with `channels` for C: mono goes to both, or the mean of both becomes one."""
    if block.shape[-2] == channels:
        return block
    if channels == 1:
        return block.mean(-2, keepdim=True)
    return block.expand(*block.shape[:-2], channels, block.shape[-1])


def _write_parts(
    track: Track, reader: PcmReader, work: Path, engine: Engine, plan: Plan
) -> tuple[dict[str, Path], EngineFacts]:
    """Stream the song through the engine, and each needed part into its PCM file."""
    level = measure(torch.from_numpy(block.T) for block in reader.blocks())
    read = normalised(_reading(reader), reader.frames, level)
    separation = Separation(engine, Song(read=read, frames=reader.frames), plan)
    paths = {part: work / f"{part}.f32" for part in separation.sources}
    mean = level.mean / len(engine.sources)
    parts = (_to_channels(block * level.std + mean, track.channels) for block in separation.blocks())
    back = 1 / model_ratio(track.rate, engine.rate)
    left = track.frames
    with ExitStack() as stack:
        writers = [stack.enter_context(PcmWriter(open_own(path, "x+b"))) for path in paths.values()]
        for block in resample(parts, back):
            block = block[..., :left]
            left -= block.shape[-1]
            for writer, part in zip(writers, block, strict=True):
                writer.write(part.T.contiguous().numpy())
        if left:
            raise AudioProcessingError(Code.BAD_OUTPUT, f"The stems are {left} frames shorter than the song.")
    return paths, separation.facts


def _reading(reader: PcmReader) -> Read:
    return lambda start, stop: torch.from_numpy(reader.read(start, stop)).T
