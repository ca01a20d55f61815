"""A contender that loads its model once, in a process of its own: a song in, its stems on disk and the seconds out."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from benchmarks.contenders.messages import Done, Loaded, Setup, Task

from demixd.cli.bench.daemon import FORMAT, STEMS, SongFile, StemFiles, peak_bytes
from demixd.cli.bench.report import Run
from demixd.cli.throwaway import child, last_line
from demixd.engine.models.store import Where
from demixd.errors import RefusedError

PYTHON = (sys.executable, "-P", "-m")


class Resident:
    """`loaded` is what it says of itself; the rest is as in the report."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
        self._name, self._process, self._folder, self._log = name, process, folder, log
        began = time.monotonic()
        self.loaded = msgspec.json.decode(self._hear(), type=Loaded)
        self.start_s = {"first": round(time.monotonic() - began, 3)}
        self.peak_bytes: dict[str, int] = {}
        self.gpu_peak_bytes: int | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, name: str, words: list[str], folder: Path, where: Where, device: str) -> Iterator["Resident"]:
        """`words` start it. Raises RefusedError, with the last line that it wrote, where it ends before it is ready."""
        setup = msgspec.json.encode(Setup(name=where.name, folder=where.models, device=device)).decode()
        folder.mkdir()
        log = folder / "log"
        with child([*words, setup], log, talks=True) as process:
            yield cls(name, process, folder, log)

    @contextlib.contextmanager
    def separated(self, song: SongFile) -> Iterator[tuple[Run, StemFiles]]:
        path, facts = song
        assert self._process.stdin is not None
        began = time.monotonic()
        self._process.stdin.write(msgspec.json.encode(Task(song=str(path), folder=str(self._folder))) + b"\n")
        self._process.stdin.flush()
        done = msgspec.json.decode(self._hear(), type=Done)
        seconds = time.monotonic() - began
        self.peak_bytes = {"process": peak_bytes(self._process.pid)}
        self.gpu_peak_bytes = done.gpu_peak_bytes
        stems = {stem: self._folder / f"{stem}.{FORMAT}" for stem in STEMS}
        yield Run(song=facts, seconds=round(seconds, 3), separate_s=round(done.separate_s, 3)), stems
        for path in stems.values():
            path.unlink()

    def _hear(self) -> bytes:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RefusedError(f"{self._name} has ended: {last_line(self._log)}")
        return line
