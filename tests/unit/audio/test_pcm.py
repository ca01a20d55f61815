"""Buffers of samples: in memory while the budget allows it, then on the first disk that has room."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from audio import small_disk, tones
from demixd.audio.budget import Budget
from demixd.audio.pcm import BLOCK, Frames, PcmWriter, Places, Shelf, Written
from demixd.errors import AudioProcessingError, Code, disk_error

FRAMES = 2 * BLOCK + 77
BYTES = FRAMES * 8
FILES = Path("/proc/self/fd")


def written(shelf: Shelf, audio: Frames) -> Frames:
    """What comes back of a buffer of known length; it says whether it is on a disk."""
    pcm = shelf.new(len(audio), audio.shape[1])
    for start in range(0, len(audio), 50_000):
        pcm.append(audio[start : start + 50_000])
    assert np.array_equal(np.concatenate(list(pcm.blocks())), audio)
    outside = pcm.read(-3, len(audio) + 2)
    assert np.array_equal(outside[3:-2], audio) and not outside[:3].any() and not outside[-2:].any()
    assert np.array_equal(pcm.read(5, 9), audio[5:9])
    return pcm.read(0, 2 if pcm.on_disk else 1)


def fill(
    audio: Frames, declared: int | None = None, places: list[Places] | None = None
) -> Callable[[Places], tuple[Written, int]]:
    """What writes a buffer of unknown length, as a decoder does."""

    def write(at: Places) -> tuple[Written, int]:
        if places is not None:
            places.append(at)
        writer = PcmWriter(at.memory, at.allowed, at.file)
        try:
            if declared is not None:
                writer.require(declared, audio.shape[1])
            for start in range(0, len(audio), 50_000):
                writer.write(audio[start : start + 50_000])
        except OSError as error:
            raise disk_error(error, "decoding the song") from error
        return writer.written, audio.shape[1]

    return write


LONG = 24_000_000
"""Frames of a buffer that does not fit into `LEFT`."""

LEFT = 64 << 20


@contextmanager
def little_memory() -> Iterator[None]:
    """This process gets no more than `LEFT` bytes of addresses, whatever a budget allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LEFT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_memory_that_the_system_refuses(tmp_path: Path) -> None:
    """A buffer for which there is a budget and no memory goes to the disk, as one beyond the budget, and takes nothing of it."""
    budget = Budget(1 << 30)
    with Shelf(budget, (tmp_path,)) as shelf:
        with little_memory():
            pcm = shelf.new(LONG, 2)
        assert pcm.on_disk
        pcm.append(tones(FRAMES))
        assert np.array_equal(pcm.read(0, FRAMES), tones(FRAMES))
        assert budget.take(1 << 30)


def test_memory_for_which_no_address_is_left(tmp_path: Path) -> None:
    """A buffer of unknown length that is in memory already stays there, and is read as a file is."""
    budget, audio = Budget(1 << 30), tones(FRAMES)
    write = fill(audio)

    def long(at: Places) -> tuple[Written, int]:
        write(at)
        os.ftruncate(at.memory, LONG * 8)
        return Written(frames=LONG, on_disk=False), 2

    with Shelf(budget, (tmp_path,)) as shelf:
        with little_memory():
            pcm = shelf.filled(long)
        assert np.array_equal(pcm.read(0, FRAMES), audio)
        assert not pcm.read(LONG - 9, LONG).any()
        assert not budget.take((1 << 30) - LONG * 8 + 1)
    assert budget.take(1 << 30)


def test_memory_that_refuses_a_block(tmp_path: Path) -> None:
    """What the system does not take into memory (it may not overcommit) goes on in the file, whole."""
    audio = tones(FRAMES)
    with small_disk(tmp_path / "memory", 1_000_000) as full, (full / "memory").open("x+b", buffering=0) as memory:
        with (tmp_path / "file").open("x+b", buffering=0) as file:
            writer = PcmWriter(memory.fileno(), 1 << 30, file.fileno())
            for start in range(0, FRAMES, 50_000):
                writer.write(audio[start : start + 50_000])
        assert writer.written == Written(frames=FRAMES, on_disk=True)
    assert (tmp_path / "file").read_bytes() == audio.tobytes()


