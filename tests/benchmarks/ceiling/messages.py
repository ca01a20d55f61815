"""The messages to and from `instant`. They load nothing of demixd, which may be an older commit's at the other end."""

import msgspec


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """`package` is the folder of the demixd that is measured."""

    package: str


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A song to separate: it and its stems have the same format."""

    song: str
    format: str
    stems: tuple[str, ...]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one song took. `cpu_s` is of all processes; `timing` has the seconds of each step, `decode_s` and so on.

    `written_bytes` are those written beyond the stems: see `instant.spent`.
    """

    seconds: float
    cpu_s: float
    written_bytes: int
    timing: dict[str, float]
