"""A TCP proxy that breaks: the network between a client and the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType

from offhook.client.tasks import report
from offhook.testing.messages import Fate, ServerMessages

CHUNK = 65536
"""Bytes that are taken from a connection at once."""
TICK = 0.02
"""Seconds for which a slow connection rests after each piece."""
_MOMENT = 0.001
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER by which closing a socket resets the connection, as a router does that has forgotten it."""


class FaultProxy:
    """Forwards connections to a server until told to misbehave. Use it as an asynchronous context.

    ::

        async with FaultProxy(server.host) as proxy:
            kitty = ChatKitty(server.api_key, host=proxy.host, is_secure=False)
            ...
            proxy.cut()

    Faults can be asked for at any time and in any combination. Leaving the context ends all connections and tasks,
    whatever is broken. TLS passes as any other bytes do; only :meth:`duplicate_messages` and :meth:`drop_messages`
    need to read what passes, and so work without TLS alone.

    Args:
        upstream: ``host:port`` of the server.
    """

    __slots__ = (
        "_budget", "_fate", "_flowing", "_links", "_orderly", "_port", "_rate", "_server", "_spent", "_upstream",
    )  # fmt: skip

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._rate: float | None = None
        self._fate = Fate.PASS
        self._budget: int | None = None
        self._orderly = False
        self._spent = asyncio.Event()

    @property
    def host(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port for clients; it stays the same when connections are refused and accepted again."""
        return self._port

    @property
    def links(self) -> int:
        """Connections through the proxy now, half-open ones too."""
        return len(self._links)

    # --- new connections --------------------------------------------------------------------------------------------

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

    # --- the end of connections -------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Resets every connection, on both sides."""
        for link in list(self._links):
            link.reset()

    def go_away(self) -> None:
        """The network is gone: refuses new connections and resets the others."""
        self.refuse()
        self.cut()

    def cut_after(self, count: int) -> None:
        """Resets the connection on which the ``count``-th byte to a client passes, counted from now over all of them.

        The client has got just so many bytes, which as a rule end in the middle of a frame. Happens once; connections
        made after it work.

        Args:
            count: bytes; 0 cuts instead of the next byte.
        """
        self._set_budget(count, orderly=False)

    def truncate_after(self, count: int) -> None:
        """As :meth:`cut_after`, but the client sees an orderly end of the stream (FIN) instead of a reset."""
        self._set_budget(count, orderly=True)

    async def spent(self) -> None:
        """Waits until what :meth:`cut_after` or :meth:`truncate_after` announced has happened."""
        await self._spent.wait()

    def half_open(self, *, close_upstream: bool = False) -> None:
        """The path of every connection is dead: both ends believe it is open, and nothing comes through any more.

        What a client still sends is taken and forgotten, and so is its end. Connections made after this work, unless
        they are refused.

        Args:
            close_upstream: whether the server sees its end of each connection reset, rather than nothing.
        """
        for link in list(self._links):
            link.dead = True
            if close_upstream and link.upstream is not None:
                _reset(link.upstream)

    # --- slowness ---------------------------------------------------------------------------------------------------

    def stall(self) -> None:
        """Forwards nothing more, but keeps every connection open, new ones too."""
        self._flowing.clear()

    def flow(self) -> None:
        """Forwards again, first what was held back."""
        self._flowing.set()

    def slow(self, bytes_per_second: float | None) -> None:
        """Forwards no faster than this, for each connection and direction.

        Args:
            bytes_per_second: at least 1, or None for as fast as it goes.
        """
        if bytes_per_second is not None and bytes_per_second < 1:
            raise ValueError("bytes_per_second must be at least 1")
        self._rate = bytes_per_second

    # --- messages ---------------------------------------------------------------------------------------------------

    def duplicate_messages(self, on: bool = True) -> None:
        """Sends every text message of a server's WebSocket twice to its client; does not work with TLS."""
        self._set_fate(Fate.DOUBLE if on else Fate.PASS)

    def drop_messages(self, on: bool = True) -> None:
        """Sends no text message of a server's WebSocket to its client; pings go on. Does not work with TLS."""
        self._set_fate(Fate.DROP if on else Fate.PASS)

    # --- life -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Ends all of it, and waits for that."""
        # A connection that asyncio has taken but not looked at yet would be left open if its listener ended now. After
        # a timer it has been.
        await asyncio.sleep(_MOMENT)
        self.go_away()
        self.flow()
        await asyncio.gather(*(link.done.wait() for link in list(self._links)))

    async def __aenter__(self) -> FaultProxy:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _set_budget(self, count: int, orderly: bool) -> None:
        if count < 0:
            raise ValueError("count must not be negative")
        self._budget, self._orderly = count, orderly
        self._spent.clear()

    def _set_fate(self, fate: Fate) -> None:
        self._fate = fate
        for link in self._links:
            link.messages.fate = fate

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            # It was on its way in when connections were refused, or the proxy closed.
            _reset(writer)
            return
        link = _Link(writer, self._fate)
        self._links.add(link)
        link.work = asyncio.create_task(self._forward(link, reader), name="FaultProxy")
        try:
            await asyncio.wait([link.work])
            if link.work.cancelled():
                link.abort()
            elif (error := link.work.exception()) is not None:
                link.abort()
                report("A connection through FaultProxy failed", error)
        finally:
            link.work.cancel()
            for stream in link.streams:
                stream.close()
                with contextlib.suppress(OSError):
                    await stream.wait_closed()
            self._links.discard(link)
            link.done.set()

    async def _forward(self, link: _Link, reader: asyncio.StreamReader) -> None:
        host, _, port = self._upstream.rpartition(":")
        try:
            upstream_reader, link.upstream = await asyncio.open_connection(host, int(port))
            # So that draining means that everything is on its way, and a reset takes nothing back.
            for stream in link.streams:
                stream.transport.set_write_buffer_limits(high=0)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._to_server(link, reader, link.upstream), name="FaultProxy to server")
                group.create_task(self._to_client(link, upstream_reader, link.client), name="FaultProxy to client")
        except* OSError:
            # One side is broken, so the other is to be.
            link.abort()

    async def _to_server(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        await self._pump(link, reader, send)
        _end(link, writer)

    async def _to_client(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(piece: bytes) -> None:
            data = link.messages.feed(piece)
            last = self._budget is not None and len(data) >= self._budget
            if self._budget is not None:
                data = data[: self._budget]
                # It is spent here, so that no other connection is cut as well while this one drains.
                self._budget = None if last else self._budget - len(data)
            writer.write(data)
            await writer.drain()
            if last:
                self._spend(link)

        await self._pump(link, reader, send)
        _end(link, writer)

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Forwards what comes from one side, when it is time, until it ends."""
        while data := await _read(link, reader):
            while data:
                await self._flowing.wait()
                if link.dead:
                    break
                rate = self._rate
                piece = data if rate is None else data[: max(1, int(rate * TICK))]
                data = data[len(piece) :]
                await send(piece)
                if rate is not None:
                    await asyncio.sleep(len(piece) / rate)
        await self._flowing.wait()

    def _spend(self, link: _Link) -> None:
        if self._orderly and link.upstream is not None:
            _end(link, link.client)
            link.dead = True
            _reset(link.upstream)
        else:
            link.reset()
        self._spent.set()


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    __slots__ = ("client", "dead", "done", "messages", "upstream", "work")

    def __init__(self, client: asyncio.StreamWriter, fate: Fate) -> None:
        self.client = client
        self.upstream: asyncio.StreamWriter | None = None
        self.work: asyncio.Task[None] | None = None
        self.messages = ServerMessages()
        self.messages.fate = fate
        self.dead = False
        self.done = asyncio.Event()

    @property
    def streams(self) -> list[asyncio.StreamWriter]:
        return [stream for stream in (self.client, self.upstream) if stream is not None]

    def abort(self) -> None:
        """Resets both connections."""
        for stream in self.streams:
            _reset(stream)

    def reset(self) -> None:
        """Ends the link, whatever it waits for."""
        self.abort()
        if self.work is not None:
            self.work.cancel()


async def _read(link: _Link, reader: asyncio.StreamReader) -> bytes:
    """The next bytes of one side, or none at its end."""
    try:
        return await reader.read(CHUNK)
    except OSError:
        # The other side of a dead path does not learn of this end.
        if link.dead:
            return b""
        raise


def _reset(stream: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = stream.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.transport.abort()


def _end(link: _Link, writer: asyncio.StreamWriter) -> None:
    """Hands the end of one side's stream on to the other."""
    if not link.dead and writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()