def test_a_full_disk_has_a_name(tmp_path: Path) -> None:
    """An error at a file of sound, which has no name, carries the folder that people know."""
    with small_disk(tmp_path / "small", 3_000_000) as small, Shelf(Budget(0), (small,)) as shelf:
        pcm = shelf.new(FRAMES, 2)
        (small / "others").write_bytes(bytes(2_500_000))
        with pytest.raises(OSError) as error:
            pcm.append(tones(FRAMES))
    assert disk_error(error.value, "separating").message == (
        f"There is no space left for separating on the disk of {small}; free some."
    )


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("allowed", "frames"), [(1 << 30, 1), (0, 2)], ids=["memory", "disk"])
def test_what_is_written_comes_back(tmp_path: Path, channels: int, allowed: int, frames: int) -> None:
    """Also beyond both ends, as silence; a file has no name at any time."""
    with Shelf(Budget(allowed), (tmp_path,)) as shelf:
        assert len(written(shelf, tones(FRAMES, channels=channels))) == frames
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("declared", [None, FRAMES])
@pytest.mark.parametrize(
    ("allowed", "on_disk"), [(BYTES, False), (BYTES - 1, True), (0, True)], ids=["all", "not all", "nothing"]
)
def test_a_buffer_of_unknown_length(tmp_path: Path, declared: int | None, allowed: int, on_disk: bool) -> None:
    """It is in memory if all of it fits, else on the disk, with what was in memory before."""
    audio = tones(FRAMES)
    with Shelf(Budget(allowed), (tmp_path,)) as shelf:
        pcm = shelf.filled(fill(audio, declared))
        assert pcm.on_disk == on_disk
        assert np.array_equal(pcm.read(0, FRAMES), audio)
        assert list(tmp_path.iterdir()) == []


def test_what_is_not_needed_is_given_back(tmp_path: Path) -> None:
    """A song takes what its sound takes, and its end gives that back too."""
    budget, audio = Budget(3 * BYTES), tones(FRAMES)
    with Shelf(budget, (tmp_path,)) as shelf:
        shelf.filled(fill(audio))
        assert not shelf.new(FRAMES, 2).on_disk
        assert not shelf.new(FRAMES, 2).on_disk
        assert shelf.new(FRAMES, 2).on_disk
    assert budget.take(3 * BYTES)
    assert not budget.take(1)


def test_who_nobody_has_is_freed(tmp_path: Path) -> None:
    """A song that is given up need not be closed."""
    budget, before = Budget(BYTES), len(list(FILES.iterdir()))
    shelf: Shelf | None = Shelf(budget, (tmp_path,))
    assert shelf is not None
    shelf.filled(fill(tones(FRAMES)))
    assert shelf.new(FRAMES, 2).on_disk
    shelf = None
    assert budget.take(BYTES)
    assert len(list(FILES.iterdir())) == before


def test_half_for_who_comes_later(tmp_path: Path) -> None:
    """A song that is decoded ahead leaves one half to the song that runs, and all of the disks."""
    budget, places = Budget(2 * BYTES), list[Places]()
    with Shelf(budget, (tmp_path,), ahead=True) as shelf:
        shelf.filled(fill(tones(FRAMES), places=places))
        assert (places[0].allowed, places[0].file) == (BYTES, None)
        assert budget.take(BYTES)


@pytest.mark.parametrize("declared", [None, FRAMES])
def test_no_disk_for_who_comes_later(tmp_path: Path, declared: int | None) -> None:
    """A song that is decoded ahead, and is too long for its half, takes nothing of a disk that the one that runs may need."""
    budget = Budget(2 * BYTES - 2)
    with Shelf(budget, (tmp_path,), ahead=True) as shelf, pytest.raises(AudioProcessingError) as error:
        shelf.filled(fill(tones(FRAMES), declared))
    assert error.value.code is Code.NO_SPACE
    assert budget.take(2 * BYTES - 2)


