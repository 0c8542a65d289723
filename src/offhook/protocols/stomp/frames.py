"""The values of STOMP 1.2: frames, their limits, and what can be wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

UNESCAPED_COMMANDS = frozenset({"CONNECT", "STOMP", "CONNECTED"})
"""Frames whose headers are never escaped (STOMP 1.2, "Value Encoding"): they predate the agreed version."""

BODY_COMMANDS = frozenset({"SEND", "MESSAGE", "ERROR"})
"""The only frames that may have a body (STOMP 1.2, "Body")."""

COMMANDS = UNESCAPED_COMMANDS | BODY_COMMANDS | {
    "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "DISCONNECT", "RECEIPT",
}  # fmt: skip
"""Every command of STOMP 1.2, of clients and of servers."""


class ErrorKind(StrEnum):
    """What is wrong with a frame."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"


class StompError(Exception):
    """The peer broke STOMP, and nothing after this point of the stream can be understood.

    Args:
        message: one sentence that may be shown to the peer.
        kind: whether the frame is malformed or over a limit.
        receipt: the ``receipt`` header of the offending frame if it was read, for the ERROR's ``receipt-id``.

    Attributes:
        frames: the whole frames that came before the offending one in the same ``feed``, to be handled first.
    """

    def __init__(self, message: str, kind: ErrorKind = ErrorKind.MALFORMED, receipt: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.receipt = receipt
        self.frames: tuple[Frame, ...] = ()


@dataclass(slots=True)
class Frame:
    """One STOMP frame: a value, but not frozen, because making a frozen one costs three times as much.

    Attributes:
        command: such as ``SUBSCRIBE``.
        headers: unescaped; of a repeated header the first counts (STOMP 1.2, "Repeated Header Entries").
        body: empty for the frames that cannot have one.
    """

    command: str
    headers: dict[str, str]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The header's value, or None where it is absent or a JavaScript client wrote its nothing as text."""
        value = self.headers.get(name)
        return None if value == "undefined" or value == "null" else value


@dataclass(frozen=True, slots=True)
class Limits:
    """How large what a peer sends may be. All in bytes except ``max_headers``.

    Attributes:
        max_frame: a whole frame without its final NUL.
        max_headers: header lines, repeated ones counted.
        max_header_line: one header line.
        max_connect_header_line: the same for CONNECT and STOMP, whose ``StompX-Auth-Params`` may hold 16 KiB.
        max_body: the body alone.
    """

    max_frame: int = 1024 * 1024
    max_headers: int = 64
    max_header_line: int = 8 * 1024
    max_connect_header_line: int = 16 * 1024 + 64
    max_body: int = 1024 * 1024


_ESCAPES = {"\\": "\\\\", ":": "\\c", "\n": "\\n", "\r": "\\r"}
_UNESCAPES = {escape: character for character, escape in _ESCAPES.items()}
_TO_ESCAPE = str.maketrans(_ESCAPES)
_ESCAPE = re.compile(r"\\.?", re.DOTALL)


def escape(text: str) -> str:
    """Escape a header name or value (STOMP 1.2, "Value Encoding").

    Raises:
        ValueError: the text holds a NUL, which no escape can express.
    """
    if "\0" in text:
        raise ValueError("A STOMP header cannot hold a NUL")
    if "\\" in text or ":" in text or "\n" in text or "\r" in text:
        return text.translate(_TO_ESCAPE)
    return text


def unescape(text: str) -> str:
    """Undo :func:`escape`.

    Raises:
        StompError: an undefined escape sequence, which is fatal.
    """
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    character = _UNESCAPES.get(match[0])
    if character is None:
        raise StompError(f"Undefined escape sequence {match[0]!r} in a header")
    return character
