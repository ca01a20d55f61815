"""The stems of a song become files: mixed, written, measured, tagged, and read back.

    PCM files --Mixer--> blocks [T, C] at the target's rate --encode--> file
                                          |--> loudness, silence

As many stems are written at once as there are cores: libsndfile and FFmpeg release Python's lock.
"""

import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from demixd.audio.ffmpeg import stemfile
from demixd.audio.formats import Target
from demixd.audio.pcm import BLOCK, Frames, PcmReader
from demixd.audio.resample import resample_frames
from demixd.audio.streams import Facts
from demixd.errors import StopProcessingError
from demixd.pipeline import encode, mix
from demixd.pipeline.metering import Metering
from demixd.pipeline.tagging import Tagger
from demixd.protocol.job import StemFile
from demixd.protocol.options import Options
from demixd.protocol.result_names import ONE_FILE, file_name
from demixd.protocol.track import Track
from demixd.spool import nofollow

REPORT_S = 0.2
"""How often progress is reported while stems are written."""

Check = Callable[[], None]
Progress = Callable[[float], None]
"""Gets the fraction that is done, 0 to 1."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One song's work: `song` is read, `tmp` takes the PCM files, `out` the stems. `seed` fixes all that is random.

    `name` is the song's own name (that of `song` is a snapshot's), from which its stems get theirs.
    """

    song: Path
    name: str
    tmp: Path
    out: Path
    options: Options
    max_duration_s: float
    seed: int


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of all stems that are needed before the first is written. `peaks`: linear, full scale 1."""

    peaks: dict[str, float]
    song: float
    """The mean square of the song's frames."""
    residual_db: float | None


