"""WebSocket (RFC 6455) without I/O, server side: the opening handshake and the frames."""

from offhook.protocols.websocket.frames import (
    Close,
    Event,
    Message,
    Ping,
    Pong,
    ProtocolViolation,
    Receiver,
    encode_binary,
    encode_close,
    encode_ping,
    encode_pong,
    encode_text,
    text_header,
)
from offhook.protocols.websocket.handshake import (
    HandshakeError,
    UpgradeRequest,
    accept_response,
    parse_request,
    reject_response,
)

__all__ = [
    "Close",
    "Event",
    "HandshakeError",
    "Message",
    "Ping",
    "Pong",
    "ProtocolViolation",
    "Receiver",
    "UpgradeRequest",
    "accept_response",
    "encode_binary",
    "encode_close",
    "encode_ping",
    "encode_pong",
    "encode_text",
    "parse_request",
    "reject_response",
    "text_header",
]
