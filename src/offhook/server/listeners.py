"""The sockets on which the server listens: plain, and with TLS a second one, with the same behind both.

uvicorn parses HTTP and drives the ASGI application; sockets, signals and the end are ours.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

from uvicorn.config import Config
from uvicorn.server import ServerState

from offhook.domain.limits import Rate
from offhook.errors import InvalidInput
from offhook.server.admission import Admission
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

BACKLOG = 4096
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
    """

    def __init__(
        self,
        settings: Settings,
        timers: TimerWheel,
        metrics: Metrics,
        proxies: TrustedProxies,
        certificates: Certificates | None = None,
    ) -> None:
        self._settings = settings
        self._timers = timers
        self._certificates = certificates
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

    async def start(self, app: ASGIApp, websocket_factory: Callable[..., asyncio.Protocol] | None) -> list[Endpoint]:
        """Starts listening.

        Args:
            app: the ASGI application; its lifespan is not run.
            websocket_factory: makes the protocol of each WebSocket, called with keywords ``config``,
                ``server_state`` and ``app_state``; None refuses WebSockets.

        Returns:
            Where it listens, with the ports it got where 0 was asked for.

        Raises:
            InvalidInput: an address cannot be listened on; then it listens nowhere.
        """
        settings = self._settings
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
        bound = [("http", sock) for sock in bind(settings.host, settings.port, "port")]
        try:
            if self._certificates is not None:
                bound += [("https", sock) for sock in bind(settings.host, settings.tls_port, "tls_port")]
        except InvalidInput:
            _close(bound)
            raise
        self._every_second()
        for listener, sock in bound:
            self._servers.append(await self._serve(config, listener, sock))
        endpoints = [Endpoint(listener, *sock.getsockname()[:2]) for listener, sock in bound]
        for endpoint in endpoints:
            logger.info("listening", url=endpoint.url)
        return endpoints

    async def stop_accepting(self) -> None:
        """Closes the listening sockets; connections live on. Idle HTTP connections are closed. Idempotent."""
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

    async def _serve(self, config: Config, listener: str, sock: socket.socket) -> asyncio.Server:
        def make() -> HttpProtocol:
            return HttpProtocol(self._gate, listener, config, self._state)

        loop = asyncio.get_running_loop()
        if listener == "https" and self._certificates is not None:
            return await loop.create_server(
                make,
                sock=sock,
                backlog=BACKLOG,
                ssl=self._certificates.context,
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


def bind(host: str, port: int, field: str) -> list[socket.socket]:
    """Binds sockets to every address of a host, and listens.

    Args:
        host: an address or name; empty for every address.
        port: the port; with 0 all sockets share one free port.
        field: the setting that names the port, for the error.

    Raises:
        InvalidInput: the host is unknown, or the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise InvalidInput(f"Cannot listen on {host!r}: {error.strerror}", "host") from error
    sockets: list[socket.socket] = []
    alone = len({info[0] for info in found}) == 1
    try:
        for family, kind, number, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, number)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # "::" alone means every address, IPv4 too; beside an IPv4 socket it has to keep to its own.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if alone and host == "::" else 1)
            chosen = port or (sockets[0].getsockname()[1] if len(sockets) > 1 else 0)
            sock.bind((address[0], chosen, *address[2:]))
            sock.listen(BACKLOG)
    except OSError as error:
        _close([("", sock) for sock in sockets])
        why = {
            errno.EADDRINUSE: "the address is in use by another program",
            errno.EACCES: "ports below 1024 need special rights",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(error.errno or 0, error.strerror)
        raise InvalidInput(f"Cannot listen on {host or '*'} port {port}: {why}", field) from error
    return sockets


def _close(sockets: list[tuple[str, socket.socket]]) -> None:
    for _, sock in sockets:
        sock.close()
