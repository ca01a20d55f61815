"""The contenders: each takes a song, leaves its stems on disk as 16-bit WAV (vocals, instrumental), and gives the seconds.

    Demixd       a daemon on a spool of its own, driven by files alone: from the drop to `done` in the sidecar
    Separator   `demucs.api.Separator`, loaded once
    Command     the `demucs` command, which loads the model for each song

All of them are processes, so that each has its own memory and none outlives its block. What they have separated is there
for the length of a block too, and removed at its end.
"""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from demixd import config as configuration
from demixd.cli import client
from demixd.cli.bench.messages import Done, Loaded, Setup, Task
from demixd.cli.bench.processes import child, last_line, peak_bytes
from demixd.cli.bench.report import Run
from demixd.cli.bench.songs import Piece
from demixd.cli.client import RefusedError
from demixd.cli.wait import Follower
from demixd.engine.models.store import Where
from demixd.protocol.job import EngineFacts, State
from demixd.protocol.result_names import MANIFEST
from demixd.protocol.status import Manifest, Sidecar
from demixd.spool import documents
from demixd.spool.tree import Spool

POLL_S = 0.01
"""No time is told more exactly than this."""

STEMS = ("vocals", "instrumental")
Stems = dict[str, Path]
"""Where each of them lies."""

FORMAT = "wav"
"""Demucs writes FLAC by a command of the system that may not be there, and MP3 by another encoder."""


class Demixd:
    """The daemon. `start_s`, `peak_bytes` and `gpu_peak_bytes` are as in the report; `engine` is of the last song."""

    def __init__(self, folder: Path, where: Where, *, device: str, precision: str | None) -> None:
        """Raises ConfigError where this version does not know `precision`."""
        (folder / "spool").mkdir(parents=True)
        self._settings, self._log = folder / "demixd.toml", folder / "log"
        model = {"name": where.name, "device": device, "allow_pickle": where.allow_pickle}
        sections: dict[str, dict[str, Any]] = {
            "paths": {"spool": f"{folder}/spool", "state": f"{folder}/state", "models": where.models},
            "inbox": {"settle": 0.0, "settle_remote": 0.0, "after": "delete"},
            "status": {"heartbeat_s": 1.0},
            "model": model if precision is None else {**model, "precision": precision},
            "defaults": {"stems": STEMS, "format": FORMAT, "bit_depth": 16},
        }
        lines = [
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for section, keys in sections.items()
        ]
        self._settings.write_text("\n".join(lines), encoding="utf-8")
        self._spool = Spool(configuration.load(self._settings))
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start_s: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}
        self.gpu_peak_bytes: int | None = None
        self.engine: EngineFacts | None = None

    @contextlib.contextmanager
    def running(self, which: str) -> Iterator[None]:
        """From a start, named `which`, until the model is warm; then, as `conversion`, until its fastest way to run is known."""
        began = time.monotonic()
        with child(["demixd", "--config", str(self._settings), "run"], self._log) as self._process:
            self._until(lambda told: told["state"] == "ready" and told["worker"]["state"] in ("ready", "tuning"))
            warm = time.monotonic()
            self.start_s[which] = round(warm - began, 3)
            if self._heartbeat()["worker"]["state"] == "tuning":
                self._until(lambda told: told["worker"]["state"] == "ready")
                self.start_s.setdefault("conversion", round(time.monotonic() - warm, 3))
            yield

    def _until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        while not ((told := self._heartbeat()) and condition(told)):
            if told and told["worker"]["state"] in ("missing-model", "dead"):
                raise RefusedError(told["worker"]["message"])
            self._check()
            time.sleep(POLL_S)

    def _heartbeat(self) -> dict[str, Any]:
        """What this process, not an earlier one, tells in `_daemon.json`."""
        assert self._process is not None
        told = client.daemon(self._spool) or {}
        return told if told.get("pid") == self._process.pid else {}

    def _check(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RefusedError(f"the daemon has ended: {last_line(self._log)}")

    @contextlib.contextmanager
    def separated(self, song: Piece) -> Iterator[tuple[Run, Stems]]:
        path, facts = song
        self._count += 1
        follower = Follower(self._spool, f"{self._count} {path.name}")
        began = time.monotonic()
        client.drop(self._spool, path, follower.name)
        while not (follower.look() and follower.ended):
            self._check()
            time.sleep(POLL_S)
        seconds = time.monotonic() - began
        sidecar = follower.song
        if sidecar is None or sidecar.state is not State.DONE or sidecar.output is None or sidecar.duplicate_of:
            raise RefusedError(follower.result(self._spool))
        folder = self._spool.outbox / sidecar.output.dir
        manifest = documents.read(folder / MANIFEST, Manifest)
        run = Run(
            song=facts,
            seconds=round(seconds, 3),
            separate_s=sidecar.timing.get("separate_s"),
            timing=sidecar.timing,
            gain_db=None if manifest is None else round(manifest.gain_db, 3),
        )
        yield run, {file.stem: folder / file.name for file in sidecar.output.files}
        self._tidy(sidecar)

    def _tidy(self, sidecar: Sidecar) -> None:
        """Note what the processes took, and leave no result that could be found again."""
        assert self._process is not None and sidecar.output is not None
        while self._spool.song(sidecar.input.name).exists():
            self._check()
            time.sleep(POLL_S)
        shutil.rmtree(self._spool.outbox / sidecar.output.dir)
        worker = self._heartbeat().get("worker", {})
        self._note("supervisor", self._process.pid)
        if worker.get("pid"):
            self._note("worker", worker["pid"])
        self.gpu_peak_bytes = worker.get("gpu_peak_bytes")
        self.engine = sidecar.engine

    def _note(self, name: str, pid: int) -> None:
        self.peak_bytes[name] = max(peak_bytes(pid), self.peak_bytes.get(name, 0))


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
        with child(["demixd.cli.bench.separator", setup], log, talks=True) as process:
            yield cls(process, folder, log)

    @contextlib.contextmanager
    def separated(self, song: Piece) -> Iterator[tuple[Run, Stems]]:
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
    def separated(self, song: Piece) -> Iterator[tuple[Run, Stems]]:
        path, facts = song
        words = [*self._words, "--two-stems", "vocals", "-o", str(self._folder), str(path)]
        peak = self.peak_bytes.get("process", 0)
        began = time.monotonic()
        with child(words, self._log) as process:
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
