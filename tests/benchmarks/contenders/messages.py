"""The messages to and from a contender that stays loaded. No torch, since the other end loads none."""

import msgspec


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    folder: str
    device: str


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """`about` is what must be known of it beside the machine's versions, as a sentence without its full stop."""

    device: str
    gpu: str | None
    about: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    song: str
    folder: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    separate_s: float
    gpu_peak_bytes: int | None
