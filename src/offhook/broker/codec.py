"""Publications and commands as they travel from node to node.

A publication is a short binary header, by which a node knows its own without reading on, and the event as the journal
stores it. A question or an answer is a header and the bytes that somebody else made, any other command is JSON. All
begin with the version of the form; whoever meets a version that is not theirs treats the message as lost, for which
there are remedies.
"""

from __future__ import annotations

import dataclasses
import struct

import msgspec

from offhook.domain.events import Origin, Position, Topic
from offhook.ports import (
    Answer,
    ApplicationChanged,
    BlocksChanged,
    Command,
    EndSession,
    FenceSession,
    Publication,
    Question,
    SubscriptionChanged,
)
from offhook.storage import event_codec

VERSION = 1
_HEADER = struct.Struct(">BQBBH")
"""Version, offset, and the lengths of the node's name, the epoch and the receipt."""
_SESSION = struct.Struct(">q")
_ASKED = struct.Struct(">BcQB")
"""Version, what it is, number, and the length of the node's name that follows, then the body."""
_QUESTION, _ANSWER, _NOTHING = b"q", b"a", b"n"


class Undecodable(ValueError):
    """A message that this version cannot read.

    Attributes:
        offset: of the publication, if that much could be read; else 0.
    """

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@dataclasses.dataclass(frozen=True, slots=True)
class Resync:
    """A word among brokers: a command to you may have been lost, look at the store."""


Word = Command | Resync


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a publication's message says before its event.

    Attributes:
        node: who published it.
        position: its place in its topic.
        origin: the request that caused it, or None.
        start: where the event begins in the message.
    """

    node: str
    position: Position
    origin: Origin | None
    start: int


def encode_publication(publication: Publication, node: str) -> bytes:
    """The message that carries a publication.

    Args:
        publication: as it was committed; its event is known to be encodable.
        node: name of the node that publishes it.
    """
    origin = publication.origin
    sender, epoch = node.encode(), publication.position.epoch.encode()
    receipt = b"" if origin is None else _SESSION.pack(origin.session_id) + origin.receipt.encode()
    if len(receipt) > 0xFFFF:
        # Only the node that has the request can do anything with so long a name, and it has the publication itself.
        receipt = b""
    head = _HEADER.pack(VERSION, publication.position.offset, len(sender), len(epoch), len(receipt))
    return b"".join((head, sender, epoch, receipt, event_codec.encode(publication.event)))


def decode_header(data: bytes) -> Header:
    """Reads a publication's header.

    Raises:
        Undecodable: it is none of this version.
    """
    try:
        version, offset, sender, epoch, receipt = _HEADER.unpack_from(data)
        if version != VERSION:
            raise Undecodable(f"a message of version {version}")
        first = _HEADER.size
        second = first + sender
        third = second + epoch
        start = third + receipt
        if len(data) < start:
            raise Undecodable("a message cut short")
        origin = None
        if receipt:
            (session_id,) = _SESSION.unpack_from(data, third)
            origin = Origin(session_id, data[third + _SESSION.size : start].decode())
        return Header(data[first:second].decode(), Position(data[second:third].decode(), offset), origin, start)
    except (struct.error, UnicodeDecodeError) as error:
        raise Undecodable(f"not a publication: {error}") from error


def decode_publication(topic: Topic, header: Header, data: bytes) -> Publication:
    """Reads the rest of a message whose header was read.

    Raises:
        Undecodable: this version does not know the event.
    """
    try:
        event = event_codec.decode(data[header.start :])
    except (event_codec.UnknownEvent, ValueError, RecursionError) as error:
        raise Undecodable(str(error), header.position.offset) from error
    return Publication(topic, header.position, event, header.origin)


class _Envelope(msgspec.Struct):
    version: int
    kind: str
    word: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_ENCODER = msgspec.json.Encoder()
_READERS: dict[str, msgspec.json.Decoder[Word]] = {
    "end_session": msgspec.json.Decoder(EndSession),
    "fence_session": msgspec.json.Decoder(FenceSession),
    "application_changed": msgspec.json.Decoder(ApplicationChanged),
    "blocks_changed": msgspec.json.Decoder(BlocksChanged),
    "subscription_changed": msgspec.json.Decoder(SubscriptionChanged),
    "resync": msgspec.json.Decoder(Resync),
}
_KINDS: dict[type[Word], str] = {
    EndSession: "end_session",
    FenceSession: "fence_session",
    ApplicationChanged: "application_changed",
    BlocksChanged: "blocks_changed",
    SubscriptionChanged: "subscription_changed",
    Resync: "resync",
}


def encode_command(word: Word) -> bytes:
    """The message that carries a command."""
    match word:
        case Question(node, number, body):
            name = node.encode()
            return _ASKED.pack(VERSION, _QUESTION, number, len(name)) + name + body
        case Answer(number, body):
            return _ASKED.pack(VERSION, _NOTHING if body is None else _ANSWER, number, 0) + (body or b"")
    return _ENCODER.encode(_Envelope(VERSION, _KINDS[type(word)], msgspec.Raw(_ENCODER.encode(word))))


def decode_command(data: bytes) -> Word:
    """The command that ``encode_command`` was given.

    Raises:
        Undecodable: the bytes are no command that this version knows.
    """
    try:
        if data[:1] != b"{":
            return _decode_asked(data)
        envelope = _ENVELOPE.decode(data)
        if envelope.version != VERSION:
            raise Undecodable(f"a command of version {envelope.version}")
        return _READERS[envelope.kind].decode(envelope.word)
    except (msgspec.DecodeError, struct.error, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"not a command: {error}") from error


def _decode_asked(data: bytes) -> Question | Answer:
    version, kind, number, length = _ASKED.unpack_from(data)
    if version != VERSION:
        raise Undecodable(f"a command of version {version}")
    start = _ASKED.size + length
    if len(data) < start or kind not in (_QUESTION, _ANSWER, _NOTHING):
        raise Undecodable("a command cut short, or of another kind")
    body = data[start:]
    if kind == _QUESTION:
        return Question(data[_ASKED.size : start].decode(), number, body)
    return Answer(number, body if kind == _ANSWER else None)
