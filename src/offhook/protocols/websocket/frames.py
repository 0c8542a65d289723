"""WebSocket frames (RFC 6455), server side: masked frames in, unmasked frames out, no extensions."""

from __future__ import annotations

import codecs
import functools
from dataclasses import dataclass
from struct import Struct

NORMAL = 1000
PROTOCOL_ERROR = 1002
NO_STATUS = 1005
INVALID_DATA = 1007
TOO_BIG = 1009

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG})
_FIN = 0x80
_RSV = 0x70
_MASKED = 0x80
_FINAL_TEXT = _FIN | _TEXT
_MAX_CONTROL = 125
_MAX_REASON = _MAX_CONTROL - 2
_HEADER_SIZES = [6] * 126 + [8, 14]  # masking key included, by the seven bits of the length
# RFC 6455 section 7.4.1, with 1012 to 1014 as registered since. 1004 to 1006 and 1015 never go over the wire.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class ProtocolViolation(Exception):
    """The peer broke RFC 6455; the connection must be failed.

    Args:
        close_code: what to close with: 1002, 1007 or 1009.
        reason: one sentence, also the close frame's reason.

    Attributes:
        events: what came before the violation in the same ``feed``, to be handled first.
    """

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.reason = reason
        self.events: list[Event] = []


# The events are values, but not frozen: making a frozen one costs three times as much.


@dataclass(slots=True)
class Message:
    """A whole message, its fragments joined.

    Attributes:
        data: the payload; valid UTF-8 if ``text``.
        text: whether it was sent as text.
    """

    data: bytes
    text: bool


@dataclass(slots=True)
class Ping:
    """A ping, to be answered by a pong with the same data."""

    data: bytes


@dataclass(slots=True)
class Pong:
    """A pong, asked for or not."""

    data: bytes


@dataclass(slots=True)
class Close:
    """The peer's close frame, the last event there is.

    Attributes:
        code: its close code, or 1005 where it had none.
        reason: its text, mostly empty.
    """

    code: int
    reason: str


Event = Message | Ping | Pong | Close


class Receiver:
    """Turns one connection's bytes into events, whatever the cuts between them.

    Text is validated as it comes, also inside a frame that is not whole yet. A frame whose announced length
    passes the limit is refused before its payload arrives. Memory is bounded by ``max_message`` plus the
    piece being fed, and an idle connection holds no buffer at all.

    Args:
        max_message: the largest message in bytes, fragments counted together; beyond it close code 1009.
    """

    __slots__ = ("_buffer", "_decoder", "_done", "_final", "_left", "_mask", "_max", "_message", "_text")

    def __init__(self, max_message: int) -> None:
        self._max = max_message
        self._buffer = b""  # a header, or a control frame, that is not whole yet
        self._message: bytearray | None = None  # the message being received
        self._text = False  # whether that message is text
        self._decoder: codecs.IncrementalDecoder | None = None  # set once its text left ASCII
        self._left = 0  # bytes still to come of a data frame that is not whole yet
        self._final = False  # whether that frame ends its message
        self._mask = b""  # its masking key, turned to the next byte
        self._done = False

    @property
    def buffered(self) -> int:
        """Bytes held of a message or control frame that is not whole yet."""
        return len(self._buffer) + len(self._message or b"")

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes from the peer.

        Returns:
            What became whole, in order. Empty for ever once a close frame or a violation was seen.

        Raises:
            ProtocolViolation: the peer broke the protocol; its ``events`` came before.
        """
        if self._done:
            return []
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        events: list[Event] = []
        try:
            self._receive(data, events)
        except ProtocolViolation as violation:
            self._finish()
            violation.events = events
            raise
        return events

    def _receive(self, data: bytes, events: list[Event]) -> None:
        position, size = self._receive_partial(data, 0, events) if self._left else 0, len(data)
        while position < size:
            if size - position < 2:
                self._buffer = data[position:]
                return
            first, second = data[position], data[position + 1]
            if first != _FINAL_TEXT or second < _MASKED or self._message is not None:
                self._check_header(first, second)
            length = second & 0x7F
            start = position + _HEADER_SIZES[length]
            if start > size:
                self._buffer = data[position:]
                return
            if length > _MAX_CONTROL:
                length = _extended_length(length, data[position + 2 : start - 4])
            end = start + length
            if length + (len(self._message) if self._message else 0) > self._max and not first & _CLOSE:
                raise ProtocolViolation(TOO_BIG, "The message is too large")
            if end > size:
                if first & _CLOSE:
                    self._buffer = data[position:]
                    return
                self._begin(first)
                self._left, self._final, self._mask = length, first >= _FIN, data[start - 4 : start]
                self._receive_partial(data, start, events)
                return
            payload = _unmask(data[start:end], data[start - 4 : start])
            position = end
            if first == _FINAL_TEXT:  # by far the most common: a message in one frame in one piece
                if not payload.isascii():
                    _validate(payload)
                events.append(Message(payload, True))
            elif not first & _CLOSE:
                self._begin(first)
                self._append(payload, first >= _FIN, events)
            elif self._control(first, payload, events):
                return

    def _check_header(self, first: int, second: int) -> None:
        """What the first two bytes of a frame must fulfil."""
        opcode = first & 0x0F
        if first & _RSV:
            raise ProtocolViolation(PROTOCOL_ERROR, "A reserved bit is set")
        if opcode not in _OPCODES:
            raise ProtocolViolation(PROTOCOL_ERROR, "The opcode is reserved")
        if second < _MASKED:
            raise ProtocolViolation(PROTOCOL_ERROR, "A frame from a client must be masked")
        if opcode & _CLOSE:
            if first < _FIN:
                raise ProtocolViolation(PROTOCOL_ERROR, "A control frame cannot be fragmented")
            if second & 0x7F > _MAX_CONTROL:
                raise ProtocolViolation(PROTOCOL_ERROR, "A control frame is too long")
        elif (opcode == _CONTINUATION) != (self._message is not None):
            text = "There is no message to continue" if opcode == _CONTINUATION else "A message is not finished"
            raise ProtocolViolation(PROTOCOL_ERROR, text)

    def _begin(self, first: int) -> None:
        """Open a message unless the frame continues one."""
        if self._message is None:
            self._message = bytearray()
            self._text = first & 0x0F == _TEXT

    def _receive_partial(self, data: bytes, position: int, events: list[Event]) -> int:
        """Take what has come of the payload of a data frame that was not whole; return where it ends."""
        end = min(len(data), position + self._left)
        chunk = data[position:end]
        turn = len(chunk) % 4
        payload = _unmask(chunk, self._mask)
        self._mask = self._mask[turn:] + self._mask[:turn]
        self._left -= len(chunk)
        self._append(payload, self._final and not self._left, events)
        return end

    def _append(self, payload: bytes, last: bool, events: list[Event]) -> None:
        """Add to the message being received, and hand it over if it is whole."""
        message = self._message
        assert message is not None
        if self._text:
            self._validate_partial(payload, last)
        message += payload
        if last:
            self._message = self._decoder = None
            events.append(Message(bytes(message), self._text))

    def _validate_partial(self, payload: bytes, last: bool) -> None:
        """Fail as soon as the text so far cannot become valid UTF-8."""
        decoder = self._decoder
        if decoder is None:
            if payload.isascii():
                return
            decoder = self._decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(payload, last)
        except UnicodeDecodeError:
            raise _invalid_text() from None
        # Python's decoder can be told to let surrogates pass, and so refuses them a byte later than it could.
        tail = decoder.getstate()[0]
        if tail[:1] == b"\xed" and tail[1:] > b"\x9f":
            raise _invalid_text()

    def _control(self, first: int, payload: bytes, events: list[Event]) -> bool:
        """Add a control frame's event; return whether it was the last there is."""
        opcode = first & 0x0F
        if opcode == _CLOSE:
            events.append(_parse_close(payload))
            self._finish()
            return True
        events.append(Ping(payload) if opcode == _PING else Pong(payload))
        return False

    def _finish(self) -> None:
        """Nothing more is wanted; let go of what was received."""
        self._done = True
        self._message = self._decoder = None
        self._buffer = b""
        self._left = 0


