"""Where a model runs: the GPU if there is one and it works, else the CPU, and why. And how tensors get there and back."""

import gc
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from demixd.engine import host

CPU = torch.device("cpu")

AHEAD = 4
"""Blocks on their way from a GPU at once: while one is written to disk, the GPU goes on."""


def choose(wanted: str) -> tuple[torch.device, str | None]:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`, and in a sentence why it is not the one asked for."""
    if not wanted.startswith(("auto", "cuda")):
        return CPU, None
    number = int(wanted.partition(":")[2] or 0)
    if torch.cuda.is_available() and number < torch.cuda.device_count():
        return torch.device("cuda", number), None
    if wanted == "auto":
        return CPU, None
    return CPU, f"{wanted} is not available on this machine; using the CPU"


def name_of(device: torch.device) -> str:
    """What people call it: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return host.cpu_name()


def has(precision: str) -> bool:
    """Whether the processor computes in `precision`; it can imitate what it has not, a hundred times slower."""
    return precision == "float32" or (precision == "bfloat16" and host.has_bfloat16())


def settle() -> None:
    """Same song, same stems: no faster kernels that round differently from run to run."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(host.threads())


def answers(device: torch.device) -> bool:
    """Whether a device still does what it is told. A CUDA error that sticks fails every later call of the process."""
    try:
        return bool(torch.ones(8, device=device).sum().item() == 8)
    except RuntimeError:
        return False


def free_bytes(device: torch.device) -> int:
    """The GPU's memory that is free, what this process's cache would give back included."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def free_mib(wanted: str) -> int | None:
    """The same of the GPU that would be chosen; None where there is none, or it does not answer."""
    device, _ = choose(wanted)
    try:
        return free_bytes(device) >> 20 if device.type == "cuda" else None
    except RuntimeError:
        return None


def give_back() -> None:
    """Return the memory that is cached and not used. What an exception that is still there holds is in use."""
    if torch.cuda.is_available():
        gc.collect()  # a network and its hooks hold each other
        torch.cuda.empty_cache()


def to_device(block: Tensor, device: torch.device) -> Tensor:
    """On the device; the copy to a GPU goes on while the caller does, which only pinned memory allows."""
    return block.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else block


def to_host(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same blocks in the machine's own memory, a few behind those of a GPU, which is not waited for until then.

    From a GPU they come frame by frame, as they will be written: it turns them in no time, and the processor does not.
    """
    coming: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    for block in blocks:
        if not block.is_cuda:
            yield block
            continue
        turned = block.mT.contiguous()
        pinned = torch.empty(turned.shape, dtype=turned.dtype, pin_memory=True)
        pinned.copy_(turned, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(block.device))
        coming.append((pinned, arrived))
        if len(coming) > AHEAD:
            yield _arrived(coming)
    while coming:
        yield _arrived(coming)


def _arrived(coming: "deque[tuple[Tensor, torch.cuda.Event]]") -> Tensor:
    pinned, arrived = coming.popleft()
    arrived.synchronize()
    return pinned.mT
