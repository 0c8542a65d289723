"""Connections that become WebSockets: which heads need no second reading, and who learns of the end."""

from __future__ import annotations

import asyncio
import re

from offhook.server.gate import Gate

MAX_PLAIN_HEAD = 32 * 1024
"""Bytes of a head; a larger one goes the long way, where it is refused."""

# Names of letters, digits and hyphens only: no folded line and nothing hidden passes for one.
_PLAIN_HEAD = re.compile(rb"GET /[!-~]* HTTP/1\.1\r\n(?:[A-Za-z0-9-]+:[ -~]*\r\n)+\r\n")
_UPGRADE = re.compile(rb"\r\nconnection: *(?:keep-alive, *)?upgrade *\r\n")
_LONG_WAY = tuple(
    f"\r\n{name}".encode()
    for name in ("content-length", "transfer-encoding", "expect", "trailer", "te:", "http2-settings")
)


def is_plain_upgrade(data: bytes) -> bool:
    """Whether these bytes are the whole head of an upgrade to WebSocket, as every client writes it, and nothing else.

    Then the WebSocket layer, which checks the head anyhow, reads it at once: a sixth of what a new session costs is
    parsing the head, writing it out again and parsing that. Whatever is unusual goes the long way.
    """
    if len(data) > MAX_PLAIN_HEAD or _PLAIN_HEAD.fullmatch(data) is None:
        return False
    lower = data.lower()
    if lower.count(b"\r\nupgrade:") != 1 or b"\r\nupgrade: websocket\r\n" not in lower:
        return False
    if lower.count(b"\r\nconnection:") != 1 or _UPGRADE.search(lower) is None:
        return False
    return not any(name in lower for name in _LONG_WAY)


class Upgraded(asyncio.Protocol):
    """Stands between transport and WebSocket protocol to learn of the end; data go straight to the latter."""

    __slots__ = ("_address", "_gate", "_inner", "_listener", "data_received")

    def __init__(self, inner: asyncio.Protocol, gate: Gate, listener: str, address: str) -> None:
        self._inner = inner
        self._gate = gate
        self._listener = listener
        self._address = address
        self.data_received = inner.data_received  # type: ignore[method-assign]

    def eof_received(self) -> bool | None:
        """The peer sends no more."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """The peer takes too little."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and counted no more."""
        self._gate.leave(self._listener, self._address)
        self._inner.connection_lost(exc)
        del self.data_received, self._inner
