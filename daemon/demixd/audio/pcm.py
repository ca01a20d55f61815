"""Samples between the steps of a song: `[T, C]` in float32, the channels of a frame side by side, full scale 1.0.

A buffer lies in memory while the budget of all songs in flight and the system allow it, else in a file that has no name, so
that it goes with its process. Blocks of `BLOCK` frames pass between buffers: beyond the budget no step holds a whole song.
"""

import contextlib
import errno
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from demixd.audio.budget import Budget
from demixd.errors import AudioProcessingError, Code, disk_error
from demixd.protocol.track import pcm_bytes
from demixd.spool import room
from demixd.spool.files import write_all

Frames = NDArray[np.float32]
"""A block of audio, shape `[T, C]`."""

BLOCK = 1 << 16
"""Frames a block: 0.5 MB of stereo float32, 1.5 s at 44.1 kHz."""

PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
"""Memory that no other process shares: else it never lies in huge pages, and to write to it takes four times as long."""


class Pcm:
    """A buffer: appended to by one thread, then read by any. Frames outside it read as silence."""

    def __init__(self, channels: int, *, memory: Frames | None = None, file: int = -1, frames: int = 0) -> None:
        """`memory`, else an open `file`; the first `frames` are written already."""
        self.channels, self.frames = channels, frames
        self._memory, self._file = memory, file
        self._watch = None if memory is not None else room.Watch(file)

    @property
    def on_disk(self) -> bool:
        return self._memory is None

    def append(self, block: Frames) -> None:
        """Write `[T, C]` behind what is there. Raises OSError."""
        end = self.frames + len(block)
        if self._memory is not None:
            for channel in range(self.channels):  # NumPy is five times faster at that than at all of them at once
                self._memory[self.frames : end, channel] = block[:, channel]
        else:
            assert self._watch is not None
            with _naming_disk(self._file):
                write_all(self._file, np.ascontiguousarray(block, dtype=np.float32).data)
                self._watch.wrote(block.size * 4)
        self.frames = end

    def clear(self) -> None:
        """Forget what is there: it is written anew. Raises OSError."""
        self.frames = 0
        if self._memory is None:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)

    def read(self, start: int, stop: int) -> Frames:
        """Frames `start` to `stop`, `[stop - start, C]`: a view where it can be one, not to be written to. Raises OSError."""
        first, last = min(max(start, 0), self.frames), max(0, min(stop, self.frames))
        if self._memory is not None and (first, last) == (start, stop):
            return self._memory[start:stop]
        block = np.zeros((stop - start, self.channels), dtype=np.float32)
        if first < last:
            inside = block[first - start : last - start]
            if self._memory is not None:
                inside[:] = self._memory[first:last]
            else:
                _fill(self._file, inside, first * 4 * self.channels)
        return block

    def blocks(self, size: int = BLOCK) -> Iterator[Frames]:
        """All of it in order, `[<= size, C]` at a time."""
        for start in range(0, self.frames, size):
            yield self.read(start, min(start + size, self.frames))


@contextlib.contextmanager
def _naming_disk(file: int) -> Iterator[None]:
    """Give an error at a file, which has no name, the folder by which people know its disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(room.disk_of(file))
        raise


def _fill(file: int, block: Frames, at: int) -> None:
    left = block.data.cast("B")
    while left:
        with _naming_disk(file):
            count = os.preadv(file, [left], at)
        if not count:
            raise OSError(errno.EIO, "a file of decoded sound has become shorter")
        left, at = left[count:], at + count


def _mapped(file: int, size: int, channels: int, flags: int) -> Frames | None:
    """Memory of its own (`file` is -1), or that of a memfd; None where the system does not have what the budget allows.

    It goes back to the kernel as soon as nobody has it. In huge pages, where there are such, it is there much sooner.
    """
    try:
        memory = mmap.mmap(file, size, flags=flags)
    except OSError:
        return None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype="<f4").reshape(-1, channels)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a `PcmWriter` has written, and where."""

    frames: int
    on_disk: bool


class PcmWriter:
    """Writes blocks of `[T, C]` to memory, and moves on to a file, where there is one, if that is not enough."""

    def __init__(self, memory: int, allowed: int, file: int | None) -> None:
        self._memory, self._allowed = memory, allowed
        self._disk = None if file is None else (file, room.Watch(file))
        self._on_disk = False
        self._bytes = self.frames = 0

    @property
    def written(self) -> Written:
        return Written(frames=self.frames, on_disk=self._on_disk)

    def write(self, block: Frames) -> None:
        """Append a block. Raises OSError."""
        data = np.ascontiguousarray(block, dtype="<f4").data.cast("B")
        if self._on_disk or self._bytes + len(data) > self._allowed or not self._is_held(data):
            file, watch = self._moved_on()
            with _naming_disk(file):
                write_all(file, data)
                watch.wrote(len(data))
        self._bytes += len(data)
        self.frames += len(block)

    def _is_held(self, data: memoryview) -> bool:
        """Whether memory takes a block: the system can refuse what is allowed, with ENOSPC where it does not overcommit."""
        try:
            write_all(self._memory, data)
        except OSError:
            return False
        return True

    def require(self, frames: int, channels: int) -> None:
        """Raise NO_SPACE or TOO_LARGE where neither memory nor the disk has room for so many frames. Raises OSError."""
        if (need := pcm_bytes(frames, channels)) > self._allowed:
            room.require(self._moved_on()[0], need)

    def _moved_on(self) -> tuple[int, room.Watch]:
        """The file, which has all that was in memory."""
        if self._disk is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not self._on_disk:
            self._on_disk, left = True, self._bytes
            os.lseek(self._memory, 0, os.SEEK_SET)
            with _naming_disk(self._disk[0]):
                while left:
                    left -= os.sendfile(self._disk[0], self._memory, None, left)
            os.ftruncate(self._memory, 0)
        return self._disk


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """For a buffer of unknown length: open memory, of which so many bytes are `allowed`, and an open file, if there is one."""

    memory: int
    allowed: int
    file: int | None


