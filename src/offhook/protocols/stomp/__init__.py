"""STOMP 1.2 without I/O: a decoder, pure encoders, and the negotiation of version and heart-beats."""

from offhook.protocols.stomp.decoder import Decoder
from offhook.protocols.stomp.encoder import (
    HEART_BEAT,
    encode,
    encode_connected,
    encode_error,
    encode_receipt,
    message_prefix,
    message_tail,
)
from offhook.protocols.stomp.frames import (
    BODY_COMMANDS,
    COMMANDS,
    UNESCAPED_COMMANDS,
    ErrorKind,
    Frame,
    Limits,
    StompError,
    escape,
    unescape,
)
from offhook.protocols.stomp.negotiation import (
    VERSION,
    HeartBeat,
    negotiate,
    negotiate_version,
    parse_heart_beat,
)

__all__ = [
    "BODY_COMMANDS",
    "COMMANDS",
    "HEART_BEAT",
    "UNESCAPED_COMMANDS",
    "VERSION",
    "Decoder",
    "ErrorKind",
    "Frame",
    "HeartBeat",
    "Limits",
    "StompError",
    "encode",
    "encode_connected",
    "encode_error",
    "encode_receipt",
    "escape",
    "message_prefix",
    "message_tail",
    "negotiate",
    "negotiate_version",
    "parse_heart_beat",
    "unescape",
]
