"""What `demixd check` says of one thing. Pure."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    FAIL = "FAIL"


class Finding(msgspec.Struct, frozen=True):
    level: Level
    subject: str
    text: str
