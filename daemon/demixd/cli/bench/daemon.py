"""A daemon on a throw-away spool that separates songs, and what it takes to do so."""

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from demixd.cli.bench.report import Run, Song
from demixd.cli.console import say
from demixd.cli.songs.follow import Follower
from demixd.cli.throwaway import POLL_S, ThrowawayDaemon
from demixd.client import actions
from demixd.errors import RefusedError
from demixd.protocol.job import EngineFacts, State
from demixd.protocol.result_names import MANIFEST
from demixd.protocol.status import Manifest, Sidecar
from demixd.spool import documents

STEMS = ("vocals", "instrumental")
FORMAT = "wav"

SongFile = tuple[Path, Song]
StemFiles = dict[str, Path]


class MeasuredDaemon:
    """A daemon whose songs become vocals and instrumental as 16-bit WAV.

    `start_s`, `peak_bytes` and `gpu_peak_bytes` are as in `Measured`; `engine` is that of the last song.
    """

    def __init__(self, folder: Path, model: Mapping[str, Any], models: Path) -> None:
        """`model` is a section of the configuration, `models` its folder. Raises ConfigError where one cannot be used."""
        self._daemon = ThrowawayDaemon(
            folder,
            {
                "paths": {"models": str(models)},
                "inbox": {"settle": 0.0, "settle_remote": 0.0, "after": "delete"},
                "status": {"heartbeat_s": 1.0},
                "model": model,
                "defaults": {"stems": STEMS, "format": FORMAT, "bit_depth": 16},
            },
        )
        self._count = 0
        self.start_s: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}
        self.gpu_peak_bytes: int | None = None
        self.engine: EngineFacts | None = None

    @contextlib.contextmanager
    def started_twice(self) -> Iterator[None]:
        """Start it, stop it, start it again: the second start finds what the first one has cached."""
        say("The daemon starts, for the first time and once more.")
        with self._started("first"):
            pass
        with self._started("second"):
            yield

    @contextlib.contextmanager
    def _started(self, which: str) -> Iterator[None]:
        """From a start until the model is warm, and tuned where that is new on this machine."""
        began = time.monotonic()
        with self._daemon.running():
            self.start_s[which] = round(time.monotonic() - began, 3)
            yield

    @contextlib.contextmanager
    def separated(self, song: SongFile) -> Iterator[tuple[Run, StemFiles]]:
        """The run of one song, and its stems, which are removed at the end of the block."""
        path, facts = song
        spool = self._daemon.spool
        self._count += 1
        follower = Follower(spool, f"{self._count} {path.name}")
        began = time.monotonic()
        actions.drop(spool, path, follower.name)
        while not (follower.refresh() and follower.ended):
            self._daemon.check()
            time.sleep(POLL_S)
        seconds = time.monotonic() - began
        sidecar = follower.song
        if sidecar is None or sidecar.state is not State.DONE or sidecar.output is None or sidecar.duplicate_of:
            raise RefusedError(follower.result(spool))
        folder = spool.outbox / sidecar.output.dir
        manifest = documents.read(folder / MANIFEST, Manifest)
        run = Run(
            song=facts,
            seconds=round(seconds, 3),
            separate_s=sidecar.timing.get("separate_s"),
            timing=sidecar.timing,
            gain_db=None if manifest is None else round(manifest.gain_db, 3),
        )
        yield run, {file.stem: folder / file.name for file in sidecar.output.files}
        self._tidy(sidecar, folder)

    def _tidy(self, sidecar: Sidecar, folder: Path) -> None:
        """Note what the processes took, and remove the result, so that no song is a duplicate of it."""
        while self._daemon.spool.song(sidecar.input.name).exists():
            self._daemon.check()
            time.sleep(POLL_S)
        shutil.rmtree(folder)
        worker = self._daemon.heartbeat().get("worker", {})
        self._note("supervisor", self._daemon.pid)
        if worker.get("pid"):
            self._note("worker", worker["pid"])
        self.gpu_peak_bytes = worker.get("gpu_peak_bytes")
        self.engine = sidecar.engine

    def _note(self, name: str, pid: int) -> None:
        self.peak_bytes[name] = max(peak_bytes(pid), self.peak_bytes.get(name, 0))


def peak_bytes(pid: int) -> int:
    """The most that a process has had resident (proc(5), VmHWM); 0 where the system does not tell, or it has just ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
