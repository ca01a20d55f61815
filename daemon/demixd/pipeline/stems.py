"""The stems of a song become files: written, measured, tagged, and read back.

    buffers --> blocks [T, C] at the target's rate --encode--> file
                                     |--> loudness, silence

As many stems are written at once as there are cores: libsndfile and FFmpeg release Python's lock.
"""

import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import msgspec
import numpy as np

from demixd.audio.ffmpeg import rates, stemfile
from demixd.audio.formats import Target
from demixd.audio.pcm import BLOCK, Frames, Pcm
from demixd.audio.streams import Facts
from demixd.audio.waveform import Waveform, document, measured
from demixd.errors import StopProcessingError
from demixd.pipeline import encode
from demixd.pipeline.metering import Metering
from demixd.pipeline.separate import Survey
from demixd.pipeline.tagging import Tagger
from demixd.protocol.job import ExtraFile, StemFile
from demixd.protocol.options import Options
from demixd.protocol.pages import player
from demixd.protocol.result_names import ONE_FILE, PAGE, PEAKS, file_name
from demixd.protocol.track import Track
from demixd.spool import nofollow
from demixd.spool.files import open_own, sync

CORES = os.cpu_count() or 1

REPORT_S = 0.2
"""How often progress is reported while stems are written."""

Check = Callable[[], None]
Progress = Callable[[float], None]
"""Gets the fraction that is done, 0 to 1."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One song's work: `song` is read, `tmp` takes what is in between, `out` the stems. `seed` fixes all that is random.

    `name` is the song's own name (that of `song` is a snapshot's), from which its stems get theirs.
    """

    song: Path
    name: str
    tmp: Path
    out: Path
    options: Options
    max_duration_s: float
    seed: int


class Separated(msgspec.Struct, frozen=True, kw_only=True):
    """The stems of a song, `track`, at its own rate and channels."""

    track: Track
    stems: Mapping[str, Pcm]
    survey: Survey

    def frames(self, target: Target) -> int:
        """The number of frames of each stem at the target's rate: the song's own where the rates are the same."""
        return -(-self.track.frames * target.rate // self.track.rate)

    def blocks(self, stem: str, target: Target) -> Iterator[Frames]:
        """One stem's blocks `[T, target.channels]` at the target's rate; a mono song is on both sides."""
        copies = target.channels // self.track.channels
        blocks = rates.converted(self.stems[stem].blocks(), self.track.rate, target.rate)
        return (np.repeat(each, copies, axis=1) for each in blocks) if copies > 1 else blocks

    def peaks(self, target: Target, check: Check, progress: Progress) -> dict[str, float]:
        """The stems' peaks as `target` has them: another rate changes them, and takes a pass over each stem."""
        if target.rate == self.track.rate:
            return self.survey.peaks
        total, done = len(self.stems) * -(-self.frames(target) // BLOCK), 0
        peaks = dict.fromkeys(self.stems, 0.0)
        for stem in peaks:
            for block in self.blocks(stem, target):
                check()
                done += 1
                progress(min(1.0, done / total))
                peaks[stem] = max(peaks[stem], float(np.max(np.abs(block))))
        return peaks


class StemWriter:
    """Writes all stems of one song."""

    def __init__(self, order: Order, separated: Separated, target: Target, gain: float, tagger: Tagger) -> None:
        self._order, self._separated, self._target = order, separated, target
        self._gain, self._tagger = gain, tagger
        self._is_drawn = order.options.peaks or order.options.page
        self._waveforms: dict[str, Waveform] = {}
        self._failed = threading.Event()

    def write_all(self, check: Check, progress: Progress) -> tuple[StemFile, ...]:
        """The files, in the order of the stems asked for. Raises `AudioProcessingError`, and what `check` raises."""
        stems = tuple(self._separated.stems)
        blocks = [0] * len(stems)
        total = len(stems) * -(-self._separated.frames(self._target) // BLOCK)

        def write(number: int) -> StemFile:
            def count() -> None:
                check()
                if self._failed.is_set():
                    raise StopProcessingError("another stem of the song could not be written")
                blocks[number] += 1

            return self._write(stems[number], count)

        with ThreadPoolExecutor(min(len(stems), CORES), "encode") as pool:
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

    def extras(self, files: tuple[StemFile, ...]) -> tuple[ExtraFile, ...]:
        """What lies beside the stems, `files`, written once they all are. Raises OSError."""
        options = self._order.options
        if not self._is_drawn:
            return ()
        peaks = measured([self._waveforms[stem] for stem in self._separated.stems], self._target.rate)
        made = [self._extra("peaks", PEAKS, document(peaks))] if options.peaks else []
        made += [self._extra("page", PAGE, player.page(self._order.name, files, peaks))] if options.page else []
        return tuple(made)

    def _extra(self, kind: str, name: str, data: bytes) -> ExtraFile:
        with open_own(self._order.out / name, "x+b") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        return ExtraFile(kind=kind, name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _write(self, stem: str, check: Check) -> StemFile:
        """One stem, written, read back and measured: in `out`, or in `tmp` where it becomes a stream of one file."""
        order, target = self._order, self._target
        one_file = order.options.naming == ONE_FILE
        name = f"{stem}.{target.suffix}" if one_file else self._name(stem)
        folder = None if one_file else self._folder(name)
        path = (folder.path if folder else order.tmp) / name.rpartition("/")[2]
        frames = self._separated.frames(target)
        waveform = self._waveforms[stem] = Waveform(frames, target.channels)
        has_spare_core = len(self._separated.stems) < CORES
        with Metering(target.rate, target.channels, beside=has_spare_core) as metering:
            how = encode.Manner(
                stem=stem,
                check=check,
                gain=self._gain,
                clamp=order.options.clip == "clamp",
                seed=order.seed ^ zlib.crc32(stem.encode()),
                measure=metering.feed,
                draw=waveform.feed if self._is_drawn else lambda _: None,
                tag=lambda written: None if one_file else self._tagger.tag(written, stem, target.format),
            )
            written = encode.write(self._separated.blocks(stem, target), path, target, frames=frames, how=how)
            encode.verify(path, written, frames, check)
            sound = metering.read(self._separated.survey.song * self._gain**2)
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
