"""The server: its socket, its life, and how much of it one may take.

A connection that sends no whole head of a request in 10 s, or takes nothing of an answer for two minutes, is closed; and where
there are 300 connections, the one that has waited longest for a head, else for its reader, makes room for a new one. So whoever
opens hundreds that hang keeps nobody out, and takes a few kilobytes for each. Bodies have their own times (app.py, uploads.py).
"""

import asyncio
import errno
import logging
import socket
from types import FrameType
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from demixd.client import text
from demixd.config import Config
from demixd.config.sections import address_of
from demixd.errors import RefusedError
from demixd.spool.tree import Spool
from demixd.web import token
from demixd.web.access import Gate, names_of
from demixd.web.app import Site
from demixd.web.guard import Guard

MOST = 300
"""Connections at once."""

HEAD_S = 10.0
"""How long a connection may wait for a whole head of a request: a new one, and one that was answered."""

STUCK_S = 120.0
"""How long an answer may wait for its reader; a paused player comes back for the rest."""

LARGEST_HEAD = 16 * 1024

log = logging.getLogger(__name__)


class Connection(H11Protocol):
    """uvicorn's, which has no time limit for a head; it forgets its own for the next one at the first byte."""

    _waiting: ClassVar[dict["Connection", None]] = {}
    """Those that wait for a head, the longest first."""
    _unread: ClassVar[dict["Connection", None]] = {}
    """Those whose answers wait for a reader, the longest first."""

    _head: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST:
            next(iter((*self._waiting, *self._unread, self))).transport.abort()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        self._move_on()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._have_head()

    def on_response_complete(self) -> None:
        self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread[self] = None
        self._stuck = self.loop.call_later(STUCK_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._move_on()
        super().resume_writing()

    def _await_head(self) -> None:
        self._have_head()
        self._waiting[self] = None
        self._head = self.loop.call_later(HEAD_S, self.transport.abort)

    def _have_head(self) -> None:
        self._waiting.pop(self, None)
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _move_on(self) -> None:
        self._unread.pop(self, None)
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


class Server(uvicorn.Server):
    """uvicorn's; it ends what never ends by itself before it waits for the rest."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's names
        """A signal only sets the flag; uvicorn would raise it again at the end."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._site.events.close()
        await super().shutdown(sockets)


def listener(listen: str) -> socket.socket:
    """A socket that listens there. Raises RefusedError."""
    host, port = address_of(listen)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6() and host == "::"
        return socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        taken = ": another program has it; choose another port" if error.errno == errno.EADDRINUSE else ""
        reason = error.strerror or error
        raise RefusedError(f"[web] listen = {listen}: nothing can listen there ({reason}){taken}") from error


def gate_of(config: Config, listen: str) -> Gate:
    """Who may, by the configuration; the token is made at the first start, beside word of the address. Raises RefusedError."""
    folder = token.folder()
    try:
        secret = token.keep(folder) if config.web.allow == "token" else None
        token.write_address(folder, listen)
    except OSError as error:
        raise RefusedError(f"the token, or the address, cannot be kept: {text.refusal(error)}") from error
    return Gate(token=secret, names=names_of(socket.gethostname(), config.web.hosts))


def run(config: Config, listen: str, start: str) -> bool:
    """Serve until SIGTERM or Ctrl-C; whether it ran. `start` is the command that starts a daemon here. Raises RefusedError."""
    with listener(listen) as line:
        gate = gate_of(config, listen)
        site = Site(config, Spool(config), start)
        settings = uvicorn.Config(
            Guard(site.app(), gate),
            http=Connection,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=LARGEST_HEAD,
            timeout_graceful_shutdown=3,
        )
        log.info("the page: %s", token.link(listen, None))
        server = Server(settings, site)
        server.run([line])
    return server.started
