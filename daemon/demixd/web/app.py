"""Which address does what. Whoever may not gets nowhere near: `Guard` stands before all of it.

    GET  /                          the page; with ?token=... it sets the cookie, and leads to the clean address
    GET  /app.js ... /player.js     what the page loads
    GET  /settings                  what the page has to know of the configuration
    GET  /events                    what goes on (events.py)
    GET  /songs?q=&state=&start=    a search, the newest songs first
    GET  /songs/ID                  one song
    GET  /songs/ID/files/NAME       a file of its result; /songs/ID/all.zip: all of them
    POST /songs/ID/cancel  /songs/ID/again  /songs/ID/priority {"priority": N}
    POST /pause {"now": false}      DELETE /pause
    PUT  /inbox/PATH?profile=&stems=    a song

An error is {"error": SENTENCE}.
"""

import asyncio
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Annotated, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from demixd.config import Config
from demixd.protocol.inbox_names import READABLE
from demixd.protocol.result_names import holdable
from demixd.spool.tree import Spool
from demixd.version import __version__
from demixd.web import stems, view
from demixd.web.access import parts_of
from demixd.web.events import Events
from demixd.web.problem import ProblemError
from demixd.web.songs import Songs, listed
from demixd.web.state import State
from demixd.web.uploads import Uploads

T = TypeVar("T", bound=msgspec.Struct)

LARGEST_BODY, BODY_S = 4096, 10.0
"""Bytes of a request that asks for something, and how long they may take."""

ZIPS = 4
"""ZIPs that are made at once."""

NO_STORE = {"cache-control": "no-store"}

PAGE = {
    "/": ("demixd.web.page", "index.html", "text/html; charset=utf-8"),
    "/app.css": ("demixd.web.page", "app.css", "text/css; charset=utf-8"),
    "/icon.svg": ("demixd.web.page", "icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": ("demixd.web.page", f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("app", "dom", "now", "songs", "drop")
    },
    "/player.js": ("demixd.protocol.pages", "player.js", "text/javascript; charset=utf-8"),
    "/player.css": ("demixd.protocol.pages", "player.css", "text/css; charset=utf-8"),
}
"""The files of the page, by their addresses: packages, names and types."""


class Priority(msgspec.Struct, forbid_unknown_fields=True):
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)]


class PauseWish(msgspec.Struct, forbid_unknown_fields=True):
    now: bool = False


