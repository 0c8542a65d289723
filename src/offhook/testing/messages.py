"""What a server says on a WebSocket, as it passes: message by message, so that whole ones can be doubled or dropped."""

from __future__ import annotations

import enum

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message, beyond which it passes as it is."""

_TEXT, _CONTINUATION, _CONTROL = 0x1, 0x0, 0x8
_FIN, _RSV, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_LONGER = {126: 2, 127: 8}
_END_OF_HEAD = b"\r\n\r\n"
_MAX_HEAD = 64 * 1024


class Fate(enum.Enum):
    """What becomes of the text messages of a server."""

    PASS = "pass"  # noqa: S105 - no secret
    DOUBLE = "double"
    DROP = "drop"


class _Mode(enum.Enum):
    HEAD = enum.auto()
    FRAMES = enum.auto()
    OPAQUE = enum.auto()


class ServerMessages:
    """The bytes that one server sends on one connection, without I/O: from the head of its answer to the last frame.

    Bytes pass as they come, also those of a frame that is not whole yet. Text messages can be doubled or dropped,
    fragments and all; control frames between the fragments, binary messages and compressed ones always pass once
    (RFC 6455, sections 5.4 and 5.5; a compressed message cannot be told twice where it builds on what came before).
    What is no WebSocket, which is a connection whose first answer is not ``101``, passes as it is.

    Attributes:
        fate: of the messages that begin from now on.
    """

    __slots__ = ("_buffer", "_copy", "_final", "_kept", "_left", "_message", "_mode", "fate")

    def __init__(self) -> None:
        self.fate = Fate.PASS
        self._mode = _Mode.HEAD
        self._buffer = b""  # the head of the answer, or of a frame, that is not whole yet
        self._left = 0  # bytes still to come of the payload of a frame
        self._kept: Fate = Fate.PASS  # what becomes of the frame that is passing
        self._final = False  # whether that frame ends its message
        self._message: Fate | None = None  # what becomes of the message whose fragments are passing
        self._copy = bytearray()  # that message so far, to be told again

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes from the server.

        Returns:
            The bytes for the client.
        """
        if self._mode is _Mode.OPAQUE:
            return data
        if self._mode is _Mode.HEAD:
            return self._head(data)
        return self._frames(data)

    def _head(self, data: bytes) -> bytes:
        known = len(self._buffer)
        whole = self._buffer + data
        end = whole.find(_END_OF_HEAD)
        if end < 0:
            # The client need not wait for what is only looked at.
            self._buffer = whole
            if len(whole) > _MAX_HEAD:
                self._become_opaque()
            return data
        status = whole[: whole.find(b"\r\n")].split(b" ")
        if len(status) < 2 or status[1] != b"101":
            self._become_opaque()
            return data
        self._mode, self._buffer = _Mode.FRAMES, b""
        start = end + len(_END_OF_HEAD) - known
        return data[:start] + self._frames(data[start:])

    def _become_opaque(self) -> None:
        self._mode, self._buffer = _Mode.OPAQUE, b""

    def _frames(self, data: bytes) -> bytes:
        out = bytearray()
        data, self._buffer = self._buffer + data, b""
        at = 0
        while at < len(data):
            if self._left == 0:
                size = _header_size(data, at)
                if size is None:
                    self._buffer = data[at:]
                    break
                self._begin(data[at], data[at : at + size], out)
                at += size
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            self._pass(piece, out)
            if self._left == 0:
                self._end(out)
        return bytes(out)

    def _begin(self, first: int, header: bytes, out: bytearray) -> None:
        self._left = _payload_size(header)
        opcode = first & _OPCODE
        self._final = bool(first & _FIN)
        if opcode & _CONTROL:
            self._kept = Fate.PASS
            self._final = False
        elif opcode == _CONTINUATION and self._message is not None:
            self._kept = self._message
        else:
            self._kept = self.fate if opcode == _TEXT and not first & _RSV else Fate.PASS
            self._message = self._kept
        self._pass(header, out)

    def _pass(self, data: bytes, out: bytearray) -> None:
        if self._kept is Fate.DROP:
            return
        out += data
        if self._kept is Fate.DOUBLE:
            self._copy += data
            if len(self._copy) > MAX_MESSAGE:
                self._kept = self._message = Fate.PASS
                self._copy.clear()

    def _end(self, out: bytearray) -> None:
        if not self._final:
            return
        self._message = None
        out += self._copy
        self._copy.clear()


def _header_size(data: bytes, at: int) -> int | None:
    """Bytes of the frame header at a place, or None if it is not whole."""
    if len(data) - at < 2:
        return None
    second = data[at + 1]
    size = 2 + _LONGER.get(second & _LENGTH, 0) + (4 if second & _MASKED else 0)
    return size if len(data) - at >= size else None


def _payload_size(header: bytes) -> int:
    length = header[1] & _LENGTH
    longer = _LONGER.get(length)
    return length if longer is None else int.from_bytes(header[2 : 2 + longer], "big")