class Shelf:
    """The buffers of one song, and where they are made: in memory, then on the disks of `folders`. Its end frees them all.

    `ahead`: a song whose turn has not come is decoded into half of the memory that is left, or not at all: the one that
    runs may still need the rest, and all that is free on the disks.
    """

    def __init__(self, budget: Budget, folders: Sequence[Path], *, ahead: bool = False) -> None:
        self._budget, self._folders, self._ahead = budget, tuple(folders), ahead
        self._taken = 0
        self._files: list[int] = []
        self._on_disks: list[tuple[int, Pcm, int]] = []
        """The buffers on disks: the number of the folder, the buffer, and its bytes when it is full."""
        self.warnings: tuple[str, ...] = ()

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Free all buffers, which must not be used any more; done, too, as soon as nobody has the shelf."""
        self._close_files(0)
        self._give(self._taken)

    def new(self, frames: int, channels: int) -> Pcm:
        """An empty buffer with room for so many frames. Raises NO_SPACE, TOO_LARGE where no disk has it, IO_ERROR, OSError."""
        need = pcm_bytes(frames, channels)
        if self._budget.take(need):
            if (memory := _mapped(-1, need, channels, PRIVATE)) is not None:
                self._taken += need
                return Pcm(channels, memory=memory)
            self._budget.give(need)

        def on_disk(number: int) -> Pcm:
            self._require(number, need)
            return self._keep(number, Pcm(channels, file=self._file(number)), need)

        return self._on_one(on_disk)

    def filled(self, fill: Callable[[Places], tuple[Written, int]]) -> Pcm:
        """A buffer that `fill` writes, which says how long it is and its channels; on another disk it begins anew.

        Raises what `fill` raises: NO_SPACE and TOO_LARGE where there is no room for it.
        """

        if self._ahead:
            return self._filled(fill, None)
        return self._on_one(partial(self._filled, fill))

    def _filled(self, fill: Callable[[Places], tuple[Written, int]], number: int | None) -> Pcm:
        """In memory, or in a file in that folder."""
        file, refused = None, None
        if number is not None:
            try:
                file = self._file(number)
            except AudioProcessingError as error:
                refused = error  # what fits into memory needs no file
        memory = os.memfd_create("song")
        self._files.append(memory)
        allowed = self._budget.take_share(2 if self._ahead else 1)
        self._taken += allowed
        try:
            written, channels = fill(Places(memory=memory, allowed=allowed, file=file))
        except BaseException as error:
            self._give(allowed)
            if refused is not None and isinstance(error, AudioProcessingError) and error.code is Code.NO_SPACE:
                raise refused from error
            raise
        size = pcm_bytes(written.frames, channels)
        if written.on_disk:
            assert number is not None
            assert file is not None
            self._give(allowed)
            return self._keep(number, Pcm(channels, file=file, frames=written.frames), size)
        self._give(allowed - size)
        mapped = _mapped(memory, size, channels, mmap.MAP_SHARED)  # where no address is left, it is read as a file
        return Pcm(channels, memory=mapped, file=memory, frames=written.frames)

    def _on_one(self, make: Callable[[int], Pcm]) -> Pcm:
        """What `make` makes with the first folder whose disk has room for it. Raises what it raises for the others."""
        refused: AudioProcessingError | None = None
        for number in range(len(self._folders)):
            kept = len(self._files)
            try:
                made = make(number)
            except BaseException as error:
                self._close_files(kept)  # what is in them takes room
                if not isinstance(error, AudioProcessingError) or error.code not in (Code.NO_SPACE, Code.TOO_LARGE):
                    raise
                refused = refused if refused is not None and refused.code is Code.NO_SPACE else error
            else:
                if number and made.on_disk:
                    self.warnings = (
                        f"work-elsewhere: {self._folders[0]} has no room for this song's sound; the outbox's disk took it.",
                    )
                return made
        assert refused is not None
        raise refused

    def _require(self, number: int, need: int) -> None:
        """Raise NO_SPACE or TOO_LARGE where a folder's disk has no room for that and for what its buffers still get."""
        mine = [(pcm, size) for folder, pcm, size in self._on_disks if folder == number]
        there = sum(pcm_bytes(pcm.frames, pcm.channels) for pcm, _ in mine)
        room.require(self._folders[number], need + sum(size for _, size in mine) - there, there=there)

    def _keep(self, number: int, pcm: Pcm, size: int) -> Pcm:
        self._on_disks.append((number, pcm, size))
        return pcm

    def _file(self, number: int) -> int:
        """A new file without a name in a folder. Raises NO_SPACE and IO_ERROR."""
        try:
            with tempfile.TemporaryFile(dir=self._folders[number], buffering=0) as file:
                self._files.append(os.dup(file.fileno()))
        except OSError as error:
            raise disk_error(error, "decoded sound") from error
        return self._files[-1]

    def _close_files(self, kept: int) -> None:
        """Close all but the first `kept`."""
        while len(self._files) > kept:
            os.close(self._files.pop())

    def _give(self, count: int) -> None:
        self._budget.give(count)
        self._taken -= count
