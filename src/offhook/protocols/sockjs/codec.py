"""SockJS 0.3.3: the frames between a server and a SockJS client (ChatKitty protocol notes, section 2.9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from json.encoder import encode_basestring_ascii

import msgspec

OPEN = b"o"
HEARTBEAT = b"h"

XHR_STREAMING_PRELUDE = b"h" * 2048 + b"\n"
"""What an ``xhr_streaming`` answer begins with, so that old browsers hand on what follows it at once."""


class SockJSError(Exception):
    """The peer sent what SockJS does not allow.

    Args:
        message: one sentence that may be shown to the peer.
        too_large: a limit was passed, rather than the syntax broken.
    """

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.too_large = too_large


class Transport(StrEnum):
    """The transports served, each by the last part of its path."""

    WEBSOCKET = "websocket"
    XHR = "xhr"
    XHR_SEND = "xhr_send"
    XHR_STREAMING = "xhr_streaming"


@dataclass(frozen=True, slots=True)
class Address:
    """What the path of a SockJS request names.

    Attributes:
        server: chosen by the client for load balancers; means nothing here.
        session: chosen by the client, unique while the session lives.
        transport: how this request carries frames.
    """

    server: str
    session: str
    transport: Transport


@dataclass(frozen=True, slots=True)
class Limits:
    """How large what a peer sends may be.

    Attributes:
        max_body: bytes of one request body or WebSocket message.
        max_messages: messages in it.
    """

    max_body: int = 1024 * 1024
    max_messages: int = 1024


_LIMITS = Limits()
_MESSAGES = msgspec.json.Decoder(list[str] | str)


def parse_path(tail: str) -> Address:
    """Read ``/{server}/{session}/{transport}``, the path after the base.

    Raises:
        SockJSError: the path is not of this form, names a transport that is not served, or its server or
            session is empty or holds a dot (which the protocol forbids). The answer is 404.
    """
    parts = tail.removeprefix("/").split("/")
    if len(parts) != 3:
        raise SockJSError("The path is not /server/session/transport")
    server, session, name = parts
    if not server or not session or "." in server or "." in session:
        raise SockJSError("The server and session in the path must not be empty or hold a dot")
    try:
        transport = Transport(name)
    except ValueError:
        raise SockJSError("The transport is not served") from None
    return Address(server, session, transport)


def encode_open() -> bytes:
    """The first frame of a session."""
    return OPEN


def encode_heartbeat() -> bytes:
    """A sign of life."""
    return HEARTBEAT


def encode_close(code: int, reason: str) -> bytes:
    """The last frame of a session.

    Args:
        code: a WebSocket close code.
        reason: one sentence.
    """
    return f"c[{code},{encode_basestring_ascii(reason)}]".encode("ascii")


def encode_messages(messages: Iterable[str]) -> bytes:
    """One frame with messages in order.

    Everything outside ASCII is escaped: more than the protocol asks for (surrogates, U+200C to U+200F, U+FFF0
    to U+FFFF and others that browsers lose), and the one way that C does at full speed.
    """
    return f"a[{','.join([encode_basestring_ascii(message) for message in messages])}]".encode("ascii")


def decode_messages(body: bytes, limits: Limits = _LIMITS) -> list[str]:
    """Read what a client sent: a JSON array of strings, or one JSON string.

    Raises:
        SockJSError: the body is empty, over a limit, or anything else than strings.
    """
    if not body:
        raise SockJSError("Payload expected.")
    if len(body) > limits.max_body:
        raise SockJSError("The payload is too large", too_large=True)
    try:
        messages: list[str] | str = _MESSAGES.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SockJSError("Broken JSON encoding.") from None
    if isinstance(messages, str):
        return [messages]
    if len(messages) > limits.max_messages:
        raise SockJSError("The payload holds too many messages", too_large=True)
    return messages


def info(entropy: int, *, websocket: bool = True) -> bytes:
    """The document at ``{base}/info``, as JSON.

    Args:
        entropy: a fresh random number of 32 bits, from which old clients seed their generators.
        websocket: whether clients may use the ``websocket`` transport.
    """
    return msgspec.json.encode({"websocket": websocket, "origins": ["*:*"], "cookie_needed": False, "entropy": entropy})
