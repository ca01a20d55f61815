"""A real daemon on a spool of its own, driven by files alone."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from demixd.spool.tree import SIDECAR, companion

ROOT = Path(__file__).parents[2]
MUSIC = ROOT.parent / "shared" / "audio"
LAUNCH = Path(__file__).with_name("launch.py")
PATIENCE_S = float(os.environ.get("PATIENCE_S", "240"))
"""These machines are shared: a wait that ends well ends early, and this only bounds one that does not."""
LOOK_S = 0.05
"""How often a daemon looks into its inbox, and beats: what a test mostly waits for is the next look."""
CLIENT_BEAT_S = 0.5
"""How often one beats that other programs wait for: they take it for dead after three beats, and this machine may be busy."""


def make_song(path: Path, seconds: float = 1.0, rate: int = 44100, channels: int = 2, **how: Any) -> Path:
    """A song of noise and tones at `path`, in the format of its extension."""
    rng = np.random.default_rng(zlib.crc32(os.fsencode(path.name)))
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.2 * np.sin(2 * np.pi * 220 * t)[:, None] + 0.05 * rng.standard_normal((len(t), channels))
    soundfile.write(path, wave, rate, **how)
    return path


def below(folder: Path) -> Iterator[Path]:
    """Everything in it, at any depth, while a daemon works there: what goes away meanwhile is left out. No link is followed."""
    for root, folders, files in os.walk(folder):
        yield from (Path(root, name) for name in (*folders, *files))


class Daemon:
    """`demixd run` on `folder`/spool; start and stop it as often as you like."""

    make_song = staticmethod(make_song)
    """Makes a song that its worker can read."""

    def __init__(self, folder: Path, *, fake: bool = False, **sections: dict[str, Any]) -> None:
        """`fake` gives it tests/support/fake_worker.py, for tests in which the model does not matter."""
        self.folder, self.fake = folder, fake
        self.spool = folder / "spool"
        self.inbox, self.outbox = self.spool / "inbox", self.spool / "outbox"
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.config = folder / "demixd.toml"
        self.log = folder / "log"
        self.constants: dict[str, Any] = {}
        """Constants that it is to start with other values of, as MODULE:NAME."""
        self.process: subprocess.Popen[bytes] | None = None
        settings: dict[str, dict[str, Any]] = {
            "paths": {"spool": str(self.spool), "state": str(folder / "state")},
            "model": {"name": "demo", "device": "cpu"},
            "inbox": {"settle": 0.1, "scan_interval": LOOK_S, "profile_folders": False},
            "status": {"heartbeat_s": LOOK_S, "progress_s": 0.05},
        }
        for name, keys in sections.items():
            settings.setdefault(name, {}).update(keys)
        lines = [
            f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items())
            for name, keys in settings.items()
        ]
        self.config.write_text("\n".join(lines), encoding="utf-8")

    def start(self, at: dict[str, str] | None = None, *, under: tuple[str, ...] = (), **env: str) -> "Daemon":
        """Start it; `at` is what happens at which trace point, in words of tests/support/launch.py with blanks between them.

        `under` is a command that is to start it, such as strace.
        """
        program = [str(LAUNCH), *(["--fake"] if self.fake else [])]
        for name, value in self.constants.items():
            program += ["--set", name, json.dumps(value)]
        for point, actions in (at or {}).items():
            for action in actions.split():
                program += ["--at", point, action]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "FAKE_FOLDER": str(self.folder), **env}
        self._bring_conversion()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*under, sys.executable, *program, "--", "--config", str(self.config), "run"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )
        return self

    @property
    def hold(self) -> Path:
        """While this file is there, the fake worker does not get on with its song."""
        return self.folder / "hold"

    def _bring_conversion(self) -> None:
        """Give a state folder that is still to be made what the real workers of this run have converted: it costs 10 s."""
        shared, state = self._shared_conversion, self.folder / "state"
        if shared is not None and shared.exists() and not state.exists():
            state.mkdir(0o700)
            shutil.copytree(shared, state / "compiled")

    def _share_conversion(self) -> None:
        """Leave what the worker has converted to the daemons of other tests."""
        shared, made = self._shared_conversion, self.folder / "state" / "compiled"
        if shared is not None and not shared.exists() and any(made.glob("*/runs.json")):
            part = Path(tempfile.mkdtemp(dir=shared.parent, prefix="compiled-"))
            shutil.copytree(made, part, dirs_exist_ok=True)
            with contextlib.suppress(OSError):  # another one was faster
                part.rename(shared)

    @property
    def _shared_conversion(self) -> Path | None:
        """Where conversions of this run of the tests are; None for a fake worker, which has none."""
        run = next((each for each in self.folder.parents if re.fullmatch(r"pytest-\d+", each.name)), None)
        return None if self.fake or run is None else run / "compiled"

    def command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command of demixd on this daemon's configuration, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "demixd", "--config", str(self.config), *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=PATIENCE_S)
        self._share_conversion()
        return status

    def kill_worker(self) -> None:
        """SIGKILL for its worker, if it has one."""
        if pid := self.read("_daemon.json")["worker"]["pid"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def read(self, path: str) -> dict[str, Any]:
        """A status file; {} where it is not there."""
        try:
            document: dict[str, Any] = json.loads((self.spool / "status" / path).read_bytes())
        except FileNotFoundError:
            return {}
        return document

    def song(self, name: str) -> dict[str, Any]:
        return self.read(companion(name, SIDECAR))

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until `condition` gives something."""
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            if found := condition():
                return found
            if self.process is not None and self.process.poll() is not None and not condition():
                raise AssertionError(f"the daemon ended before: {what}\n{self._said()}")
            time.sleep(0.02)
        raise AssertionError(f"not in {PATIENCE_S} s: {what}\n{self._said()}")

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def ready(self) -> "Daemon":
        assert self.process is not None
        pid = self.process.pid
        self.until(
            lambda: self.read("_daemon.json").get("pid") == pid and self.read("_daemon.json")["state"] == "ready",
            "ready",
        )
        return self

    def state(self, name: str, *states: str) -> dict[str, Any]:
        """Wait until the song is in one of `states`."""
        found: dict[str, Any] = self.until(
            lambda: self.song(name) if self.song(name).get("state") in states else None, f"{name} {states}"
        )
        return found

    def final(self, name: str) -> dict[str, Any]:
        """Wait until the song has ended and its original is put away, and the daemon has nothing left to do for it."""
        return self.state(name, "done", "failed", "cancelled")

    def results(self) -> set[str]:
        """What is in the outbox for everyone to see."""
        return {path.relative_to(self.outbox).as_posix() for path in below(self.outbox) if ".demixd" not in path.parts}

    def works(self) -> list[Path]:
        """Work folders."""
        private = self.outbox / ".demixd"
        return [path for path in private.iterdir() if path.is_dir()] if private.exists() else []

    def quiet(self, looks: int = 5) -> None:
        """Wait until it has nothing left to do, also after some more looks: each heartbeat comes with one, or after it."""
        beats: list[int] = []

        def is_quiet() -> bool:
            told = self.read("_daemon.json")
            is_idle = told.get("state") == "ready" and not told["queue"] and not told["running"]
            if not is_idle or self.works() or self.unfinished():
                beats.clear()
            elif told["seq"] not in beats:
                beats.append(told["seq"])
            return len(beats) > looks

        self.until(is_quiet, "nothing left to do")

    def unfinished(self) -> list[str]:
        """Sidecars of jobs that are not final."""
        files = (path for path in below(self.spool / "status") if path.suffix == ".json" and path.name[0] not in "._")
        found = [json.loads(path.read_bytes()) for path in files]
        return [each["input"]["name"] for each in found if each["state"] in ("waiting", "running")]


@contextlib.contextmanager
def running(folder: Path, *, fake: bool = False, **sections: dict[str, Any]) -> Iterator[Daemon]:
    """A daemon that is ready, and is stopped afterwards."""
    daemon = Daemon(folder, fake=fake, **sections).start()
    try:
        yield daemon.ready()
        assert daemon.stop() == 0
    finally:
        daemon.end()


@contextlib.contextmanager
def heard(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A notify socket as systemd has: its address, and the lines that come."""
    lines: list[str] = []
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(folder / "notify"))
        line.settimeout(0.1)

        def listen() -> None:
            while not stop.is_set():
                try:
                    lines.extend(line.recv(4096).decode().splitlines())
                except TimeoutError:
                    continue

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield str(folder / "notify"), lines
        finally:
            stop.set()
            listener.join()