def test_no_file_for_what_fits_into_memory(tmp_path: Path) -> None:
    """A folder in which no file can be made is in nobody's way who needs none; who needs one hears why there is none."""
    with Shelf(Budget(BYTES), (tmp_path / "gone",)) as shelf:
        assert shelf.filled(fill(tones(FRAMES))).frames == FRAMES
    with Shelf(Budget(BYTES - 1), (tmp_path / "gone",)) as shelf, pytest.raises(AudioProcessingError) as error:
        shelf.filled(fill(tones(FRAMES)))
    assert error.value.code is Code.IO_ERROR


def test_a_buffer_is_written_anew(tmp_path: Path) -> None:
    """A second engine writes over what the first one has left."""
    for allowed in (1 << 30, 0):
        with Shelf(Budget(allowed), (tmp_path,)) as shelf:
            pcm = shelf.new(100, 2)
            pcm.append(tones(60, seed=1))
            pcm.clear()
            pcm.append(tones(100, seed=2))
            assert np.array_equal(pcm.read(0, pcm.frames), tones(100, seed=2))


@pytest.mark.parametrize("declared", [None, FRAMES])
def test_the_next_disk(tmp_path: Path, declared: int | None) -> None:
    """Where the first disk has no room for a buffer the second takes it, and a warning says so."""
    audio = tones(FRAMES)
    with small_disk(tmp_path / "small", 1_000_000) as small, Shelf(Budget(1000), (small, tmp_path)) as shelf:
        pcm = shelf.filled(fill(audio, declared))
        assert np.array_equal(pcm.read(0, FRAMES), audio)
        told = f"work-elsewhere: {small} has no room for this song's sound; the outbox's disk took it."
        assert shelf.warnings == (told,)
        written(shelf, audio)


def test_what_a_disk_could_not_take_is_freed(tmp_path: Path) -> None:
    """A disk that fills up while a song is decoded has its room back at once, not at the song's end."""
    with small_disk(tmp_path / "small", 1_000_000) as small, Shelf(Budget(1000), (small, tmp_path)) as shelf:
        before = os.statvfs(small).f_bfree
        assert shelf.filled(fill(tones(FRAMES))).on_disk
        assert os.statvfs(small).f_bfree == before


def test_a_disk_has_room_for_all_buffers_together(tmp_path: Path) -> None:
    """Stems are made before the first is written: one that has no room beside the others goes to the next disk."""
    with small_disk(tmp_path / "small", 2 * BYTES) as small, Shelf(Budget(0), (small, tmp_path)) as shelf:
        assert shelf.new(FRAMES, 2).on_disk
        assert shelf.warnings == ()
        assert shelf.new(FRAMES, 2).on_disk
        assert shelf.warnings
    with small_disk(tmp_path / "other", 2 * BYTES) as small, Shelf(Budget(0), (small,)) as shelf:
        shelf.new(FRAMES, 2)
        with pytest.raises(AudioProcessingError) as error:
            shelf.new(FRAMES, 2)
        assert error.value.code is Code.TOO_LARGE


@pytest.mark.parametrize(
    ("sizes", "filled", "code"),
    [
        ((500_000, 500_000), False, Code.TOO_LARGE),
        ((2_000_000, 500_000), True, Code.NO_SPACE),
        ((500_000, 2_000_000), True, Code.NO_SPACE),
    ],
)
def test_no_disk_has_room(tmp_path: Path, sizes: tuple[int, int], filled: bool, code: Code) -> None:
    """`too-large` is said only where no disk could hold it if it were empty."""
    with small_disk(tmp_path / "one", sizes[0]) as one, small_disk(tmp_path / "two", sizes[1]) as two:
        for disk, size in ((one, sizes[0]), (two, sizes[1])):
            (disk / "filler").write_bytes(bytes(size * 3 // 4 if filled else 0))
        with Shelf(Budget(0), (one, two)) as shelf, pytest.raises(AudioProcessingError) as error:
            shelf.new(FRAMES, 2)
        assert error.value.code is code
