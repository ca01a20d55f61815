"""The sections of the configuration, and what each key may be. Pure."""

import ipaddress
import re
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta

from demixd.protocol import devices
from demixd.protocol.options import ModelName
from demixd.protocol.typed import Section, shown

YEAR_S = 31_536_000
"""Seconds: the longest duration. TOML has `inf`, for which no clock can wait."""

HEARTBEAT_MOST_S = 600.0
"""Seconds between two heartbeats at most: whoever waits for three of them has to know within half an hour."""

Seconds = Annotated[float, Meta(gt=0, le=YEAR_S)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=YEAR_S)]


class After(StrEnum):
    """What is done with an original whose job is done."""

    MOVE = "move"
    KEEP = "keep"
    DELETE = "delete"


class Watch(StrEnum):
    """How changes in the inbox are noticed."""

    AUTO = "auto"
    EVENTS = "events"
    POLL = "poll"


class Paths(Section, frozen=True):
    spool: str = "/srv/demixd"
    inbox: str = ""
    outbox: str = ""
    status: str = ""
    done: str = ""
    failed: str = ""
    work: str = ""
    state: str = "/var/lib/demixd"
    models: str = ""


class Inbox(Section, frozen=True):
    scan_interval: Seconds = 10.0
    settle: SecondsOrNone = 2.0
    settle_remote: SecondsOrNone = 10.0
    after: After = After.MOVE
    recursive: bool = True
    profile_folders: bool = True
    leftovers: Literal["keep", "move"] = "keep"
    reasons: bool = False
    watch: Watch = Watch.AUTO


class Status(Section, frozen=True):
    progress_s: Seconds = 0.5
    heartbeat_s: Annotated[float, Meta(gt=0, le=HEARTBEAT_MOST_S)] = 5.0
    keep_days: Annotated[float, Meta(gt=0, le=36500)] = 30
    page: bool = False


class Model(Section, frozen=True):
    name: ModelName = "htdemucs"
    repo: str = ""
    device: devices.Devices = "auto"
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    batch: Annotated[int, Meta(ge=1, le=256)] | Literal["auto"] = "auto"
    keep_alive_s: Annotated[float, Meta(ge=-1, le=YEAR_S)] = -1
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        devices.check(self.device)


class Limits(Section, frozen=True):
    max_duration_s: Seconds = 14400.0
    max_bytes: Annotated[int, Meta(gt=0)] = 4294967296
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 3
    cancel_grace_s: Seconds = 5.0
    truncated_grace_s: SecondsOrNone = 600.0
    memory_bytes: Annotated[int, Meta(ge=0, le=10**15)] | Literal["auto"] = "auto"

    def too_large(self, size: int) -> str:
        """The sentence about a song of so many bytes that is not taken; empty for any other."""
        allowed = self.max_bytes
        return f"The song has {size} bytes; [limits] max_bytes allows {allowed}." if size > allowed else ""


class Hooks(Section, frozen=True):
    folder: str = "/etc/demixd/hooks.d"
    limit_s: Seconds = 300.0


class Web(Section, frozen=True):
    """`demixd web` alone goes by it; the daemon ignores it."""

    listen: Annotated[str, Meta(max_length=300)] = "127.0.0.1:8377"
    allow: Literal["token", "all"] = "token"
    hosts: tuple[Annotated[str, Meta(min_length=1, max_length=253)], ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError where `listen` is no address with a port."""
        address_of(self.listen)


def address_of(listen: str) -> tuple[str, int]:
    """The address, or name, and the port in `ADDRESS:PORT`; an IPv6 address is in brackets. Raises ValueError."""
    found = re.fullmatch(r"(?:\[(.+)\]|([^\s:\[\]/@]+)):([0-9]{1,5})", listen)
    try:
        if found is None or not 0 < int(found[3]) < 1 << 16 or (found[1] and not ipaddress.IPv6Address(found[1])):
            raise ValueError(listen)
    except ValueError:
        raise ValueError(
            f'listen = {shown(listen)}: it must be ADDRESS:PORT, such as "0.0.0.0:8377" or "[::]:8377"'
        ) from None
    return found[1] or found[2], int(found[3])


class Log(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
