"""A daemon on a throw-away spool, driven by files alone as any program would drive it: for `demixd bench` and `daemon/try`."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from demixd import config as configuration
from demixd.client import reader
from demixd.errors import RefusedError
from demixd.spool import child_process
from demixd.spool.tree import Spool

POLL_S = 0.01
"""Short, since `demixd bench` measures times by it."""

STOP_S = 20.0
"""The time after which a process that was asked to stop is killed. A daemon stops within 5 s."""

NO_MODEL = ("missing-model", "dead")
"""The worker's states in which it cannot separate."""


class ThrowawayDaemon:
    """`demixd run` with a configuration of its own. Spool, state, configuration and log lie in `folder`."""

    def __init__(self, folder: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """`sections` are those of the configuration, without `paths.spool` and `paths.state`. Raises ConfigError."""
        (folder / "spool" / "inbox").mkdir(parents=True)
        self._settings, self._log = folder / "demixd.toml", folder / "daemon.log"
        places = {"spool": f"{folder}/spool", "state": f"{folder}/state"}
        tables = {**sections, "paths": {**places, **sections.get("paths", {})}}
        lines = [
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for section, keys in tables.items()
        ]
        self._settings.write_text("\n".join(lines), encoding="utf-8")
        self.config = configuration.load(self._settings)
        self.spool = Spool(self.config)
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """From a start, once the model is warm, to the end of the block. Raises RefusedError where it cannot be warm."""
        words = [*child_process.python("demixd"), "--config", str(self._settings), "run"]
        with child(words, self._log) as self._process:
            self.wait_until(lambda told: told["state"] == "ready" and told["worker"]["state"] == "ready")
            yield

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def heartbeat(self) -> dict[str, Any]:
        """`_daemon.json`, if this process has written it and not one before it; else empty."""
        told = reader.heartbeat(self.spool) or {}
        return told if told.get("pid") == self.pid else {}

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait for a heartbeat that fulfils the condition. Raises RefusedError once it never will."""
        while not ((told := self.heartbeat()) and condition(told)):
            if told and told["worker"]["state"] in NO_MODEL:
                raise RefusedError(told["worker"]["message"])
            self.check()
            time.sleep(POLL_S)

    def check(self, _now: float = 0.0) -> None:
        """Raises RefusedError if the daemon has ended; a `follow.Notice` that has nothing else to say."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RefusedError(f"the daemon has ended: {last_line(self._log)}")


@contextlib.contextmanager
def child(words: list[str], log: Path, *, talks: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A command, which is stopped at the end of the block. Its output goes to `log`.

    With `talks` its standard input and output are pipes, and only its errors go to `log`.
    """
    with (
        log.open("ab") as output,
        subprocess.Popen(
            words,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else output,
            stderr=output,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def last_line(log: Path) -> str:
    """The last line of a process's log: most often the reason why it has ended."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it does not say why"
