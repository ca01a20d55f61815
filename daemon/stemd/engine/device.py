"""Where a model runs: the GPU if there is one and it works, else the CPU, and why."""

from pathlib import Path

import torch


def choose(wanted: str) -> tuple[torch.device, str | None]:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`, and in a sentence why it is not the one asked for."""
    if wanted == "cpu":
        return torch.device("cpu"), None
    number = int(wanted.partition(":")[2] or 0)
    if torch.cuda.is_available() and number < torch.cuda.device_count():
        return torch.device("cuda", number), None
    if wanted == "auto":
        return torch.device("cpu"), None
    return torch.device("cpu"), f"{wanted} is not available on this machine"


def name_of(device: torch.device) -> str:
    """What people call it: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def settle() -> None:
    """Same song, same stems: no faster kernels that round differently from run to run."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
