"""Listening and stopping: uvicorn in a thread, without its signal handlers and its logging configuration."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

from triage_node.web.feed import Feed
from triage_node.web.guard import Guard
from triage_node.web.routes import application

if TYPE_CHECKING:
    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.web.mounted import Mounted

_START_S = 10.0
_SETTLE_S = 0.05


class Page:
    """The web page of a node; `start` and `stop` may each be called once."""

    def __init__(
        self, settings: Settings, journal: Journal, *, port: int | None = None, also: Mounted | None = None
    ) -> None:
        """`port` overrides the configured one; 0 takes any free port. `also` is served beside the page's own addresses.

        Raises ConfigurationError where certificate and key cannot be used.
        """
        self._host = settings.web.host
        self._port = settings.web.port if port is None else port
        self._feed = Feed(journal, settings)
        guard = Guard(settings, journal)
        context = guard.context
        self._scheme = "http" if context is None else "https"
        self._server = _Server(
            uvicorn.Config(
                application(settings, journal, feed=self._feed, guard=guard, also=also),
                ssl_context_factory=None if context is None else lambda _, __: context,
                log_config=None,
                access_log=False,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="on",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            ),
            self._feed,
            also,
        )
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, the real one where 0 was asked for."""
        return self._port

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        return f"{self._scheme}://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}/"

    @property
    def running(self) -> bool:
        """Whether the page is being served."""
        return self._thread.is_alive() and self._server.started

    def start(self) -> None:
        """Listen and serve in a thread. Raises OSError, with words for people, when the address cannot be had."""
        self._socket = _listen(self._host, self._port)
        self._port = int(self._socket.getsockname()[1])
        self._thread.start()
        if not self._server.ready.wait(_START_S) or not self._server.started:
            raise OSError(errno.EIO, f"the page at {self.url} did not start")

    def stop(self, timeout_s: float = 3.0) -> None:
        """End all streams and answers in progress, and the thread; harmless when nothing runs."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket] if self._socket else None)
        finally:
            self._server.ready.set()


class _Server(uvicorn.Server):
    """Uvicorn waits for open answers before it stops; event streams are open by nature, so they are ended first."""

    def __init__(self, config: uvicorn.Config, feed: Feed, also: Mounted | None) -> None:
        super().__init__(config)
        self._feed = feed
        self._also = also
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._feed.close()
        if self._also is not None:
            self._also.close()
        # Uvicorn waits for connections that are accepted only after it has told all others to close.
        await asyncio.sleep(_SETTLE_S)
        await super().shutdown(sockets)
        # Left over are answers that nobody takes.
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(_SETTLE_S)


def serve(settings: Settings, journal: Journal, stop: threading.Event) -> None:
    """Serve the page until `stop` is set. Raises OSError as `Page.start` does."""
    page = Page(settings, journal)
    page.start()
    try:
        stop.wait()
    finally:
        page.stop()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # a port that lingers after the last run (TIME_WAIT) is free; one that is listened on is not
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise OSError(
            error.errno or errno.EADDRNOTAVAIL,
            f"the page cannot listen on {host} port {port}: {why}; choose another one in section [web]",
        ) from error
    return listener
