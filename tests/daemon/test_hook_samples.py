"""The executables of config/hooks, each against the other side that it is for, with names that others chose."""

import contextlib
import hashlib
import hmac
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from demixd.cli.hooks.execution import facts
from demixd.protocol.job import Error, Output, OutputFile, State
from demixd.protocol.status import End
from demixd.spool.tree import Spool
from end_lines import line, spool_in_its_third_start

HOOKS = Path(__file__).parents[2] / "config" / "hooks"

HOSTILE = 'Älbum/-o "q" $(id) `id`\r\nX-Evil: 1 \u202e🎵.wav'
RESULT = Output(dir="Älbum/-o 🎵", files=(OutputFile(stem="vocals", name="vocals.flac", sha256="0", bytes=1),))
DONE = line(1, HOSTILE, output=RESULT)
FAILED = line(
    2, HOSTILE, State.FAILED, message="No <music>.", error=Error(code="bad-audio", message="", retryable=False)
)


class Server(http.server.ThreadingHTTPServer):
    """Notes what it is asked, and answers with `status` and `body`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status, self.body = 200, b"{}"
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append((self.command, self.path, dict(self.headers.items()), body))
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(server.body)

    do_GET = do_POST  # noqa: N815 - the library's name

    def log_message(self, *_: object) -> None:
        """The test's own output stays as it is."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with contextlib.ExitStack() as stack:
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            yield server


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return spool_in_its_third_start(tmp_path)


def run(name: str, raw: bytes, spool: Spool, **settings: str) -> subprocess.CompletedProcess[str]:
    """The sample's run for an end."""
    end = msgspec.json.decode(raw, type=End)
    environment = os.environ | facts(end, end.input.name, spool) | settings
    words: list[str | Path] = [HOOKS / name, spool.sidecar(end.input.name)]
    return subprocess.run(
        words, input=raw.decode(), env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_ntfy(server: Server, spool: Spool) -> None:
    """One message for a song that is done or has failed, whose text is the song's and its own; none for a cancelled one."""
    settings = {"NTFY_URL": server.url, "NTFY_TOPIC": "stems", "NTFY_TOKEN": "tk_1"}
    for raw in (DONE, FAILED, line(3, HOSTILE, State.CANCELLED)):
        assert run("ntfy", raw, spool, **settings).returncode == 0
    documents: list[dict[str, Any]] = [json.loads(body) for *_, body in server.asked]
    assert [each["title"] for each in documents] == [f"{HOSTILE}: done", f"{HOSTILE}: failed"]
    assert [each["message"] for each in documents] == [f"The stems are in {RESULT.dir}.", "No <music>."]
    assert {each["topic"] for each in documents} == {"stems"}
    assert all(
        headers["Authorization"] == "Bearer tk_1" and "X-Evil" not in headers for _, _, headers, _ in server.asked
    )


def test_webhook(server: Server, spool: Spool) -> None:
    """The receiver gets the line as it is, and can tell who has posted it."""
    assert run("webhook", DONE, spool, WEBHOOK_URL=f"{server.url}/in", WEBHOOK_SECRET="s").returncode == 0
    ((_, path, headers, body),) = server.asked
    assert (path, body) == ("/in", DONE)
    assert headers["X-Demixd-Signature"] == hmac.new(b"s", DONE, hashlib.sha256).hexdigest()


def test_apprise(spool: Spool, tmp_path: Path) -> None:
    """The command gets title and body as words of its own, whatever they begin with."""
    (tmp_path / "apprise").write_text(f'#!/bin/sh\nfor each; do printf "%s\\0" "$each"; done > {tmp_path}/words\n')
    (tmp_path / "apprise").chmod(0o755)
    settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "APPRISE_URL": "json://host"}
    assert run("apprise", FAILED, spool, **settings).returncode == 0
    words = (tmp_path / "words").read_bytes().decode().split("\0")
    assert words == [f"--title={HOSTILE}: failed", "--body=No <music>.", "--", "json://host", ""]
    assert run("apprise", DONE, spool, PATH=settings["PATH"]).returncode != 0  # APPRISE_URL is not set


def test_navidrome(server: Server, spool: Spool) -> None:
    """A song that is done starts a scan, with the password's hash and not the password; what the server refuses is told."""
    settings = {"NAVIDROME_URL": f"{server.url}/", "NAVIDROME_USER": "me", "NAVIDROME_PASSWORD": "secret"}
    server.body = b'{"subsonic-response": {"status": "ok"}}'
    assert run("navidrome", DONE, spool, **settings).returncode == 0
    assert run("navidrome", FAILED, spool, **settings).returncode == 0
    ((_, path, _, _),) = server.asked
    words = {key: value for key, (value,) in parse_qs(urlsplit(path).query).items()}
    assert urlsplit(path).path == "/rest/startScan"
    assert words["t"] == hashlib.md5(f"secret{words['s']}".encode()).hexdigest()
    assert "secret" not in path
    server.body = b'{"subsonic-response": {"status": "failed", "error": {"message": "Wrong username"}}}'
    refused = run("navidrome", DONE, spool, **settings)
    assert refused.returncode == 1
    assert "Wrong username" in refused.stderr


def test_jellyfin(server: Server, spool: Spool) -> None:
    """A song that is done starts a scan of the libraries."""
    assert run("jellyfin", DONE, spool, JELLYFIN_URL=server.url, JELLYFIN_TOKEN="k").returncode == 0
    ((method, path, headers, _),) = server.asked
    assert (method, path, headers["Authorization"]) == ("POST", "/Library/Refresh", 'MediaBrowser Token="k"')


@pytest.mark.parametrize(
    ("name", "variable"),
    [("ntfy", "NTFY_URL"), ("webhook", "WEBHOOK_URL"), ("navidrome", "NAVIDROME_URL"), ("jellyfin", "JELLYFIN_URL")],
)
def test_a_server_that_fails(server: Server, spool: Spool, name: str, variable: str) -> None:
    """A sentence with the address, and status 1, so that it is tried again; also where nobody is there."""
    settings = {"NTFY_TOPIC": "t", "NAVIDROME_USER": "u", "NAVIDROME_PASSWORD": "p", "JELLYFIN_TOKEN": "k"}
    server.status = 503
    for url in (server.url, "http://127.0.0.1:1"):
        done = run(name, DONE, spool, **{**settings, variable: url})
        assert done.returncode == 1
        assert done.stderr.startswith(url)
        assert "Traceback" not in done.stderr


def test_albums(spool: Spool, tmp_path: Path) -> None:
    """Each stem has a folder for the album, with a link for each song; the second time changes nothing."""
    stem = spool.outbox / RESULT.dir / "vocals.flac"
    stem.parent.mkdir(parents=True)
    stem.write_text("vocals")
    for _ in range(2):
        assert run("albums", DONE, spool, ALBUMS=str(tmp_path / "albums")).returncode == 0
    (folder,) = (tmp_path / "albums").iterdir()
    (link,) = folder.iterdir()
    assert (folder.name, link.name, link.read_text()) == ("Älbum (vocals)", "-o 🎵.flac", "vocals")
    forged = line(4, output=Output(dir="../../etc", files=RESULT.files))
    assert run("albums", forged, spool, ALBUMS=str(tmp_path / "albums")).returncode == 0
    assert [each.name for each in (tmp_path / "albums").iterdir()] == [folder.name]