class Mixer:
    """Mixes stems block by block from the PCM files of the song (`mix.SONG`) and its parts."""

    def __init__(self, pcm: Mapping[str, Path], track: Track, recipe: mix.Recipe) -> None:
        self._pcm, self._track, self._recipe = pcm, track, recipe

    @property
    def stems(self) -> tuple[str, ...]:
        return tuple(self._recipe.stems)

    def frames(self, target: Target) -> int:
        """The number of frames of each stem at the target's rate: the song's own where the rates are the same."""
        return -(-self._track.frames * target.rate // self._track.rate)

    def stem(self, stem: str, target: Target) -> Iterator[Frames]:
        """One stem's blocks `[T, target.channels]` at the target's rate; a mono song is on both sides."""
        row = self._recipe.stems[stem]
        blocks = (mix.blend(each, each[mix.SONG], row) for each in self._read({*row, mix.SONG}))
        copies = target.channels // self._track.channels
        return (np.repeat(each, copies, axis=1) for each in resample_frames(blocks, self._track.rate, target.rate))

    def survey(self, target: Target, check: Check, progress: Progress) -> Survey:
        """Measure in one pass over all parts; where stems are resampled, in one more for each, since that changes its peak."""
        peaks = dict.fromkeys(self._recipe.stems, 0.0)
        song = rest = 0.0
        passes = 1 if target.rate == self._track.rate else 1 + len(peaks)
        total, done = passes * self._track.frames / BLOCK, 0

        def advance() -> None:
            nonlocal done
            check()
            done += 1
            progress(min(1.0, done / total))

        for blocks in self._read({*self._recipe.needed, mix.SONG}):
            advance()
            whole = blocks[mix.SONG]
            made = {stem: mix.blend(blocks, whole, row) for stem, row in self._recipe.stems.items()}
            peaks = {stem: max(peaks[stem], mix.peak(block)) for stem, block in made.items()}
            song += float(np.square(whole, dtype=np.float64).sum())
            if self._recipe.cover:
                left = sum((made[stem] for stem in self._recipe.cover), start=-whole)
                rest += float(np.square(left, dtype=np.float64).sum())
        if passes > 1:
            peaks = {stem: self._peak(stem, target, advance) for stem in peaks}
        return Survey(
            peaks=peaks,
            song=song / (self._track.frames * self._track.channels),
            residual_db=mix.residual_db(song, rest) if self._recipe.cover else None,
        )

    def _peak(self, stem: str, target: Target, advance: Check) -> float:
        highest = 0.0
        for block in self.stem(stem, target):
            advance()
            highest = max(highest, mix.peak(block))
        return highest

    def _read(self, names: set[str]) -> Iterator[dict[str, Frames]]:
        with ExitStack() as stack:
            readers = {name: stack.enter_context(PcmReader(self._pcm[name], self._track.channels)) for name in names}
            for start in range(0, self._track.frames, BLOCK):
                stop = min(start + BLOCK, self._track.frames)
                yield {name: reader.read(start, stop) for name, reader in readers.items()}


class StemWriter:
    """Writes all stems of one song."""

    def __init__(self, order: Order, mixer: Mixer, target: Target, survey: Survey, gain: float, tagger: Tagger) -> None:
        self._order, self._mixer, self._target = order, mixer, target
        self._survey, self._gain, self._tagger = survey, gain, tagger
        self._failed = threading.Event()

    def write_all(self, check: Check, progress: Progress) -> tuple[StemFile, ...]:
        """The files, in the order of the stems asked for. Raises `AudioProcessingError`, and what `check` raises."""
        stems = self._mixer.stems
        blocks = [0] * len(stems)
        total = len(stems) * -(-self._mixer.frames(self._target) // BLOCK)

        def write(number: int) -> StemFile:
            def count() -> None:
                check()
                if self._failed.is_set():
                    raise StopProcessingError("another stem of the song could not be written")
                blocks[number] += 1

            return self._write(stems[number], count)

        with ThreadPoolExecutor(min(len(stems), os.cpu_count() or 1), "encode") as pool:
            written = [pool.submit(write, number) for number in range(len(stems))]
            try:
                left = set(written)
                while left:
                    progress(min(1.0, sum(blocks) / total))
                    ended, left = wait(left, REPORT_S, FIRST_COMPLETED)
                    for future in ended:
                        future.result()
            except BaseException:
                self._failed.set()  # the others end at their next block, and the pool with them
                raise
        files = tuple(future.result() for future in written)
        return (self._joined(files, check),) if self._order.options.naming == ONE_FILE else files

    def _write(self, stem: str, check: Check) -> StemFile:
        """One stem, written, read back and measured: in `out`, or in `tmp` where it becomes a stream of one file."""
        order, target = self._order, self._target
        one_file = order.options.naming == ONE_FILE
        name = f"{stem}.{target.suffix}" if one_file else self._name(stem)
        folder = None if one_file else self._folder(name)
        path = (folder.path if folder else order.tmp) / name.rpartition("/")[2]
        with Metering(target.rate, target.channels) as metering:
            how = encode.Manner(
                stem=stem,
                check=check,
                gain=self._gain,
                clamp=order.options.clip == "clamp",
                seed=order.seed ^ zlib.crc32(stem.encode()),
                measure=metering.feed,
                tag=lambda written: None if one_file else self._tagger.tag(written, stem, target.format),
            )
            frames = self._mixer.frames(target)
            written = encode.write(self._mixer.stem(stem, target), path, target, frames=frames, how=how)
            encode.verify(path, written, frames, check)
            sound = metering.read(self._survey.song * self._gain**2)
        return msgspec.structs.replace(written, name=name, sound=sound)

    def _name(self, stem: str) -> str:
        options = self._order.options
        return file_name(options.naming, stem=stem, ext=self._target.suffix, model=options.model, leaf=self._order.name)

    def _folder(self, name: str) -> nofollow.Pin:
        """The folder in `out` of a file called `name`, made if missing and held open; no link below `out` is followed."""
        out = self._order.out
        # `out` must be there: only what is below it is made.
        folder = (out / name).parent
        with nofollow.reach(out, folder, make=out, follow=True) as handle:
            return nofollow.Pin(handle, folder)

    def _joined(self, files: tuple[StemFile, ...], check: Check) -> StemFile:
        """The one file whose streams are the song and its stems."""
        master, *_ = files
        name = self._name(ONE_FILE)
        folder = self._folder(name)
        path = folder.path / name.rpartition("/")[2]
        paths = [self._order.tmp / file.name for file in files]
        size, digest = encode.finish(
            path,
            self._target,
            lambda new: stemfile.write(new, paths),
            lambda written: self._tagger.tag(written, None, self._target.format),
        )
        encode.verify_streams(path, [_facts(file) for file in files], check)
        for each in paths:
            each.unlink()
        return msgspec.structs.replace(
            master,
            stem=ONE_FILE,
            name=name,
            bytes=size,
            sha256=digest,
            peak=max(file.peak for file in files),
            streams={file.stem: file.sound for file in files if file.sound},
        )


def _facts(file: StemFile) -> Facts:
    return Facts(subtype=file.subtype, rate=file.rate, channels=file.channels, frames=file.frames)
