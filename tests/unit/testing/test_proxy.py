"""Every fault of the proxy, as a plain client sees it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from offhook.testing import FaultProxy, leaks

WAIT = 10.0


class Upstream:
    """A server that gives back what it is sent, and remembers how its connections ended.

    Attributes:
        ends: ``eof`` or ``reset`` for each connection that is over.
        received: bytes in all.
    """

    def __init__(self) -> None:
        self.port = 0
        self.ends: list[str] = []
        self.received = 0
        self.changed = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        end = "eof"
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
                await self._tell()
        except ConnectionError:
            end = "reset"
        finally:
            self._writers.discard(writer)
            writer.close()
            self.ends.append(end)
            await self._tell()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT), self.changed:
            await self.changed.wait_for(condition)

    def close(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class Line:
    """A client's connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, proxy: FaultProxy) -> Line:
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def echo(self, data: bytes) -> None:
        """Sends something and waits until it has come back."""
        self.writer.write(data)
        async with asyncio.timeout(WAIT):
            assert await self.reader.readexactly(len(data)) == data

    async def rest(self) -> tuple[bytes, str]:
        """What still comes, and how it ends."""
        came = bytearray()
        async with asyncio.timeout(WAIT):
            try:
                while data := await self.reader.read(65536):
                    came += data
            except ConnectionResetError:
                return bytes(came), "reset"
        return bytes(came), "eof"

    async def silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes for a while, not even an end."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


async def carries(proxy: FaultProxy, links: int) -> None:
    """Waits until the proxy has so many connections."""
    async with asyncio.timeout(WAIT):
        while proxy.links != links:
            await asyncio.sleep(0.001)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    async with leaks():
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        yield server
        server.close()
        listener.close()
        await listener.wait_closed()


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(f"127.0.0.1:{upstream.port}") as proxy:
        yield proxy


@pytest.fixture
async def line(proxy: FaultProxy) -> AsyncIterator[Line]:
    line = await Line.open(proxy)
    await line.echo(b"hello")
    yield line
    await line.close()


async def test_bytes_pass_both_ways(proxy: FaultProxy, line: Line) -> None:
    assert proxy.links == 1
    assert proxy.host == f"127.0.0.1:{proxy.port}"
    await line.echo(bytes(range(256)) * 4000)


async def test_an_orderly_end_passes(proxy: FaultProxy, line: Line, upstream: Upstream) -> None:
    line.writer.write(b"bye")
    line.writer.write_eof()
    assert await line.rest() == (b"bye", "eof")
    await upstream.until(lambda: upstream.ends == ["eof"])


async def test_cut(proxy: FaultProxy, line: Line, upstream: Upstream) -> None:
    proxy.cut()
    assert await line.rest() == (b"", "reset")
    await upstream.until(lambda: upstream.ends == ["reset"])
    again = await Line.open(proxy)
    await again.echo(b"again")
    await again.close()


async def test_refuse_and_accept(proxy: FaultProxy, line: Line) -> None:
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await Line.open(proxy)
    await line.echo(b"those that are there stay")
    await proxy.accept()
    assert proxy.port == port
    again = await Line.open(proxy)
    await again.echo(b"again")
    await again.close()


async def test_go_away(proxy: FaultProxy, line: Line) -> None:
    proxy.go_away()
    assert await line.rest() == (b"", "reset")
    with pytest.raises(ConnectionRefusedError):
        await Line.open(proxy)


async def test_stall_and_flow(proxy: FaultProxy, line: Line, upstream: Upstream) -> None:
    proxy.stall()
    line.writer.write(b"held back")
    new = await Line.open(proxy)
    assert await line.silent()
    assert upstream.received == len(b"hello")
    proxy.flow()
    assert await line.reader.readexactly(9) == b"held back"
    await new.echo(b"new")
    await new.close()


async def test_cut_while_stalled(proxy: FaultProxy, line: Line) -> None:
    proxy.stall()
    line.writer.write(b"never arrives")
    proxy.cut()
    assert (await line.rest())[1] == "reset"
    await carries(proxy, 0)


async def test_half_open(proxy: FaultProxy, line: Line, upstream: Upstream) -> None:
    proxy.half_open()
    line.writer.write(b"into the void")
    assert await line.silent()
    assert upstream.received == len(b"hello")
    assert upstream.ends == []
    new = await Line.open(proxy)
    await new.echo(b"new connections work")
    await new.close()
    assert proxy.links >= 1


async def test_half_open_hides_the_clients_end(proxy: FaultProxy, line: Line, upstream: Upstream) -> None:
    proxy.half_open()
    await line.close()
    new = await Line.open(proxy)
    await new.echo(b"a round trip later")
    await new.close()
    await upstream.until(lambda: upstream.ends == ["eof"])
    # The server still believes in the other one.
    await carries(proxy, 1)


async def test_half_open_with_the_servers_end_closed(proxy: FaultProxy, line: Line, upstream: Upstream) -> None:
    proxy.half_open(close_upstream=True)
    await upstream.until(lambda: upstream.ends == ["reset"])
    line.writer.write(b"into the void")
    assert await line.silent()


async def test_slow(proxy: FaultProxy, line: Line) -> None:
    proxy.slow(20_000)
    began, cpu = time.monotonic(), time.process_time()
    await line.echo(b"x" * 6_000)
    took = time.monotonic() - began
    # The last piece is not waited for, and both directions overlap.
    assert 0.25 <= took < 3.0
    assert time.process_time() - cpu < took / 2, "it waits busily"
    proxy.slow(None)
    began = time.monotonic()
    await line.echo(b"x" * 500_000)
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("rate", [0, 0.5, -1])
def test_slow_needs_a_rate(rate: float) -> None:
    with pytest.raises(ValueError, match="bytes_per_second"):
        FaultProxy("127.0.0.1:1").slow(rate)


