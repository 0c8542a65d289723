"""A TCP proxy that breaks: the network between a client and the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket


class Proxy:
    """Forwards connections to a server until told to misbehave.

    Args:
        upstream: ``host:port`` of the server.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def host(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def links(self) -> int:
        """Connections through the proxy now."""
        return len(self._links)

    async def accept(self) -> None:
        """Takes connections (again), on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._link, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuses new connections; those that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Resets every connection, on both sides."""
        for link in list(self._links):
            link.reset()

    def go_away(self) -> None:
        """The network is gone: refuses new connections and resets the others."""
        self.refuse()
        self.cut()

    def stall(self) -> None:
        """Forwards nothing more, but keeps every connection open."""
        self._flowing.clear()

    def flow(self) -> None:
        """Forwards again, first what was held back."""
        self._flowing.set()

    async def close(self) -> None:
        """Ends all of it."""
        self.go_away()
        self.flow()
        await asyncio.gather(*(link.done.wait() for link in list(self._links)))

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            host, _, port = self._upstream.rpartition(":")
            upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
            link.upstream = upstream_writer
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream_writer))
                group.create_task(self._pump(upstream_reader, writer))
        except* (OSError, asyncio.CancelledError):
            link.reset()
        finally:
            for stream in link.streams:
                stream.close()
                with contextlib.suppress(OSError):
                    await stream.wait_closed()
            self._links.discard(link)
            link.done.set()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        await self._flowing.wait()
        if writer.can_write_eof():
            writer.write_eof()


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.upstream: asyncio.StreamWriter | None = None
        self.done = asyncio.Event()

    @property
    def streams(self) -> list[asyncio.StreamWriter]:
        return [stream for stream in (self.client, self.upstream) if stream is not None]

    def reset(self) -> None:
        for stream in self.streams:
            connection = stream.get_extra_info("socket")
            with contextlib.suppress(OSError):
                # With no time to linger a socket is closed by RST, as a router does that has forgotten it.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            stream.transport.abort()
