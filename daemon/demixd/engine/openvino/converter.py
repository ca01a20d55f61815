"""Has a model converted while the worker has nothing else to do. Songs come first: it stands still while one runs."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from enum import StrEnum
from pathlib import Path

import msgspec

from demixd.engine import host
from demixd.engine.openvino import cache
from demixd.engine.openvino.cache import Conversion
from demixd.errors import AudioProcessingError

PROGRAM = [sys.executable, "-m", "demixd.engine.openvino.convert"]

ROOM_BYTES = 2 << 30
ROOM_FACTOR = 6
"""Converting wants so much free memory, and so many times the model's files: htdemucs (168 MB) takes 1.7 GB at its most."""


class State(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Improver:
    """One conversion: `start` it, `poll` how it goes, `close` it. `reason` says why it failed.

    The conversion ends with the *thread* that started it (PR_SET_PDEATHSIG): start it from one that stays.
    """

    def __init__(self, conversion: Conversion) -> None:
        self._conversion = conversion
        self._root = Path(conversion.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the conversion runs
        self.reason = ""

    def start(self) -> str | None:
        """Begin, and answer None; or say in words why not."""
        refused = cache.reason_not(self._root, cache.key(self._conversion.sha256))
        try:
            missing = refused or self._no_room()
        except AudioProcessingError as error:
            missing = error.message
        if missing is not None:
            return missing
        cache.tidy(self._root, time.time())
        self._process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=self._said, stderr=self._said)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as order:  # it ended; `poll` tells why
            order.write(msgspec.json.encode(self._conversion) + b"\n")
        return None

    def _no_room(self) -> str | None:
        files = self._conversion.model.locate()
        size = sum(path.stat().st_size for path in {member.path for member in files.members})
        needed, room = ROOM_BYTES + ROOM_FACTOR * size, host.room()
        if room >= needed:
            return None
        return f"to convert {files.name} takes {needed / 1e9:.1f} GB of free memory, and there are {room / 1e9:.1f}"

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def poll(self) -> State:
        if self._process is None or (status := self._process.poll()) is None:
            return State.RUNNING
        if status == 0:
            return State.DONE
        self.reason = self._last_words() or f"the conversion ended with status {status}"
        return State.FAILED

    def close(self) -> None:
        """End the conversion if it still runs; nothing half-made stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            cache.tidy(self._root, time.time())
        self._said.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
