"""What `program` tells a process of `rows`, and what comes back. No torch, since the other end loads none."""

import msgspec


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A way to run the network: eager, or compiled."""

    precision: str
    batch: int
    compiled: bool = False

    @property
    def title(self) -> str:
        return f"{'compiled, ' if self.compiled else ''}{self.precision}, {self.batch} at once"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`models` is the folder of the model, `folder` one for files that are gone afterwards; songs are `seconds` long."""

    model: str
    models: str
    allow_pickle: bool
    device: str
    folder: str
    seconds: float
    songs: int
    networks: tuple[Network, ...] = ()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table; `seconds` of a segment where a network is measured, else of what the row says."""

    row: str
    seconds: float | None = None
    x_real_time: float | None = None
    bytes: int | None = None
    gpu_bytes: int | None = None
    note: str = ""
