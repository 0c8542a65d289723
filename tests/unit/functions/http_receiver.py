"""A real HTTP server on loopback that answers as a test says."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """A request as received."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request], Awaitable[bytes]]


def response(status: int, body: bytes = b"", content_type: str | None = "application/json", extra: str = "") -> bytes:
    """The bytes of an HTTP/1.1 response."""
    typed = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{typed}{extra}\r\n".encode() + body


@dataclass(slots=True)
class Receiver:
    """The server.

    Attributes:
        port: where it listens.
        requests: what it received.
        answer: makes the response; an empty one resets the connection.
    """

    answer: Answer
    port: int = 0
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                pairs = (line.split(": ", 1) for line in head[1:] if line)
                headers = {name.lower(): value for name, value in pairs}
                request = Request(
                    method, target, headers, await reader.readexactly(int(headers.get("content-length", 0)))
                )
                self.requests.append(request)
                answer = await self.answer(request)
                if not answer:
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(answer: Answer) -> AsyncIterator[Receiver]:
    """Runs a receiver on a free port."""
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


def always(answer: bytes) -> Answer:
    """Answers every request alike."""

    async def same(request: Request) -> bytes:
        return answer

    return same
