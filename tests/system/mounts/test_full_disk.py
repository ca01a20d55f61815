"""The disk fills up in the middle of a song, after it was found to have room: the song waits, it does not fail."""

import os
from pathlib import Path

import pytest

from daemons import make_song
from demixd.audio.budget import Budget
from demixd.audio.pcm import Shelf
from demixd.errors import AudioProcessingError, Code
from demixd.pipeline import decoder, song
from demixd.protocol.options import Options
from demixd.protocol.progress import Step, Tick
from mounts import mounts, needs_mounts, tmpfs
from separations import short_bag, warm

OPTIONS = Options(
    model="test",
    stems=("vocals", "drums"),
    format="wav",
    bitrate=320,
    bit_depth=16,
    rate="source",
    clip="joint",
    instrumental="auto",
    shifts=0,
    overlap=0.25,
    naming="{stem}.{ext}",
    profile=None,
)


@needs_mounts
@pytest.mark.parametrize("step", [Step.DECODE, Step.SEPARATE, Step.ENCODE])
def test_it_fills_up_as_a_step_begins(tmp_path: Path, step: Step) -> None:
    """Whatever step finds no room says so by its code, which the daemon waits for."""
    disk = tmp_path / "disk"
    engine = warm(short_bag())

    def progressed(at: Tick) -> None:
        if at.step is step and at.progress.step_fraction == 0:
            with (disk / "ballast").open("ab", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
                room = os.statvfs(disk)  # taken at one go: stems may be on their way already
                os.posix_fallocate(ballast.fileno(), ballast.tell(), room.f_bavail * room.f_frsize or 1)
                while True:
                    ballast.write(bytes(4096))

    observer = song.Observer(check=lambda: None, decoded=lambda _: None, progressed=progressed)
    with mounts(tmpfs(disk, 16 << 20)):
        for name in ("tmp", "out"):
            (disk / name).mkdir()
        order = song.Order(
            song=make_song(tmp_path / "song.wav", 1.0),
            name="song.wav",
            tmp=disk / "tmp",
            out=disk / "out",
            options=OPTIONS,
            max_duration_s=60,
            seed=0,
        )
        with Shelf(Budget(0), (order.tmp,)) as shelf, pytest.raises(AudioProcessingError) as raised:
            song.run(order, engine, shelf, observer, {})
        decoder.close()
    assert raised.value.code is Code.NO_SPACE
