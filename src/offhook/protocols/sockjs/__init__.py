"""SockJS 0.3.3 without I/O: the frames of its WebSocket and XHR transports."""

from offhook.protocols.sockjs.codec import (
    HEARTBEAT,
    OPEN,
    XHR_STREAMING_PRELUDE,
    Address,
    Limits,
    SockJSError,
    Transport,
    decode_messages,
    encode_close,
    encode_heartbeat,
    encode_messages,
    encode_open,
    info,
    parse_path,
)

__all__ = [
    "HEARTBEAT",
    "OPEN",
    "XHR_STREAMING_PRELUDE",
    "Address",
    "Limits",
    "SockJSError",
    "Transport",
    "decode_messages",
    "encode_close",
    "encode_heartbeat",
    "encode_messages",
    "encode_open",
    "info",
    "parse_path",
]
