"""The door for notification sockets: whether a path is one of ours, and whom it is for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from urllib.parse import parse_qs

from offhook.domain.limits import Rate, RateLimiter
from offhook.domain.sessions import Client
from offhook.gateways.kandy.channels import PREFIX, parse_channel
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.socket import NotificationSocket
from offhook.protocols.websocket import UpgradeRequest
from offhook.server.cors import origin_allowed
from offhook.server.proxies import Peer, TrustedProxies
from offhook.server.websocket import Accepted, Rejected
from offhook.server.websocket import Peer as DirectPeer
from offhook.services.credentials import AccessProof, BearerProof
from offhook.settings import Settings

RECONNECTS = Rate(1.0, 20)
"""Sockets a second that one channel gets: a client that lost its way reconnects without a pause."""
MAX_RECONNECTING = 2_000
"""Channels that are watched for that: those whose sockets came last."""

_NO_CHANNEL = Rejected(404, "There is no such notification channel")


class KandyDoor:
    """Makes a socket for each upgrade to a notification channel.

    A channel that was never given out is refused. One that was, but whose subscription has ended, is let in once and
    told so: refused, its client would go on trying for half a minute (Kandy protocol notes, 4.1). Those that do not
    understand what they are told, nor the close code, come back; only being refused makes them give up.

    Args:
        gateway: what sockets share.
        settings: for origins and paths.
        proxies: whom to believe who is behind a socket.
    """

    def __init__(self, gateway: Gateway, settings: Settings, proxies: TrustedProxies) -> None:
        self._gateway = gateway
        self._settings = settings
        self._proxies = proxies
        self._guesses = RateLimiter(gateway.limits.guesses)
        self._reconnects = RateLimiter(RECONNECTS, MAX_RECONNECTING)

    def sockets(self) -> Iterable[NotificationSocket]:
        """All sockets that are open."""
        return list(self._gateway.sockets)

    def takes(self, path: str) -> bool:
        """Whether a path is a notification channel's, good or not."""
        return self._local(path).startswith(PREFIX)

    def accept(self, request: UpgradeRequest, direct: DirectPeer) -> Accepted | Rejected:
        """Decides on a WebSocket upgrade to a path that ``takes`` says is ours."""
        if not origin_allowed(request.origin, self._settings.allowed_origins):
            return Rejected(403, "Pages of this origin may not connect")
        if self._gateway.draining():
            return Rejected(503, "The server is restarting")
        peer = self._proxies.resolve(Peer(direct.address, direct.port, direct.secure, request.host), request.forwarded)
        session_id = parse_channel(self._local(request.path), self._gateway.signer)
        refused = self._unknown(peer.address) if session_id is None else self._known(session_id)
        if session_id is None or refused is not None:
            return refused or _NO_CHANNEL
        client = Client("kandy", "", peer.address, peer.secure)
        return Accepted(NotificationSocket(self._gateway, session_id, client, _proof(request.query)))

    def _unknown(self, address: str) -> Rejected:
        # Those who share the address with somebody who guesses go on connecting.
        if self._guesses.take(address, time.monotonic()) > 0:
            return Rejected(429, "Too many notification channels that do not exist")
        return _NO_CHANNEL

    def _known(self, session_id: int) -> Rejected | None:
        if session_id in self._gateway.gone:
            return Rejected(404, "The subscription of this notification channel has ended")
        if self._reconnects.take(session_id, time.monotonic()) > 0:
            return Rejected(429, "Too many sockets for this notification channel")
        return None

    def _local(self, path: str) -> str:
        base_path = self._settings.base_path
        return path[len(base_path) :] if base_path and path.startswith(base_path + "/") else path


def _proof(query: str) -> AccessProof | BearerProof | None:
    """The token in the query, if there is one (Kandy protocol notes, 2.1)."""
    try:
        values = parse_qs(query, max_num_fields=20)
    except ValueError:
        return None
    if "access_token" in values:
        return BearerProof(values["access_token"][0])
    return AccessProof(values["token"][0]) if "token" in values else None
