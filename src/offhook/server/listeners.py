"""The sockets on which the server listens: plain, and with TLS a second one, with the same behind both.

A third one may serve metrics and health alone.

uvicorn parses HTTP and drives the ASGI application; sockets, signals and the end are ours.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

from uvicorn.config import Config
from uvicorn.server import ServerState

from offhook.domain.limits import Rate
from offhook.errors import InvalidInput
from offhook.server.admission import Admission
from offhook.server.binding import (
    BACKLOG,
    METRICS,
    PLAIN,
    SECURE,
    Bound,
    bind,
    bind_metrics,
    cannot_listen,
    close_all,
)
from offhook.server.gate import Gate
from offhook.server.http import HttpProtocol
from offhook.server.logs import get_logger
from offhook.server.metrics import Metrics
from offhook.server.proxies import TrustedProxies
from offhook.server.timers import Timer, TimerWheel
from offhook.server.tls import Certificates
from offhook.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = get_logger(__name__)

KEEP_ALIVE = 30
"""Seconds for which a connection may be idle between two requests."""
HANDSHAKE_TIMEOUT = 10.0
CERTIFICATE_INTERVAL = 10.0
"""Seconds between two looks whether the certificate's files changed."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server listens.

    Attributes:
        scheme: ``http`` or ``https``.
        host: the address.
        port: the port.
    """

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """As a URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Listeners:
    """Both listeners.

    Args:
        settings: hosts, ports and limits.
        timers: the process's timer wheel, running.
        metrics: where connections are counted.
        proxies: whom to believe who is behind a connection.
        certificates: for the TLS listener; without, there is none.
        given: sockets that somebody else bound, to listen on instead of binding any.
    """

    def __init__(
        self,
        settings: Settings,
        timers: TimerWheel,
        metrics: Metrics,
        proxies: TrustedProxies,
        certificates: Certificates | None = None,
        given: Sequence[Bound] = (),
    ) -> None:
        self._settings = settings
        self._timers = timers
        self._certificates = certificates
        self._given = given
        self.admission = Admission(
            settings.max_connections,
            settings.max_connections_per_address,
            Rate(settings.connect_rate, settings.connect_burst),
        )
        self._gate = Gate(timers, self.admission, proxies, metrics, settings.connect_timeout, settings.write_timeout)
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._clock = Timer(self._every_second)
        self._certificates_due = 0.0

    async def start(
        self,
        app: ASGIApp,
        websocket_factory: Callable[..., asyncio.Protocol] | None,
        watch_app: ASGIApp | None = None,
    ) -> list[Endpoint]:
        """Starts listening.

        Args:
            app: the ASGI application; its lifespan is not run.
            websocket_factory: makes the protocol of each WebSocket, called with keywords ``config``,
                ``server_state`` and ``app_state``; None refuses WebSockets.
            watch_app: what the listener for metrics and health serves, if there is one; else ``app``.

        Returns:
            Where it listens for clients, with the ports it got where 0 was asked for.

        Raises:
            InvalidInput: an address cannot be listened on; then it listens nowhere.
        """
        config = _config(app, websocket_factory)
        watch = config if watch_app is None else _config(watch_app, None)
        bound = self._bound()
        self._every_second()
        try:
            for name, sock in bound:
                self._servers.append(await self._serve(watch if name == METRICS else config, name, sock))
        except OSError as error:
            host, port = sock.getsockname()[:2]
            await self.stop_accepting()
            close_all(sock for _, sock in bound)
            raise cannot_listen(host, port, "tls_port" if name == SECURE else "port", error) from error
        endpoints = [Endpoint(name, *sock.getsockname()[:2]) for name, sock in bound if name != METRICS]
        for endpoint in endpoints:
            logger.info("listening", url=endpoint.url)
        return endpoints

    async def stop_accepting(self) -> None:
        """Closes the listening sockets; connections live on. Idempotent.

        Idle HTTP connections are closed; those that were asked nothing yet have a moment for their first request.
        """
        self._gate.stopping = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def close(self, grace: float = 5.0) -> None:
        """Ends it all but WebSockets, which belong to whom they were handed.

        Args:
            grace: seconds that requests have to be answered; what is left then is cut off.
        """
        await self.stop_accepting()
        end = time.monotonic() + grace
        while (self._state.connections or self._state.tasks) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for task in list(self._state.tasks):
            task.cancel("The server stops")
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        self._timers.release(self._clock)

    def _bound(self) -> Sequence[Bound]:
        """The sockets given, or new ones as the settings say. Raises InvalidInput."""
        if self._given:
            return self._given
        settings = self._settings
        bound = [(PLAIN, sock) for sock in bind(settings.host, settings.port, "port")]
        try:
            if self._certificates is not None:
                bound += [(SECURE, sock) for sock in bind(settings.host, settings.tls_port, "tls_port")]
            bound += bind_metrics(settings, 0)
        except InvalidInput:
            close_all(sock for _, sock in bound)
            raise
        return bound

    async def _serve(self, config: Config, name: str, sock: socket.socket) -> asyncio.Server:
        certificates = self._certificates if name == SECURE else None
        listener = PLAIN if certificates is None else SECURE

        def make() -> HttpProtocol:
            return HttpProtocol(self._gate, listener, config, self._state)

        loop = asyncio.get_running_loop()
        if certificates is not None:
            return await loop.create_server(
                make,
                sock=sock,
                backlog=BACKLOG,
                ssl=certificates.context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
            )
        return await loop.create_server(make, sock=sock, backlog=BACKLOG)

    def _every_second(self) -> None:
        """Renews the Date header, and now and then the certificate."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        if self._certificates is not None and self._timers.now >= self._certificates_due:
            self._certificates.reload_if_changed()
            self._certificates_due = self._timers.now + CERTIFICATE_INTERVAL
        self._timers.schedule(self._clock, 1.0)


def _config(app: ASGIApp, websocket_factory: Callable[..., asyncio.Protocol] | None) -> Config:
    config = Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        ws="none",
    )
    config.load()
    config.ws_protocol_class = websocket_factory  # type: ignore[assignment]
    return config
