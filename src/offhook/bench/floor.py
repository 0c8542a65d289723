"""What the machine and the event loop cost alone: a bare protocol that does the least on the same wire.

It answers the WebSocket handshake without looking at it closely, ignores whatever clients say, and writes given bytes
to each of them on command. Run as ``python -m offhook.bench.floor``; it prints its port and ends with its standard
input.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from typing import cast

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HELLO = b"CONTROL"
"""What the commanding connection says first; then commands of 4 bytes of length, 1 byte of times, and the bytes."""


class Floor(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_buffer", "_everyone", "_head", "_transport")

    def __init__(self, everyone: set[asyncio.Transport]) -> None:
        self._everyone = everyone
        self._head = True
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._everyone.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._head:
            self._head = False
            if data.startswith(HELLO):
                self._buffer = data[len(HELLO) :]
                return
            start = data.index(b"Sec-WebSocket-Key: ") + 19
            key = data[start : data.index(b"\r\n", start)]
            accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
            transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: v12.stomp\r\n\r\n"
            )
            self._everyone.add(transport)
        elif transport not in self._everyone:
            self._command(data)

    def _command(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 5:
            size = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < 5 + size:
                return
            times, payload = self._buffer[4], self._buffer[5 : 5 + size]
            self._buffer = self._buffer[5 + size :]
            for _ in range(times):
                for transport in self._everyone:
                    transport.write(payload)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    everyone: set[asyncio.Transport] = set()
    server = await loop.create_server(lambda: Floor(everyone), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        # Whoever started this process closes its input when it needs it no longer, or dies.
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Serves until standard input ends."""
    import uvloop

    uvloop.run(_serve())


if __name__ == "__main__":
    main()
