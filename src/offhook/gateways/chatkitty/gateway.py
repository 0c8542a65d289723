"""What all ChatKitty connections of a server share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from offhook.domain.limits import Rate
from offhook.ports import Clock
from offhook.protocols import stomp
from offhook.server.metrics import Metrics
from offhook.server.timers import TimerWheel
from offhook.services.applications import ApplicationService
from offhook.services.hub import Hub
from offhook.services.reaper import Reaper
from offhook.services.sessions import SessionService
from offhook.services.signing import Signer
from offhook.services.users import UserService

if TYPE_CHECKING:
    from offhook.gateways.chatkitty.connection import Connection


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may do. Times in seconds.

    Attributes:
        connect_timeout: until it must have said CONNECT.
        max_subscriptions: live at once.
        frames: frames a second; beyond it the connection is closed.
        requests: relays and actions a second; beyond it they are refused.
        max_body: bytes of a request's JSON.
        max_waiting: bytes that may wait while an earlier frame is at work, before reading stops.
        max_transactions: open STOMP transactions, and frames in all of them together.
    """

    connect_timeout: float
    max_subscriptions: int
    frames: Rate
    requests: Rate
    max_body: int
    max_waiting: int = 64 * 1024
    max_transactions: int = 100


@dataclass(frozen=True, slots=True)
class Gateway:
    """The services, limits and clocks that connections work with.

    Attributes:
        connections: those that are open now.
    """

    applications: ApplicationService
    sessions: SessionService
    users: UserService
    hub: Hub
    reaper: Reaper
    signer: Signer
    clock: Clock
    timers: TimerWheel
    metrics: Metrics
    limits: Limits
    stomp_limits: stomp.Limits
    connections: set[Connection] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known of a connection before its first frame.

    Attributes:
        api_key: from the URL's query; empty if missing.
        user: the username of the oldest clients, which wrote it into the URL.
        auth_params: theirs too, as text.
        address: the client's IP address.
        secure: whether it came over TLS.
        base_url: the URL under which the client reaches this server, without a slash at its end.
    """

    api_key: str
    address: str
    secure: bool
    base_url: str
    user: str | None = None
    auth_params: str | None = None

    @staticmethod
    def of(query: str, address: str, secure: bool, base_url: str) -> Opening:
        """Reads the query of the URL that a client opened (ChatKitty protocol notes, 1.2)."""
        try:
            values = parse_qs(query, keep_blank_values=True, max_num_fields=20)
        except ValueError:
            values = {}

        def first(*names: str) -> str | None:
            return next((values[name][0] for name in names if name in values), None)

        return Opening(
            api_key=first("api-key", "api_key") or "",
            address=address,
            secure=secure,
            base_url=base_url,
            user=first("stompx_user"),
            auth_params=first("stompx_auth_params"),
        )
