"""The pipeline with a network that answers at once, in a process: `python -m benchmarks.ceiling.instant FOLDER`, in JSON lines.

    it says  {"package": PATH}                                             once it is ready
    it hears {"song": PATH, "format": "wav", "stems": ["vocals", ...]}     one line a song
    it says  {"seconds": 1.9, "cpu_s": 2.3, "written_bytes": ..., ...}     once the stems were written, and removed again

What is measured is the demixd on its PYTHONPATH, which may be an older commit's: only the pipeline's public functions are
called, with an observer and an order (`_order`) as that commit has them. FOLDER takes what a song needs while it is separated.
"""

import inspect
import os
import resource
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
from benchmarks.ceiling.messages import Cost, Ready, Work
from demucs.apply import BagOfModels
from torch import Tensor, nn

import demixd
from demixd.engine import host
from demixd.engine.engine import Engine
from demixd.pipeline.song import Observer, Order, run
from demixd.protocol.options import Defaults

PROC = Path("/proc")


class Instant(nn.Module):
    """As htdemucs to the engine, and each of its stems is a quarter of the song."""

    sources = ("drums", "bass", "other", "vocals")
    samplerate, audio_channels, segment = 44100, 2, Fraction(39, 5)

    def valid_length(self, _length: int) -> int:
        """All windows have one length, as htdemucs' have."""
        return int(self.segment * self.samplerate)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows `[B, C, T]` to stems `[B, S, C, T]`, which share their memory."""
        return (windows / len(self.sources))[:, None].expand(-1, len(self.sources), -1, -1)


def _order(work: Work, folder: Path) -> Order:
    """All that an order of any commit holds; what this commit's does not know is left out."""
    facts: dict[str, Any] = {
        "song": Path(work.song),
        "name": Path(work.song).name,
        "tmp": folder / "tmp",
        "out": folder / "out",
        "options": Defaults(stems=work.stems, format=work.format).of("instant", None),  # type: ignore[arg-type]
        "max_duration_s": 3600.0,
        "seed": 1,
    }
    return Order(**{name: fact for name, fact in facts.items() if name in Order.__struct_fields__})


def _cost(work: Work, engine: Engine, parent: Path) -> Cost:
    observer = Observer(**dict.fromkeys(Observer.__struct_fields__, lambda *_: None))  # nobody stops, nobody listens
    timing: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        order = _order(work, Path(folder))
        for name in ("tmp", "out"):
            (Path(folder) / name).mkdir()
        cpu_before, written_before = spent()
        began = time.monotonic()
        _run(order, engine, observer, timing)
        seconds = time.monotonic() - began
        cpu_s, written = spent()
        stems = sum(path.stat().st_size for path in (Path(folder) / "out").rglob("*") if path.is_file())
    return Cost(
        seconds=round(seconds, 3),
        cpu_s=round(cpu_s - cpu_before, 2),
        written_bytes=max(written - written_before - stems, 0),
        timing=timing,
    )


def _run(order: Order, engine: Engine, observer: Observer, timing: dict[str, float]) -> None:
    """As the worker has it: where a commit keeps sound in memory, with as much as it takes by itself."""
    if "shelf" not in inspect.signature(run).parameters:
        run(order, engine, observer, timing)  # type: ignore[call-arg]
        return
    from demixd.audio.budget import Budget
    from demixd.audio.pcm import Shelf

    with Shelf(Budget(host.sound_bytes("auto")), (order.tmp,)) as shelf:
        run(order, engine, shelf, observer, timing)


def spent() -> tuple[float, int]:
    """Seconds of processors, and bytes written, of this process and its children: those that have ended, and those that live.

    Written are the pages that were made dirty in files on a disk, also in files that were removed before the disk got them
    (proc(5), write_bytes); on a tmpfs nothing counts. A process has in its own what its ended children had.
    """
    ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s, written = sum(each.ru_utime + each.ru_stime for each in ours), written_bytes((PROC / "self/io").read_text())
    for path in PROC.glob("[0-9]*/stat"):
        try:
            parent, child_cpu_s = parent_and_time(path.read_text(encoding="utf-8", errors="replace"))
            if parent == os.getpid():
                cpu_s, written = cpu_s + child_cpu_s, written + written_bytes(path.with_name("io").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # another program's process has ended
    return cpu_s, written


def parent_and_time(stat: str) -> tuple[int, float]:
    """The parent in /proc/PID/stat, and the seconds of processors; the process's name, in brackets, can hold anything."""
    words = stat.rpartition(")")[2].split()
    return int(words[1]), (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def written_bytes(io: str) -> int:
    """`write_bytes` of /proc/PID/io."""
    return int(dict(line.split(": ") for line in io.splitlines())["write_bytes"])


def main() -> None:
    bag = BagOfModels([Instant()])  # type: ignore[list-item]
    engine = Engine.warm(bag, name="instant", sha256="0" * 64, device="cpu", precision="float32")
    _say(Ready(package=str(Path(demixd.__file__).parent)))
    for line in sys.stdin.buffer:
        _say(_cost(msgspec.json.decode(line, type=Work), engine, Path(sys.argv[1])))


def _say(message: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
