"""The door for ChatKitty's connections: which paths they come to, and what they are to start with."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from starlette.requests import Request

from offhook.gateways.chatkitty.connection import Connection
from offhook.gateways.chatkitty.gateway import Gateway, Opening
from offhook.gateways.chatkitty.sockjs import SockJS
from offhook.gateways.chatkitty.sockjs_nodes import Places
from offhook.gateways.chatkitty.sockjs_sockets import FramedSocket
from offhook.ports import Broker
from offhook.protocols import sockjs
from offhook.protocols.websocket import UpgradeRequest
from offhook.server.cors import origin_allowed
from offhook.server.proxies import Peer, TrustedProxies, peer_of
from offhook.server.websocket import Accepted, Rejected
from offhook.server.websocket import Peer as DirectPeer
from offhook.services.questions import Questions
from offhook.settings import Settings

SUBPROTOCOL = "v12.stomp"
BASES = ("/rtm", "/stompx")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?\Z")


class ChatKittyDoor:
    """Makes a connection for each WebSocket or SockJS session that comes to one of BASES.

    Args:
        gateway: what connections share.
        settings: for origins, paths and limits.
        proxies: whom to believe who is behind a socket.
        nodes: how the requests of one client find each other, where several nodes serve.
    """

    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        proxies: TrustedProxies,
        nodes: tuple[Broker, Questions] | None = None,
    ) -> None:
        self._gateway = gateway
        self._settings = settings
        self._proxies = proxies
        self._limits = sockjs.Limits(max_body=settings.max_frame)
        self.sockjs = SockJS(
            self._connect_request,
            gateway.timers,
            self._limits,
            settings.max_write_buffer,
            settings.max_connections,
            settings.max_connections_per_address,
            settings.allowed_origins,
            settings.sockjs_websocket,
            None if nodes is None else Places(*nodes, self._limits),
        )

    def connections(self) -> Iterable[Connection]:
        """All connections that are open."""
        return list(self._gateway.connections)

    def accept(self, request: UpgradeRequest, direct: DirectPeer) -> Accepted | Rejected:
        """Decides on a WebSocket upgrade.

        The API key is checked only at CONNECT, where the answer can be one that clients understand; here it would
        make them try for ever (ChatKitty protocol notes, 2.1).
        """
        base_path = self._settings.base_path
        path = request.path
        if base_path and path.startswith(base_path + "/"):
            path = path[len(base_path) :]
        base = next((base for base in BASES if path.startswith(base + "/")), None)
        if base is None:
            return Rejected(404, "There is no such WebSocket")
        if not origin_allowed(request.origin, self._settings.allowed_origins):
            return Rejected(403, "Pages of this origin may not connect")
        peer = self._proxies.resolve(Peer(direct.address, direct.port, direct.secure, request.host), request.forwarded)
        tail = path[len(base) :]
        connection = self._connection(request.query, peer)
        if tail == "/websocket":
            return Accepted(connection, SUBPROTOCOL if SUBPROTOCOL in request.subprotocols else None)
        try:
            address = sockjs.parse_path(tail)
        except sockjs.SockJSError:
            return Rejected(404, "There is no such WebSocket")
        if address.transport is not sockjs.Transport.WEBSOCKET or not self._settings.sockjs_websocket:
            return Rejected(404, "There is no such WebSocket")
        return Accepted(FramedSocket(connection, self._limits))

    def base_url(self, request: Request) -> str:
        """The URL under which the client of a request reaches this server."""
        return self._base_url(peer_of(request.scope))

    def _connect_request(self, request: Request) -> Connection:
        return self._connection(request.url.query, peer_of(request.scope))

    def _connection(self, query: str, peer: Peer) -> Connection:
        opening = Opening.of(query, peer.address, peer.secure, self._base_url(peer))
        return Connection(self._gateway, opening)

    def _base_url(self, peer: Peer) -> str:
        settings = self._settings
        if settings.public_url is not None:
            return settings.public_url
        host = peer.host if _HOST.match(peer.host) else f"{settings.host}:{settings.port}"
        # One text for all connections that came by the same name.
        return sys.intern(f"{'https' if peer.secure else 'http'}://{host}{settings.base_path}")
