"""A plain load balancer in front of several servers: it knows nothing of sessions, and gives each connection to any."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence


class Balancer:
    """Gives each new TCP connection to the next server that takes it.

    Args:
        hosts: the servers, as ``host:port``.

    Attributes:
        host: where it listens, as ``host:port``.
        given: how many connections each server was given.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = list(hosts)
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._closed = False
        self.host = ""
        self.given = [0] * len(hosts)

    async def start(self) -> None:
        """Begins to listen."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        name, port = self._server.sockets[0].getsockname()
        self.host = f"{name}:{port}"

    async def close(self) -> None:
        """Breaks all connections and listens no more."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Those whose task had not begun, or ended between two steps.
        for writer in self._writers:
            writer.transport.abort()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            # It had come before.
            writer.transport.abort()
            return
        self._writers.add(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await self._connect()
            if upstream is not None:
                await self._carry(reader, writer, *upstream)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        first = next(self._turn)
        for number in range(len(self._hosts)):
            which = (first + number) % len(self._hosts)
            name, _, port = self._hosts[which].rpartition(":")
            try:
                opened = await asyncio.open_connection(name, int(port))
            except OSError:
                continue
            self.given[which] += 1
            self._writers.add(opened[1])
            return opened
        return None

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream_writer: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(_pump(reader, upstream_writer)),
            asyncio.create_task(_pump(upstream_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.ALL_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            upstream_writer.transport.abort()
            self._writers.discard(upstream_writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries bytes one way until it ends, and says so; a reset is passed on as one."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