class Site:
    """The answers. `events` ends when the server does."""

    def __init__(self, config: Config, spool: Spool, start: str) -> None:
        self._config = config
        state = State(spool, recursive=config.inbox.recursive, start=start)
        self._state, self._songs, self._uploads = state, Songs(spool, state), Uploads(config, spool)
        self._zips = asyncio.Semaphore(ZIPS)
        self.events = Events(state)

    def app(self) -> Starlette:
        """Raises nothing: what is wrong with a request is its answer."""
        does: list[tuple[str, str, Callable[[Request], object]]] = [
            *(("GET", path, self.static) for path in PAGE),
            ("GET", "/settings", self.settings),
            ("GET", "/events", self.stream),
            ("GET", "/songs", self.search),
            ("GET", "/songs/{job_id}", self.song),
            ("GET", "/songs/{job_id}/all.zip", self.zip),
            ("GET", "/songs/{job_id}/files/{name:path}", self.file),
            ("POST", "/songs/{job_id}/cancel", self.cancel),
            ("POST", "/songs/{job_id}/again", self.again),
            ("POST", "/songs/{job_id}/priority", self.priority),
            ("POST", "/pause", self.pause),
            ("DELETE", "/pause", self.go_on),
            ("PUT", "/inbox/{name:path}", self.upload),
        ]
        routes = [Route(path, endpoint, methods=[method]) for method, path, endpoint in does]
        app = Starlette(
            routes=routes, exception_handlers={ProblemError: _tell, ClientDisconnect: _nobody, 404: _not_found}
        )
        app.router.redirect_slashes = False
        return app

    async def static(self, request: Request) -> Response:
        package, name, media_type = PAGE[request.scope["path"]]
        try:
            data = await asyncio.to_thread((resources.files(package) / name).read_bytes)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            raise ProblemError(404, f"{name} is not there: this demixd is incomplete.") from error
        return Response(data, headers={"cache-control": "no-cache"}, media_type=media_type)

    async def settings(self, _: Request) -> Response:
        config = self._config
        facts = {
            "version": __version__,
            "profiles": list(config.profiles),
            "stems": config.defaults.stems,
            "max_bytes": config.limits.max_bytes,
            "folders": config.inbox.recursive,
            "extensions": sorted(READABLE),
        }
        return _json(view.encode(facts))

    async def stream(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(headers=NO_STORE, media_type="text/event-stream")
        return StreamingResponse(self.events.stream(), headers=NO_STORE, media_type="text/event-stream")

    async def search(self, request: Request) -> Response:
        query = request.query_params
        start = query.get("start", "0")
        number = int(start) if start.isascii() and start.isdigit() and len(start) < 10 else 0
        found = await asyncio.to_thread(self._state.search, query.get("q", ""), query.get("state", ""), number)
        return _json(view.encode(found))

    async def song(self, request: Request) -> Response:
        return _json(await asyncio.to_thread(self._songs.detail, request.path_params["job_id"]))

    async def file(self, request: Request) -> Response:
        job_id, name = request.path_params["job_id"], request.path_params["name"]
        file, media_type = await asyncio.to_thread(self._songs.file, job_id, name)
        return stems.respond(file, name, media_type, request.headers, head=request.method == "HEAD")

    async def zip(self, request: Request) -> Response:
        folder, manifest = await asyncio.to_thread(self._songs.result, request.path_params["job_id"])
        name = holdable(folder.rpartition("/")[2])
        headers = NO_STORE | {"content-disposition": stems.as_attachment(f"{name}.zip")}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="application/zip")
        if self._zips.locked():
            raise ProblemError(503, "Too many ZIPs are made at once: try it again in a while.")
        pieces = stems.zipped(name, listed(manifest), lambda each: self._songs.open(folder, each))
        return StreamingResponse(stems.in_turn(pieces, self._zips), headers=headers, media_type="application/zip")

    async def cancel(self, request: Request) -> Response:
        return await self._do(lambda: self._songs.cancel(request.path_params["job_id"]))

    async def again(self, request: Request) -> Response:
        return await self._do(lambda: self._songs.again(request.path_params["job_id"]))

    async def priority(self, request: Request) -> Response:
        wish = await _body(request, Priority)
        return await self._do(lambda: self._songs.set_priority(request.path_params["job_id"], wish.priority))

    async def pause(self, request: Request) -> Response:
        wish = await _body(request, PauseWish)
        return await self._do(lambda: self._songs.pause(now=wish.now))

    async def go_on(self, _: Request) -> Response:
        return await self._do(self._songs.go_on)

    async def _do(self, deed: Callable[[], str]) -> Response:
        return _json(view.encode({"said": await asyncio.to_thread(deed)}))

    async def upload(self, request: Request) -> Response:
        parts = parts_of(request.scope["raw_path"]) or []
        length = request.headers.get("content-length")
        body = (data async for data in request.stream() if data)
        taken = await self._uploads.take(
            parts[1:], request.query_params, int(length) if length is not None else None, body
        )
        return _json(view.encode({"name": taken}), 201)


async def _body(request: Request, kind: type[T]) -> T:
    """The small JSON document that a request has for its body. Raises ProblemError."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                data += piece
                if len(data) > LARGEST_BODY:
                    raise ProblemError(413, "That is more than anything here can ask for.")
    except TimeoutError as error:
        raise ProblemError(408, "Nothing more of the request has come.") from error
    try:
        return msgspec.json.decode(bytes(data) or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, f"That cannot be asked for: {error}.") from error


def _json(data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(data, status, NO_STORE | dict(headers or {}), "application/json")


def refused(status: int, sentence: str) -> Response:
    """The answer to a request that is refused: the rest of its body is not waited for."""
    return _json(view.encode({"error": sentence}), status, {"connection": "close"})


async def _tell(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return refused(error.status, error.sentence)


async def _not_found(_: Request, __: Exception) -> Response:
    return refused(404, "There is nothing at that address.")


async def _nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # whoever asked has gone, and reads no answer
