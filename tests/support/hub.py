"""A Hugging Face hub on this machine: answers for files as the real one does, and can misbehave on request.

http://127.0.0.1:PORT/NAMESPACE/REPO/resolve/REVISION/FILE
  small file  307 to /api/resolve-cache/..., which has it; ETag: git's sha1
  large file  302 to the storage, another origin; X-Linked-Etag: sha256, X-Linked-Size
  no file     404, X-Error-Code: EntryNotFound; no repository: 401, as the hub tells strangers
Both name the commit in X-Repo-Commit. The storage honours Range. As a proxy it serves any host's paths.
"""

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(kw_only=True)
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None
    user_agent: str
    sent: int = 0


@dataclass
class Hub:
    """`files` maps (repository, file) to bytes; a file is large if its name ends in .safetensors."""

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    """The storage hangs up after so many bytes: the next answer after the first number, then the second ..."""
    stall_after: int | None = None
    """The storage sends so many bytes of an answer, and then nothing until the hub closes."""
    corrupt: bool = False
    """The storage changes a byte of what it sends."""
    ignore_range: bool = False
    status: int | None = None
    """Every answer has this status."""
    states_hash: bool = True

    def __enter__(self) -> Self:
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in self._servers]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def storage(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def downloads(self) -> list[Request]:
        """The requests for large files' bytes, in order."""
        return [request for request in self.requests if request.path.startswith("/storage/")]

    def stored(self, sha256: str) -> bytes:
        return next(data for data in self.files.values() if hashlib.sha256(data).hexdigest() == sha256)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.request_made = Request(
            method=self.command,
            path=path,
            range=self.headers["Range"],
            authorization=self.headers["Authorization"],
            user_agent=self.headers["User-Agent"],
        )
        self.hub.requests.append(self.request_made)
        parts = path.strip("/").split("/")
        if self.hub.status is not None:
            self.reply(self.hub.status)
        elif parts[0] == "storage":
            self.send_stored(self.hub.stored(parts[1]))
        elif parts[0] == "api":
            self.send_small(self.hub.files["/".join(parts[3:5]), parts[6]], parts[5])
        else:
            self.resolve("/".join(parts[:2]), parts[3], parts[4])

    def resolve(self, repo: str, revision: str, name: str) -> None:
        if repo not in {known for known, _ in self.hub.files}:
            self.reply(401, {"X-Error-Code": "RepoNotFound"})
        elif (repo, name) not in self.hub.files or revision not in ("main", COMMIT):
            self.reply(404, {"X-Error-Code": "EntryNotFound"})
        elif name.endswith(".safetensors"):
            data = self.hub.files[repo, name]
            sha256 = hashlib.sha256(data).hexdigest()
            facts = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))}
            if self.hub.states_hash:
                facts["X-Linked-Etag"] = f'"{sha256}"'
            self.reply(302, facts | {"Location": f"{self.hub.storage}/storage/{sha256}"})
        else:
            target = f"/api/resolve-cache/models/{repo}/{COMMIT}/{name}"
            self.reply(307, {"X-Repo-Commit": COMMIT, "Location": target})

    def send_small(self, data: bytes, commit: str) -> None:
        sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.reply(200, {"X-Repo-Commit": commit, "ETag": f'"{sha1}"'}, data)

    def send_stored(self, data: bytes) -> None:
        first, status, facts = 0, 200, {"ETag": '"of the storage"'}
        asked = self.request_made.range
        if asked and not self.hub.ignore_range:
            first, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            facts["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if self.hub.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.reply(status, facts, data[first:])

    def reply(self, status: int, facts: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in (facts or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.send_body(body)

    def send_body(self, body: bytes) -> None:
        stored = self.request_made.path.startswith("/storage/")
        limit = self.hub.cuts.pop(0) if stored and self.hub.cuts else self.hub.stall_after if stored else None
        sent = body if limit is None else body[:limit]
        try:
            self.wfile.write(sent)
            self.wfile.flush()
        except ConnectionError:  # they left
            self.close_connection = True
        self.request_made.sent = len(sent)
        if len(sent) < len(body):
            if self.hub.stall_after is not None:
                self.hub.closing.wait()
            self.close_connection = True