_from_bytes = int.from_bytes
_U16 = Struct(">BBH")
_U64 = Struct(">BBQ")
_SHORT_TEXT_HEADERS = [bytes((_FINAL_TEXT, length)) for length in range(126)]


@functools.lru_cache(maxsize=4096)
def text_header(length: int) -> bytes:
    """The header of a text message of ``length`` bytes, to be followed by them."""
    return _SHORT_TEXT_HEADERS[length] if length < 126 else _header(_FINAL_TEXT, length)


def encode_text(payload: bytes) -> bytes:
    """One text message; ``payload`` must be valid UTF-8."""
    return text_header(len(payload)) + payload


def encode_binary(payload: bytes) -> bytes:
    """One binary message."""
    return _header(_FIN | _BINARY, len(payload)) + payload


def encode_ping(data: bytes = b"") -> bytes:
    """A ping.

    Raises:
        ValueError: ``data`` is longer than 125 bytes.
    """
    return _encode_control(_PING, data)


def encode_pong(data: bytes) -> bytes:
    """The answer to a ping with the same data.

    Raises:
        ValueError: ``data`` is longer than 125 bytes.
    """
    return _encode_control(_PONG, data)


def encode_close(code: int = NORMAL, reason: str = "") -> bytes:
    """A close frame.

    Args:
        code: the close code; 1005 makes a frame without one.
        reason: cut at 123 bytes.
    """
    if code == NO_STATUS:
        return _encode_control(_CLOSE, b"")
    text = reason.encode()
    if len(text) > _MAX_REASON:
        text = text[:_MAX_REASON].decode(errors="ignore").encode()
    return _encode_control(_CLOSE, code.to_bytes(2, "big") + text)


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    return _U16.pack(first, 126, length) if length < 65536 else _U64.pack(first, 127, length)


def _encode_control(opcode: int, data: bytes) -> bytes:
    if len(data) > _MAX_CONTROL:
        raise ValueError("The data of a control frame is at most 125 bytes")
    return bytes((_FIN | opcode, len(data))) + data


def _extended_length(kind: int, octets: bytes) -> int:
    length = int.from_bytes(octets, "big")
    if length < (126 if kind == 126 else 65536):
        raise ProtocolViolation(PROTOCOL_ERROR, "A length is written longer than it need be")
    if length >> 63:
        raise ProtocolViolation(PROTOCOL_ERROR, "A length has its highest bit set")
    return length


def _unmask(payload: bytes, mask: bytes) -> bytes:
    """XOR with the repeated key, as two large integers: no loop in Python, whatever the length."""
    size = len(payload)
    key = (mask * ((size + 3) >> 2))[:size]
    return (_from_bytes(payload, "little") ^ _from_bytes(key, "little")).to_bytes(size, "little")


def _validate(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise _invalid_text() from None


def _invalid_text() -> ProtocolViolation:
    return ProtocolViolation(INVALID_DATA, "The text is not valid UTF-8")


def _parse_close(payload: bytes) -> Close:
    if not payload:
        return Close(NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (3000 <= code <= 4999 or code in _CLOSE_CODES):
        raise ProtocolViolation(PROTOCOL_ERROR, "The close code is not allowed")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolViolation(INVALID_DATA, "The close reason is not valid UTF-8") from None
