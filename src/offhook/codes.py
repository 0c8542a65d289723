"""Every reason for which a session or a connection ends, as data.

One table feeds the WebSocket close code, the protocols' goodbyes, the metrics' labels, ``offhook session show``
and the documentation, so that they cannot disagree.

Ranges of the WebSocket close codes: 1000-1015 are RFC 6455 section 7.4.1; 4000-4999 are private to Offhook,
where 4000-4499 mean "come back" and 4500-4999 mean "do not".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EndReason(StrEnum):
    """Why a session ended for good."""

    CLIENT = "client"
    OPERATOR = "operator"
    REPLACED = "replaced"
    USER_DELETED = "user_deleted"
    USER_DISABLED = "user_disabled"
    CREDENTIALS_CHANGED = "credentials_changed"
    APPLICATION_CLOSED = "application_closed"
    LEASE_EXPIRED = "lease_expired"
    NOT_RENEWED = "not_renewed"
    NOT_CONNECTED = "not_connected"
    HISTORY_LOST = "history_lost"


class CloseReason(StrEnum):
    """Why a connection (one socket) ended. The session behind it may live on."""

    PEER_CLOSED = "peer_closed"
    PEER_LOST = "peer_lost"
    PING_TIMEOUT = "ping_timeout"
    HEARTBEAT_TIMEOUT = "heartbeat_timeout"
    CONNECT_TIMEOUT = "connect_timeout"
    SLOW_CONSUMER = "slow_consumer"
    PROTOCOL_ERROR = "protocol_error"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    ACCESS_DENIED = "access_denied"
    SUPERSEDED = "superseded"
    SESSION_ENDED = "session_ended"
    DRAINING = "draining"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known about one reason.

    Attributes:
        websocket: the WebSocket close code that tells it.
        retry: whether the client should come back by itself.
        text: one sentence for people, also the WebSocket close reason (at most 123 bytes).
    """

    websocket: int
    retry: bool
    text: str


ENDINGS: dict[EndReason, Ending] = {
    EndReason.CLIENT: Ending(1000, False, "The client ended its session."),
    EndReason.OPERATOR: Ending(4500, False, "An operator ended the session."),
    EndReason.REPLACED: Ending(4501, False, "The user signed in elsewhere, and no more sessions are allowed."),
    EndReason.USER_DELETED: Ending(4502, False, "The user was deleted."),
    EndReason.USER_DISABLED: Ending(4503, False, "The user was disabled."),
    EndReason.CREDENTIALS_CHANGED: Ending(4504, False, "The user's password was changed."),
    EndReason.APPLICATION_CLOSED: Ending(4505, False, "The application was deleted or disabled."),
    EndReason.LEASE_EXPIRED: Ending(4000, True, "The connection was lost and not resumed in time."),
    EndReason.NOT_RENEWED: Ending(4007, True, "The subscription was not renewed in time."),
    EndReason.NOT_CONNECTED: Ending(4008, True, "The notification socket was not opened in time."),
    EndReason.HISTORY_LOST: Ending(4009, True, "The client was away for longer than what it missed is kept."),
}

CLOSINGS: dict[CloseReason, Ending] = {
    CloseReason.PEER_CLOSED: Ending(1000, True, "The client closed the connection without ending its session."),
    CloseReason.PEER_LOST: Ending(1006, True, "The connection broke."),
    CloseReason.PING_TIMEOUT: Ending(4001, True, "The client did not answer a WebSocket ping."),
    CloseReason.HEARTBEAT_TIMEOUT: Ending(4002, True, "The client sent no heart-beat in time."),
    CloseReason.CONNECT_TIMEOUT: Ending(4003, True, "The client did not say CONNECT in time."),
    CloseReason.SLOW_CONSUMER: Ending(4004, True, "The client did not read fast enough."),
    CloseReason.PROTOCOL_ERROR: Ending(1002, True, "The client broke the protocol."),
    CloseReason.TOO_LARGE: Ending(1009, True, "A frame or message was too large."),
    CloseReason.RATE_LIMITED: Ending(4005, True, "The client sent too much, too fast."),
    CloseReason.ACCESS_DENIED: Ending(4506, False, "Access was denied."),
    CloseReason.SUPERSEDED: Ending(4006, False, "The session continues on a newer connection."),
    CloseReason.SESSION_ENDED: Ending(4507, False, "The session has ended."),
    CloseReason.DRAINING: Ending(1012, True, "The server is restarting."),
    CloseReason.OVERLOADED: Ending(1013, True, "The server takes no more connections now."),
    CloseReason.INTERNAL: Ending(1011, True, "The server failed."),
}
