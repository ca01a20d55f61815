"""The ways in which OpenVINO could run a model here. Which of them are right and which is fastest, `proof` finds out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from demixd.engine import host
from demixd.engine.networks import Eager, Network
from demixd.engine.openvino import cache
from demixd.engine.openvino.runtime import Compiled


def precisions(wanted: str, target: str, *, bfloat16: bool) -> tuple[str, ...]:
    """What is worth a try, the likely fastest first. `bfloat16` says that the processor multiplies it."""
    fast = {"CPU": ("bfloat16",) if bfloat16 else (), "GPU": ("float16",)}[target]
    return tuple(each for each in (*fast, "float32") if wanted in ("auto", each))


def build(
    yardsticks: Sequence[Eager], folder: Path, *, wanted: str, threads: int, target: str = "CPU"
) -> Iterator[tuple[str, list[Network]]]:
    """Each precision with a network for every member, from the conversion in `folder`; compiled when it is its turn.

    `ValueError` where the conversion cannot be used: `conversions.discard` it, and stay with torch.
    """
    members = [yardstick.member for yardstick in yardsticks]
    for precision in precisions(wanted, target, bfloat16=host.has_bfloat16()):
        made: dict[int, Network] = {}
        for place in sorted({members.index(member) for member in members}):  # a bag may name a member twice
            made[place] = Compiled.load(
                yardsticks[place],
                cache.core(folder, place),
                target=target,
                precision=precision,
                threads=threads,
                cache=folder / cache.CACHE,
            )
        yield precision, [made[members.index(member)] for member in members]