@pytest.mark.parametrize("count", [0, 1, 77, 5000])
async def test_cut_after(proxy: FaultProxy, line: Line, upstream: Upstream, count: int) -> None:
    proxy.cut_after(count)
    line.writer.write(b"0123456789" * 1000)
    came, end = await line.rest()
    assert (len(came), end) == (count, "reset")
    assert came == (b"0123456789" * 1000)[:count]
    async with asyncio.timeout(WAIT):
        await proxy.spent()
    again = await Line.open(proxy)
    await again.echo(b"0123456789" * 1000)
    await again.close()


async def test_truncate_after(proxy: FaultProxy, line: Line, upstream: Upstream) -> None:
    proxy.truncate_after(12)
    line.writer.write(b"0123456789" * 10)
    assert await line.rest() == (b"012345678901", "eof")
    await upstream.until(lambda: upstream.ends == ["reset"])


async def test_the_count_is_of_all_connections(proxy: FaultProxy, line: Line) -> None:
    other = await Line.open(proxy)
    await other.echo(b"hello")
    proxy.cut_after(30)
    await line.echo(b"x" * 20)
    other.writer.write(b"y" * 20)
    assert await other.rest() == (b"y" * 10, "reset")
    await line.echo(b"this one goes on")
    await other.close()


def test_a_count_is_not_negative() -> None:
    with pytest.raises(ValueError, match="count"):
        FaultProxy("127.0.0.1:1").cut_after(-1)


async def test_without_a_server_clients_are_reset() -> None:
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    async with FaultProxy(f"127.0.0.1:{port}") as proxy:
        line = await Line.open(proxy)
        assert (await line.rest())[1] == "reset"
        await line.close()


@pytest.mark.parametrize(
    "broken",
    [
        lambda proxy: proxy.stall(),
        lambda proxy: proxy.half_open(),
        lambda proxy: proxy.half_open(close_upstream=True),
        lambda proxy: proxy.slow(1),
        lambda proxy: proxy.cut_after(10**9),
        lambda proxy: proxy.refuse(),
        lambda proxy: proxy.cut(),
    ],
    ids=["stall", "half-open", "half-open-closed", "slow", "cut-after", "refuse", "cut"],
)
async def test_closing_ends_every_fault_at_once(upstream: Upstream, broken: Callable[[FaultProxy], None]) -> None:
    async with leaks():
        proxy = FaultProxy(f"127.0.0.1:{upstream.port}")
        await proxy.accept()
        line = await Line.open(proxy)
        await line.echo(b"hello")
        broken(proxy)
        # More than fits anywhere, from a client that does not read.
        line.writer.write(b"x" * 5_000_000)
        began = time.monotonic()
        await proxy.close()
        assert time.monotonic() - began < WAIT
        assert proxy.links == 0
        await line.close()
        await upstream.until(lambda: len(upstream.ends) == 1)


async def test_who_is_on_the_way_in_when_it_closes_is_not_left(upstream: Upstream) -> None:
    for turns in range(8):
        proxy = FaultProxy(f"127.0.0.1:{upstream.port}")
        await proxy.accept()
        with socket.create_connection(("127.0.0.1", proxy.port)):
            # So far is the loop with it when the proxy closes.
            for _ in range(turns):
                await asyncio.sleep(0)
            await proxy.close()
            for _ in range(8):
                await asyncio.sleep(0)
            assert proxy.links == 0, turns


# --- messages -------------------------------------------------------------------------------------------------------


async def _chatter(socket: ServerConnection) -> None:
    """Gives back each message, then as fragments."""
    try:
        async for message in socket:
            await socket.send(message)
            if isinstance(message, str):
                await socket.send([message, "-", "fragments"])
    except ConnectionClosed:
        pass


@pytest.fixture
async def chatter() -> AsyncIterator[Server]:
    async with serve(_chatter, "127.0.0.1", 0, compression=None) as server:
        yield server


@pytest.fixture
async def chat_proxy(chatter: Server) -> AsyncIterator[FaultProxy]:
    port = next(iter(chatter.sockets)).getsockname()[1]
    async with FaultProxy(f"127.0.0.1:{port}") as proxy:
        yield proxy


async def test_duplicate_messages(chat_proxy: FaultProxy) -> None:
    async with connect(f"ws://{chat_proxy.host}", proxy=None) as socket, asyncio.timeout(WAIT):
        await socket.send("one")
        assert [await socket.recv() for _ in range(2)] == ["one", "one-fragments"]
        chat_proxy.duplicate_messages()
        await socket.send("two")
        assert [await socket.recv() for _ in range(4)] == ["two", "two", "two-fragments", "two-fragments"]
        await socket.send(b"binary")
        await (await socket.ping())
        assert await socket.recv() == b"binary"
        chat_proxy.duplicate_messages(False)
        await socket.send("x" * 100_000)
        assert [len(await socket.recv()) for _ in range(2)] == [100_000, 100_010]


async def test_drop_messages(chat_proxy: FaultProxy) -> None:
    chat_proxy.drop_messages()
    async with connect(f"ws://{chat_proxy.host}", proxy=None) as socket, asyncio.timeout(WAIT):
        await socket.send("lost")
        # Its answer comes after those to the message.
        await (await socket.ping())
        chat_proxy.drop_messages(False)
        await socket.send("kept")
        assert await socket.recv() == "kept"


async def test_a_cut_in_the_middle_of_a_frame(chat_proxy: FaultProxy) -> None:
    async with connect(f"ws://{chat_proxy.host}", proxy=None) as socket, asyncio.timeout(WAIT):
        chat_proxy.cut_after(500)
        await socket.send("x" * 1000)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is None
