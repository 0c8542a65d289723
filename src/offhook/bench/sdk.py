"""Clients of the Python SDK in numbers, in a process of their own that can be measured.

Run as ``python -m offhook.bench.sdk``: it takes orders on its standard input, one in JSON a line, answers each with a
line, and ends with its input. Beside the SDK's clients it can keep bare WebSockets, as the floor beneath them: the
same library, taking messages and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Awaitable, Callable

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from offhook import kandy
from offhook.chatkitty import ChatKitty, ClientError, Transport

AT_ONCE = 25
"""Clients that are being started at once."""


class StartChatKitty(msgspec.Struct, frozen=True, tag=True):
    """Starts sessions.

    Attributes:
        host: of the server.
        api_key: of the application.
        users: one for each session.
    """

    host: str
    api_key: str
    users: tuple[str, ...]


class StartKandy(msgspec.Struct, frozen=True, tag=True):
    """Starts Link clients.

    Attributes:
        port: of the server on 127.0.0.1.
        users: username and access token of each.
        watch: whose presence they ask to be told of.
    """

    port: int
    users: tuple[tuple[str, str], ...]
    watch: str


class StartBare(msgspec.Struct, frozen=True, tag=True):
    """Opens bare WebSockets.

    Attributes:
        url: of all of them.
        count: how many.
        answer: what each sends for every message that it gets; empty is nothing.
    """

    url: str
    count: int
    answer: str = ""


class Expect(msgspec.Struct, frozen=True, tag=True):
    """Answered once so many more events have come than at the last Expect. With 0 what came before is forgotten."""

    events: int


class End(msgspec.Struct, frozen=True, tag=True):
    """Ends all clients."""


Order = StartChatKitty | StartKandy | StartBare | Expect | End


class Done(msgspec.Struct, frozen=True):
    """The answer to an order.

    Attributes:
        clients: how many there are now.
        error: what went wrong, if anything did.
    """

    clients: int
    error: str | None = None


class Clients:
    """All clients of this process."""

    def __init__(self) -> None:
        # One for all: what httpx and TLS keep is then not counted for each.
        self._transport = Transport(trust_env=False, timeout=60.0)
        self._stack = contextlib.AsyncExitStack()
        self._count = 0
        self._events = 0
        self._goal = 0
        self._reached = asyncio.Event()

    async def obey(self, order: Order) -> Done:
        """Carries an order out. Raises ClientError, OSError or WebSocketException if it cannot be."""
        match order:
            case StartChatKitty(host, api_key, users):
                await self._several([self._chatkitty(host, api_key, user) for user in users])
            case StartKandy(port, users, watch):
                await self._several([self._kandy(port, user, token, watch) for user, token in users])
            case StartBare(url, count, answer):
                await self._several([self._bare(url, answer) for _ in range(count)])
            case Expect(events):
                await self._expect(events)
            case End():
                await self.end()
        return Done(self._count)

    async def end(self) -> None:
        """Ends all clients."""
        await self._stack.aclose()
        self._count = 0
        await self._transport.close()
        gc.collect()

    async def _several(self, starts: list[Awaitable[None]]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(start: Awaitable[None]) -> None:
            async with gate:
                await start

        await asyncio.gather(*(one(start) for start in starts))
        self._count += len(starts)
        gc.collect()

    async def _expect(self, events: int) -> None:
        if not events:
            # Such as the first presence that is told to those who watch.
            self._events = self._goal = 0
        self._goal += events
        self._reached.clear()
        if self._events < self._goal:
            await self._reached.wait()

    def _hear(self, _: object) -> None:
        self._events += 1
        if self._events == self._goal:
            self._reached.set()

    async def _chatkitty(self, host: str, api_key: str, user: str) -> None:
        client = ChatKitty(api_key, host=host, is_secure=False, transport=self._transport, timeout=60.0)
        self._stack.push_async_callback(client.close)
        client.on_user_updated(self._hear)
        (await client.start_session(user)).unwrap()

    async def _kandy(self, port: int, user: str, token: str, watch: str) -> None:
        address = {"protocol": "http", "base": "127.0.0.1", "port": port}
        socket = {"protocol": "ws", "server": "127.0.0.1", "port": port}
        config = {"authentication": {"server": address}, "subscription": {"websocket": socket}}
        client = kandy.create(config, product="link", transport=self._transport)
        self._stack.push_async_callback(client.destroy)
        client.on("presence:change", self._hear)
        client.set_credentials({"username": user, "accessToken": token})
        await client.services.subscribe(["call", "Presence", "IM"])
        await client.presence.subscribe([watch])

    async def _bare(self, url: str, answer: str) -> None:
        connection = await connect(
            url,
            subprotocols=[Subprotocol("v12.stomp")],
            proxy=None,
            compression=None,
            ping_interval=20.0,
            close_timeout=1.0,
        )
        task = asyncio.create_task(self._listen(connection, answer))

        async def close() -> None:
            connection.transport.abort()
            await task

        self._stack.push_async_callback(close)

    async def _listen(self, connection: ClientConnection, answer: str) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._hear(await connection.recv())
                if answer:
                    await connection.send(answer)


async def serve(read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], None]) -> None:
    """Carries orders out until there are no more.

    Args:
        read: the next line; empty at the end.
        write: takes the line that answers it.
    """
    clients = Clients()
    orders = msgspec.json.Decoder(Order)
    try:
        while line := await read():
            try:
                done = await clients.obey(orders.decode(line))
            except (ClientError, OSError, WebSocketException) as error:
                done = Done(0, f"{type(error).__name__}: {error}")
            write(msgspec.json.encode(done) + b"\n")
    finally:
        await clients.end()


async def _main() -> None:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def write(line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    await serve(reader.readline, write)


if __name__ == "__main__":
    asyncio.run(_main())
