"""What `demixd check` finds about the machine, of a configuration alone."""

from pathlib import Path

from demixd.cli.check import machine
from demixd.cli.check.finding import Level
from demixd.config import Config, Limits


def test_the_memory_for_sound() -> None:
    """It is told in bytes and in minutes of a song with two stems, with the key, and with the folder for what is beyond it."""
    found = machine.memory(Config(limits=Limits(memory_bytes=512 << 20)), Path("/there/work"))
    told = "512 MiB for decoded sound, 8 minutes with two stems ([limits] memory_bytes); what is beyond it goes to /there/work"
    assert (found.level, found.subject, found.text) == (Level.OK, "memory", told)


def test_the_memory_that_auto_takes() -> None:
    """What it would be now: 256 MiB to 8 GiB, however much is free."""
    found = machine.memory(Config(), Path("/there/work"))
    assert 256 <= int(found.text.split()[0]) <= 8192
