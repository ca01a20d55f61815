"""The checks of the machine: inotify, the GPU (without torch) and systemd-python (without loading it)."""

import contextlib
import importlib.util
import subprocess
from pathlib import Path

from demixd.cli.check.finding import Finding, Level
from demixd.client.text import some
from demixd.config import Config
from demixd.config.sections import Watch
from demixd.engine import host
from demixd.spool import documents
from demixd.spool.mounts import is_remote, mount_of

LIMITS = Path("/proc/sys/fs/inotify")
DEVICES = Path("/dev")
GRAPHICS = Path("/dev/dri")


def memory(config: Config, work: Path) -> Finding:
    """How much memory holds the sound of the songs in flight; `auto` is what it would be now."""
    size = host.sound_bytes(config.limits.memory_bytes)
    minutes = size / (3 * 8 * 44100 * 60)
    told = f"{size >> 20} MiB for decoded sound, {minutes:.0f} minutes with two stems ([limits] memory_bytes)"
    if size > (there := host.memory()):
        return Finding(Level.NOTE, "memory", f"{told}; there are {there >> 20} MiB of memory: set it lower, or auto")
    return Finding(Level.OK, "memory", f"{told}; what is beyond it goes to {work}")


def watch(config: Config, inbox: Path) -> Finding:
    """Whether inotify's limits suffice: the inbox needs one instance and a watch for every folder, counted per user."""
    every = f"the inbox is looked at every {config.inbox.scan_interval:g} s"
    kind = mount_of(inbox).kind if inbox.is_dir() else ""
    if config.inbox.watch is Watch.POLL and kind and not is_remote(kind):
        told = f"[inbox] watch = poll: {every}, though {kind} tells at once what is dropped: watch = auto hears it"
        return Finding(Level.NOTE, "watch", told)
    if config.inbox.watch is Watch.POLL:
        return Finding(Level.OK, "watch", f"[inbox] watch = poll: {every}")
    if kind and is_remote(kind):
        return Finding(Level.NOTE, "watch", f"no events on {kind}: {every}")
    if not LIMITS.is_dir():
        return Finding(Level.NOTE, "watch", f"this system has no inotify: {every}")
    watches, instances = (int((LIMITS / name).read_text()) for name in ("max_user_watches", "max_user_instances"))
    folders = 1 + (sum(1 for _ in documents.below(str(inbox), folders=True)) if kind else 0)
    told = (
        f"{folders} folder{'' if folders == 1 else 's'} to watch; allowed are {watches} watches, {instances} instances"
    )
    if folders >= watches or instances < 1:
        remedy = f"sysctl fs.inotify.max_user_watches={2 * folders} fs.inotify.max_user_instances=128"
        return Finding(Level.FAIL, "watch", f"{told}: {every} until you raise them: {remedy}")
    if folders > watches // 2:
        return Finding(Level.NOTE, "watch", f"{told}, for all programs of a user: raise fs.inotify.max_user_watches")
    return Finding(Level.OK, "watch", told)


def device(wanted: str, workers: int = 1) -> Finding:
    """The GPUs that the driver shows, or the CPU of so many workers. Only the worker knows whether torch can use a GPU."""
    if wanted == "cpu":
        return _processor(", by [model] device", workers)
    openvino = host.version_of("openvino")
    if wanted.startswith("openvino"):
        return _graphics(wanted, openvino)
    nodes = sorted(node.name for node in DEVICES.glob("nvidia[0-9]*"))
    if not nodes and wanted == "auto":
        faster = f"with OpenVINO {openvino}" if openvino else "OpenVINO would make it faster, see config/README.md"
        return _processor(f": there is no NVIDIA GPU; {faster}", workers)
    number = int(wanted.partition(":")[2] or 0)
    if number >= len(nodes):
        there, remedy = "none", "set auto, or install NVIDIA's driver"
        if nodes:
            there, remedy = f"{len(nodes)} of them", "set auto, or a number below that"
        told = f"[model] device = {wanted}: the machine shows {there}, so that the CPU would be used: {remedy}"
        return Finding(Level.FAIL, "device", told)
    names = _gpu_names()
    if names is None:
        return Finding(
            Level.NOTE, "device", f"{', '.join(nodes)}, but nvidia-smi does not answer: is the driver running?"
        )
    if host.version_of("torch").endswith("+cpu"):
        return Finding(Level.NOTE, "device", f"{names}, but torch here is built for the CPU: install torch with CUDA")
    if lacks := host.lacks_for_compiling():
        slower = f"{names}; the model is not compiled for it, which would make it faster: install {', '.join(lacks)}"
        return Finding(Level.NOTE, "device", slower)
    return Finding(Level.OK, "device", names)


def _processor(why: str, workers: int) -> Finding:
    """The processor, whose cores the workers on it share."""
    cores = host.threads()
    told = f"{f'{workers} workers on ' if workers > 1 else ''}the CPU, {some(cores, 'core')}{why}"
    if workers > cores:
        fewer = (
            f"{told}; more workers than cores make nothing faster, and each takes a model's memory: set {cores} at most"
        )
        return Finding(Level.NOTE, "device", fewer)
    return Finding(Level.OK, "device", told)


def _gpu_names() -> str | None:
    """The GPUs' names; None where nvidia-smi does not answer."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True).stdout
    except FileNotFoundError:
        return "an NVIDIA GPU (no nvidia-smi here to name it)"
    except (OSError, subprocess.SubprocessError):
        return None
    return ", ".join(line.partition(" (UUID")[0] for line in listed.splitlines() if line.startswith("GPU")) or None


def _graphics(wanted: str, openvino: str) -> Finding:
    """Intel graphics, which OpenVINO drives."""
    if not openvino:
        return Finding(
            Level.FAIL, "device", f"[model] device = {wanted}: OpenVINO is not installed; see config/README.md"
        )
    if not any(GRAPHICS.glob("renderD*")):
        return Finding(Level.FAIL, "device", f"[model] device = {wanted}: there is nothing in {GRAPHICS}; use auto")
    return Finding(Level.OK, "device", f"{wanted} with OpenVINO {openvino}; whether it works, only the worker knows")


def systemd() -> Finding:
    """Whether systemd-python is there. `find_spec("systemd")` would find any folder of that name."""
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec("systemd.daemon"):
            return Finding(Level.OK, "systemd", "systemd-python tells systemd how the daemon is")
    return Finding(
        Level.NOTE,
        "systemd",
        "systemd-python, which only the service needs, is not installed: no READY, no WATCHDOG, and the journal without fields",
    )
