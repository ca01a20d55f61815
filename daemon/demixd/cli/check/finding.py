"""The result of one check: a line of `demixd check`. Pure."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    OK = "ok"
    """As it should be."""
    NOTE = "note"
    """It works, but not at its best."""
    FAIL = "FAIL"
    """It does not work for the user who runs the check."""


class Finding(msgspec.Struct, frozen=True):
    """`text` is a sentence that names the thing, and the remedy if there is something to mend."""

    level: Level
    subject: str
    text: str
