"""Demucs as contenders: each takes a song, leaves its stems on disk as 16-bit WAV (vocals, instrumental), and gives the seconds.

    Separator   `demucs.api.Separator`, loaded once
    Command     the `demucs` command, which loads the model for each song

demixd is `MeasuredDaemon` of the package. All are processes, so that each has its own memory and none outlives its block.
The stems of a song are there for the length of a block too, and are removed at its end.
"""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from benchmarks.messages import Done, Loaded, Setup, Task

from demixd.cli.bench.daemon import FORMAT, STEMS, SongFile, StemFiles, peak_bytes
from demixd.cli.bench.report import Run
from demixd.cli.console import RefusedError
from demixd.cli.throwaway import POLL_S, child, last_line
from demixd.engine.models.store import Where

PYTHON = (sys.executable, "-P", "-m")


class Separator:
    """`loaded` is what it says of the device; the rest is as in the report."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
        self._process, self._folder, self._log = process, folder, log
        began = time.monotonic()
        self.loaded = msgspec.json.decode(self._hear(), type=Loaded)
        self.start_s = {"first": round(time.monotonic() - began, 3)}
        self.peak_bytes: dict[str, int] = {}
        self.gpu_peak_bytes: int | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, where: Where, device: str) -> Iterator["Separator"]:
        setup = msgspec.json.encode(Setup(name=where.name, folder=where.models, device=device)).decode()
        folder.mkdir()
        log = folder / "log"
        with child([*PYTHON, "benchmarks.separator", setup], log, talks=True) as process:
            yield cls(process, folder, log)

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
            raise RefusedError(f"demucs.api.Separator has ended: {last_line(self._log)}")
        return line


class Command:
    """`demucs`, as the Separator runs it, but from nothing each time. What it takes of a GPU nobody tells."""

    gpu_peak_bytes = None

    def __init__(self, folder: Path, where: Where, device: str) -> None:
        folder.mkdir()
        self._folder, self._log = folder / "out", folder / "log"
        self._results = self._folder / where.name
        self._words = ["demucs", "--repo", where.models, "-n", where.name, "-d", device, "--shifts", "0"]
        self.start_s: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    @contextlib.contextmanager
    def separated(self, song: SongFile) -> Iterator[tuple[Run, StemFiles]]:
        path, facts = song
        words = [*self._words, "--two-stems", "vocals", "-o", str(self._folder), str(path)]
        peak = self.peak_bytes.get("process", 0)
        began = time.monotonic()
        with child([*PYTHON, *words], self._log) as process:
            while process.poll() is None:
                peak = max(peak, peak_bytes(process.pid))
                time.sleep(POLL_S)
            seconds = time.monotonic() - began
        if process.returncode:
            raise RefusedError(f"the demucs command has failed: {last_line(self._log)}")
        self.peak_bytes = {"process": peak}
        named = self._results / path.name.rpartition(".")[0]
        stems = {"vocals": named / f"vocals.{FORMAT}", "instrumental": named / f"no_vocals.{FORMAT}"}
        yield Run(song=facts, seconds=round(seconds, 3)), stems
        shutil.rmtree(self._folder)
