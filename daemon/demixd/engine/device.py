"""The device that a model runs on (a GPU if there is one that works, else the CPU), and copies to and from it."""

import gc
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from demixd.engine import host

CPU = torch.device("cpu")

AHEAD = 4
"""How many blocks are copied from a GPU at once: while one is written to disk, the GPU goes on."""


def choose(wanted: str) -> tuple[torch.device, str | None]:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`; and a sentence where it is not the one that was asked for."""
    if not wanted.startswith(("auto", "cuda")):
        return CPU, None
    number = int(wanted.partition(":")[2] or 0)
    if number < count():
        torch.cuda.set_device(number)  # pinned memory, and compiled kernels, go by the current one
        return torch.device("cuda", number), None
    if wanted == "auto":
        return CPU, None
    return CPU, f"{wanted} is not available on this machine; using the CPU"


def count() -> int:
    """How many CUDA devices there are that torch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def name_of(device: torch.device) -> str:
    """The name of the GPU, or of the processor, for people."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return host.cpu_name()


def has(precision: str) -> bool:
    """Whether the processor computes in `precision` itself; torch imitates the others, a hundred times slower."""
    return precision == "float32" or (precision == "bfloat16" and host.has_bfloat16())


def settle() -> None:
    """Make results repeatable: the same song gives the same stems, so no kernels that round differently from run to run."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(host.threads())


def answers(device: torch.device) -> bool:
    """Whether a device still computes. After a sticky CUDA error every later call of the process fails."""
    try:
        return bool(torch.ones(8, device=device).sum().item() == 8)
    except RuntimeError:
        return False


def wait_for(device: torch.device) -> None:
    """Wait until the device has computed all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> int:
    """Bytes that are allocated on the GPU now, from which on `peak_bytes` counts; 0 for the CPU, whose are not counted."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))


def peak_bytes(device: torch.device) -> int:
    """The most bytes that were allocated on the GPU at once since `reset_peak`; 0 for the CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def free_bytes(device: torch.device) -> int:
    """Free memory of the device in bytes, of a GPU with what torch's cache in this process would give back."""
    if device.type != "cuda":
        return host.room()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def unreserved_bytes(device: torch.device) -> int:
    """Memory of the device in bytes that neither this process nor another one holds, once torch's cache is given back."""
    give_back()
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else host.room()


def free_mib(wanted: str) -> int | None:
    """Free memory of the GPU that `choose` would take, in MiB; None without a GPU, or where it does not answer."""
    device, _ = choose(wanted)
    try:
        return free_bytes(device) >> 20 if device.type == "cuda" else None
    except RuntimeError:
        return None


def give_back() -> None:
    """Return cached memory to the GPU. Tensors that a living exception refers to are in use and stay."""
    if torch.cuda.is_available():
        gc.collect()  # a network and its hooks hold each other
        torch.cuda.empty_cache()


def to_device(block: Tensor, device: torch.device) -> Tensor:
    """A copy of `block` on the device. Pinned memory lets the caller go on while it is copied to a GPU."""
    return block.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else block


def to_host(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same blocks `[..., C, T]` in the machine's memory; a GPU may be up to AHEAD blocks ahead of the caller.

    A GPU transposes the blocks first, so that they lie in memory frame by frame, as they are kept: it is much faster
    at that than the processor.
    """
    coming: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    for block in blocks:
        if not block.is_cuda:
            yield block
            continue
        transposed = block.mT.contiguous()
        pinned = torch.empty(transposed.shape, dtype=transposed.dtype, pin_memory=True)
        pinned.copy_(transposed, non_blocking=True)
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
