"""What the supervisor orders of its child that speaks to a cluster: one message each over its standard input, a socket."""

import msgspec

from demixd.config import Config


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """The first message: the cluster at `address`, and where it has this machine's folders. `gpus`: of each worker, 0 or 1."""

    address: str
    gpus: int
    path_map: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, config: Config) -> "Begin":
        ray = config.ray
        return cls(address=ray.address, gpus=int(config.model.device != "cpu"), path_map=ray.path_map)


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """A worker is wanted; the open file that comes along is the supervisor's line to it, and its end is the worker's."""

    threads: int | None
