"""A real `demixd web` on a spool, and whoever speaks to it."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemons import PATIENCE_S, ROOT


class Answer:
    """An answer of HTTP."""

    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.data = found.status, found.headers, found.read()

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Site:
    """`demixd web` with the configuration of a daemon, which need not run; its browser has the token, until it is taken away."""

    def __init__(self, config: Path) -> None:
        self.config, self.state = config, config.parent / "xdg"
        with socket.socket() as line:
            line.bind(("127.0.0.1", 0))
            self.port = line.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self.log = config.parent / "web.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "XDG_STATE_HOME": str(self.state)}

    def start(self) -> "Site":
        words = [sys.executable, "-m", "demixd", "--config", str(self.config), "web"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "--listen", f"127.0.0.1:{self.port}"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                if self.ask("GET", "/icon.svg", cookie="").status == 200:
                    return self
            time.sleep(0.05)
        raise AssertionError(f"it does not answer: {self.log.read_text()}")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`demixd web` with these words, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "demixd", "--config", str(self.config), "web", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def token(self) -> str:
        return (self.state / "demixd-web" / "token").read_text().strip()

    @property
    def link(self) -> str:
        return f"{self.origin}/?token={self.token}"

    @property
    def cookie(self) -> str:
        answer = self.ask("GET", f"/?token={self.token}", cookie="")
        return answer.headers["set-cookie"].partition(";")[0]

    def ask(self, method: str, path: str, body: Any = None, *, cookie: str | None = None, **headers: str) -> Answer:
        """A request as the page makes it; headers that are given replace those (`_` for `-`), empty ones leave them out."""
        sent = {
            "host": f"127.0.0.1:{self.port}",
            "cookie": self.cookie if cookie is None else cookie,
            "origin": self.origin,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value:
                    line.putheader(name, value)
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            if data is not None and "content-length" not in sent:
                line.putheader("content-length", str(len(data)))
            line.endheaders(data)
            return Answer(line.getresponse())
        finally:
            line.close()

    def events(self, seconds: float) -> Iterator[tuple[str, str]]:
        """The events that come within some seconds."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        limit = time.monotonic() + seconds
        try:
            line.request("GET", "/events", headers={"cookie": self.cookie})
            stream = line.getresponse()
            name = ""
            while time.monotonic() < limit:
                text = stream.readline().decode().rstrip("\n")
                if text.startswith("event: "):
                    name = text.removeprefix("event: ")
                elif text.startswith("data:"):
                    yield name, text.removeprefix("data:").strip()
        finally:
            line.close()

    @property
    def memory_bytes(self) -> int:
        """Its memory that no file is behind."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) << 10


@contextlib.contextmanager
def serving(config: Path) -> Iterator[Site]:
    """A site that is stopped afterwards, cleanly, with nothing to complain of in its log."""
    site = Site(config)
    try:
        yield site.start()
        assert site.stop() == 0
        assert "Traceback" not in (said := site.log.read_text()), said
    finally:
        site.end()
