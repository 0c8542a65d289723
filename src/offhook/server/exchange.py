"""One HTTP request and its response: uvicorn's, written out in fewer steps.

A short answer leaves in one piece, and its headers are looked over once instead of one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

MAX_DISCARD = 1024 * 1024
"""Bytes of a body that are read for nothing after an early response, so that the connection can go on."""
MAX_NAMES = 256
"""Names of response headers that are remembered as well-formed."""

_BODILESS = frozenset({204, 304})
_names: dict[bytes, bytes] = {}


class Exchange(RequestResponseCycle):
    """A request and its response.

    Attributes:
        announced: the Content-Length of the request's body; 0 if it has none.
    """

    announced = 0
    _unsent = b""  # the head, while it waits for the body

    async def send(self, message: ASGISendEvent) -> None:
        """Takes the application's messages.

        Raises:
            RuntimeError: the message does not belong there, or its headers or length are wrong.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"Expected http.response.start, but got {message['type']}")
            self._begin(message["status"], message.get("headers", ()))
        elif self.response_complete:
            raise RuntimeError(f"Got {message['type']} after the end of the response")
        elif message["type"] != "http.response.body":
            raise RuntimeError(f"Expected http.response.body, but got {message['type']}")
        else:
            self._go_on(message.get("body", b""), message.get("more_body", False))

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Makes the head. It waits for the body if that has a known length, since then it will come soon."""
        parts = [STATUS_LINE[status]]
        values = []
        closes = False
        for given, value in (*self.default_headers, *headers):
            name = _names.get(given) or _checked(given)
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif name == b"connection":
                closes = b"close" in [token.strip() for token in value.lower().split(b",")]
            values.append(value)
            parts += (name, b": ", value, b"\r\n")
        if HEADER_VALUE_RE.search(b"".join(values)):
            raise RuntimeError("A header's value holds control characters")
        if closes or (self.more_body and self.announced > MAX_DISCARD):
            self.keep_alive = False
        if not self.keep_alive and not closes:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _BODILESS:
            self.chunked_encoding = True
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        head = b"".join(parts)
        self.response_started = True
        self.waiting_for_100_continue = False
        if self.chunked_encoding:
            self.transport.write(head)
        else:
            self._unsent = head

    def _go_on(self, body: bytes, more: bool) -> None:
        """Writes a part of the body."""
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = chunk if more else chunk + b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("The body is longer than its Content-Length")
        if not more and self.expected_content_length:
            raise RuntimeError("The body is shorter than its Content-Length")
        if self._unsent:
            body, self._unsent = self._unsent + body, b""
        if body:
            self.transport.write(body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            self.on_response()


def _checked(given: bytes) -> bytes:
    if HEADER_RE.search(given):
        raise RuntimeError("A header's name is malformed")
    name = given.lower()
    if len(_names) < MAX_NAMES:
        _names[given] = name
    return name
