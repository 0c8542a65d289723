"""The only words that clients send on a notification socket (Kandy protocol notes, 4.3).

They come in three dialects. A server needs no configuration for them: it stays silent at a ping, acknowledges a check,
and takes an acknowledgement as a sign of life.
"""

from __future__ import annotations

from enum import Enum

import msgspec

ACK = b'{"connAck":{}}'
"""The answer to a check, and to nothing else: to a ping it provokes another one at once."""
CHECK = b'{"connCheck":{"interval":30}}'
"""What a client expects every 30 seconds if its configuration makes the server responsible."""
MAX_WORD = 1024
"""Bytes of a message that is looked into."""


class Word(Enum):
    """What a client said."""

    PING = "ping"
    """A sign of life, to be answered by silence."""
    CHECK = "check"
    """To be answered by ACK."""
    ACK = "ack"
    """The answer to a check of the server's."""
    OTHER = "other"
    """Nothing known."""


class _Message(msgspec.Struct, gc=False):
    message_type: str | None = None
    connCheck: object = None
    connAck: object = None


_EXACT = {b'{"message_type":"ping"}': Word.PING, CHECK: Word.CHECK, ACK: Word.ACK}
_DECODER = msgspec.json.Decoder(_Message)


def parse(text: bytes) -> Word:
    """What a text message of a client says. Never raises."""
    if (word := _EXACT.get(text)) is not None:
        return word
    if len(text) > MAX_WORD:
        return Word.OTHER
    try:
        message = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Word.OTHER
    if message.message_type == "ping":
        return Word.PING
    if message.connCheck is not None:
        return Word.CHECK
    return Word.OTHER if message.connAck is None else Word.ACK
