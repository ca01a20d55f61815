"""The commands, run as people run them, and status files as another daemon could have written them."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from daemons import PATIENCE_S, ROOT, Daemon
from demixd.protocol.status import DaemonStatus, Sidecar


def program(daemon: Daemon, *words: str | Path) -> list[str]:
    return [sys.executable, "-m", "demixd", "--config", str(daemon.config), *map(str, words)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "TERM": "xterm-256color"}


class Piped:
    """A command whose output is no terminal."""

    def __init__(self, daemon: Daemon, *words: str | Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="demixd-piped-"))
        self.out, self.err = self._folder / "out", self._folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(program(daemon, *words), env=ENVIRONMENT, stdout=out, stderr=err)

    def __enter__(self) -> "Piped":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self._folder)

    def says(self, what: str) -> None:
        until(lambda: what in self.out.read_text() + self.err.read_text(), what)

    def ends(self) -> int:
        return self.process.wait(timeout=PATIENCE_S)


class Terminal:
    """A command on a pseudo-terminal; `seen` is all that it has written."""

    def __init__(
        self, daemon: Daemon, *words: str | Path, columns: int = 80, lines: int = 24, **environment: str
    ) -> None:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (lines, columns))
        self._ours = ours
        self.seen = b""
        self.process = subprocess.Popen(
            program(daemon, *words),
            env={key: ENVIRONMENT[key] for key in ENVIRONMENT.keys() - {"COLUMNS", "LINES"}} | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # EIO: nobody has the other end any more
                return
            self.seen += data

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        os.close(self._ours)

    def says(self, *what: str) -> None:
        until(lambda: all(each.encode() in self.seen for each in what), f"{what} in {self.seen[-2000:]!r}")

    @property
    def lines(self) -> list[str]:
        """All that it has written, as lines without what moves the cursor and makes colours."""
        return [
            line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen.decode())) if line
        ]

    def ends(self) -> int:
        status = self.process.wait(timeout=PATIENCE_S)
        self._reader.join()
        return status


def until(condition: Callable[[], Any], what: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit, f"not in {PATIENCE_S} s: {what}"
        time.sleep(0.02)


def write(status: Path, name: str, state: str, **changes: Any) -> None:
    """A sidecar as another daemon could have written it."""
    waits = {"waiting": "queued"}.get(state)
    since = "2026-01-01T00:00:00.000Z"
    progress = {"fraction": 0.5, "step_fraction": 0.5, "eta_s": 11.4, "speed_x": 38.21, "queue_position": None}
    given = {"name": name, "name_b64": "", "size": 1, "mtime_ns": 0, "inode": 1}
    given |= dict.fromkeys(("sha256", "duration_s", "frames", "rate", "channels", "format"))
    document = dict.fromkeys(field.name for field in msgspec.structs.fields(Sidecar))
    document |= {"schema": 1, "seq": 1, "job_id": name, "state": state, "reason": waits, "message": "", "later": [1]}
    document |= {"step": "separate" if state == "running" else None, "progress": {**progress, "more": 1}}
    document |= {"input": given, "options": {}, "attempt": 1, "max_attempts": 3, "timing": {}, "warnings": []}
    document |= {"daemon": {"instance": "", "version": "1"}, "state_since": since, "updated_at": since, **changes}
    path = status / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(document))
    path.with_suffix(".tmp").rename(path)


def heartbeat(seq: int, state: str = "ready", interval_s: float = 1.0) -> DaemonStatus:
    worker = {
        "state": "ready",
        "pid": 2,
        "message": "",
        "model": "htdemucs",
        "device": "cuda:0",
        "device_name": "A GPU",
    }
    worker |= {"precision": "float16", "fallback": None, "memory_bytes": None}
    document = {
        "schema": 1,
        "seq": seq,
        "interval_s": interval_s,
        "state": state,
        "pid": 1,
        "worker": worker,
        "queue": [],
    }
    document |= {"watch": {"mode": "events", "why": ""}, "warnings": [], "version": "1", "updated_at": ""}
    document |= {"running": None, "counts": {}, "daemon": {"instance": "", "version": "1"}}
    return msgspec.convert(document, DaemonStatus)
