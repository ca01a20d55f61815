"""The places for workers that a configuration asks for: one for each device of `[model] device`. Pure.

"auto"              every CUDA device, each with a worker; where there is none, one worker on the CPU
"cuda:1"            one worker
["cpu", "cpu"]      one for each, which share the processor's cores; the sound of all songs in flight is shared out, too

With [ray] there are as many places as that says, for whichever machines of the cluster have room.
"""

import msgspec

from demixd.config import Config
from demixd.engine import host
from demixd.protocol.devices import all_of

ON_CPU = ("cpu", "auto")
"""Devices that are the processor, or may be."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's place: `device` as the configuration has it, and of how many it has an equal share of the memory.

    `threads`: how many it may compute with; None where no other worker computes on the processor. `stays_empty`: whether
    there is no worker without that device, rather than one on the CPU.
    """

    id: str
    device: str
    shares: int = 1
    threads: int | None = None
    stays_empty: bool = False


def places(config: Config, gpus: int) -> tuple[Place, ...]:
    """The places, in order; `gpus`: how many CUDA devices a worker, or the cluster, has been seen to have, 0 before that."""
    if config.ray.address:
        return _in_cluster(config, gpus)
    wanted, is_auto = all_of(config.model.device), config.model.device == "auto"
    if is_auto:
        wanted = (*wanted, *(f"cuda:{number}" for number in range(1, gpus)))
    on_cpu = sum(device in ON_CPU for device in wanted)
    threads = max(1, host.threads() // on_cpu) if on_cpu > 1 else None
    return tuple(
        Place(
            id=str(number),
            device=device,
            shares=len(wanted),
            threads=threads if device in ON_CPU else None,
            stays_empty=is_auto and number > 1,
        )
        for number, device in enumerate(wanted, 1)
    )


def _in_cluster(config: Config, gpus: int) -> tuple[Place, ...]:
    """Those of `[ray]`; which machine has room for one is known to the cluster alone."""
    count = max(1, gpus) if config.ray.workers == "gpus" else config.ray.workers
    (device,) = all_of(config.model.device)
    is_here = config.ray.address == "local"
    threads = max(1, host.threads() // count) if is_here and device == "cpu" else None
    return tuple(
        Place(id=str(n), device=device, shares=count if is_here else 1, threads=threads) for n in range(1, count + 1)
    )
