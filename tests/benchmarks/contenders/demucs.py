"""Demucs as contenders: each takes a song, leaves its stems on disk as 16-bit WAV (vocals, instrumental), and gives the seconds.

    separator   `demucs.api.Separator`, loaded once
    Command     the `demucs` command, which loads the model for each song

All contenders are processes, so that each has its own memory and none outlives its block. The stems of a song are there
for the length of a block too, and are removed at its end.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.resident import PYTHON, Resident

from demixd.cli.bench.daemon import FORMAT, SongFile, StemFiles, peak_bytes
from demixd.cli.bench.report import Run
from demixd.cli.throwaway import POLL_S, child, last_line
from demixd.engine.models.store import Where
from demixd.errors import RefusedError


def separator(folder: Path, where: Where, device: str) -> contextlib.AbstractContextManager[Resident]:
    """Its own process, in which it stays loaded."""
    words = [*PYTHON, "benchmarks.contenders.separator"]
    return Resident.running("demucs.api.Separator", words, folder, where, device)


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
