"""Thousands of connections that go wrong in every way leave nothing behind: no memory, no descriptor, no session."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.support import ServerProcess

from offhook.bench import wire
from offhook.bench.measure import open_files, resident_bytes

WARM_UP, ROUNDS = 4, 4
EACH = 150
"""Connections of each kind in a round."""
AT_ONCE = 150
PEOPLE = 100
"""Usernames; the same all the time, so that what the server knows of its users does not grow."""
MAX_GROWTH = 500
"""Bytes that may stay for each connection: caches and heap fragments, while a leaked connection is some kilobytes."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() reset the connection."""

CLOSE = 0x88

_names = itertools.count()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(
        tmp_path / "data",
        settings={
            "connect_rate": "100000",
            "connect_burst": "1000000",
            "denial_rate": "100000",
            "denial_burst": "1000000",
            "connect_timeout": "1",
            "log_level": "error",
            "session_retention": "1",
        },
    )
    process.start()
    yield process
    process.stop()


class Visitor:
    """A raw connection to the server.

    Args:
        reader: its incoming side.
        writer: its outgoing side.
        api_key: of the server's application.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, api_key: str) -> None:
        self._reader = reader
        self._writer = writer
        self.api_key = api_key

    def say(self, data: bytes) -> None:
        """Sends bytes."""
        self._writer.write(data)

    async def upgrade(self, api_key: str | None = None) -> None:
        """Opens the WebSocket."""
        self.say(wire.upgrade("localhost", self.api_key if api_key is None else api_key, bytes(16)))
        answer = await self._reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101"), answer

    async def hear(self, text: bytes) -> None:
        """Waits until the server says something."""
        await self._reader.readuntil(text)

    async def hear_end(self) -> bytes:
        """Waits until the server closes. Returns what it said before."""
        return await self._reader.read()

    async def hear_refusal(self, text: bytes) -> None:
        """Waits for an ERROR with this text, and closes as WebSocket clients do."""
        await self.hear(text)
        self.say(wire.client_frame((1000).to_bytes(2, "big"), CLOSE))
        await self.hear_end()

    def reset(self) -> None:
        """Breaks the connection as a machine does that lost power: without a goodbye."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._writer.transport.abort()


def _name() -> str:
    return f"visitor-{next(_names) % PEOPLE}@example.test"


async def silent(visitor: Visitor) -> None:
    """Connects, says nothing, and waits until the server has had enough."""
    await visitor.hear_end()


async def half_a_head(visitor: Visitor) -> None:
    visitor.say(b"GET /rtm/websocket HTTP/1.1\r\nHost: local")
    visitor.reset()


async def no_http(visitor: Visitor) -> None:
    visitor.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert b" 400 " in await visitor.hear_end()


async def no_such_path(visitor: Visitor) -> None:
    visitor.say(wire.upgrade("localhost", "x", bytes(16)).replace(b"/rtm/", b"/nowhere/"))
    assert b" 404 " in await visitor.hear_end()


async def half_open(visitor: Visitor) -> None:
    """A WebSocket that never says CONNECT."""
    await visitor.upgrade()
    await visitor.hear_refusal(b"ERROR")


async def wrong_key(visitor: Visitor) -> None:
    await visitor.upgrade("no-such-key")
    visitor.say(wire.connect(_name()))
    await visitor.hear_refusal(b"AccessDeniedError")


async def no_username(visitor: Visitor) -> None:
    await visitor.upgrade()
    visitor.say(wire.connect(" "))
    await visitor.hear_refusal(b"ERROR")


async def deaf(visitor: Visitor) -> None:
    """Does not even hear that it is refused."""
    await visitor.upgrade("no-such-key")
    visitor.say(wire.connect(_name()))
    visitor.reset()


async def broken_stomp(visitor: Visitor) -> None:
    await visitor.upgrade()
    visitor.say(wire.client_frame(b"NONSENSE\nno colon here\n\n\0"))
    await visitor.hear_refusal(b"ERROR")


async def crash_in_a_frame(visitor: Visitor) -> None:
    await visitor.upgrade()
    visitor.say(wire.connect(_name())[:-20])
    visitor.reset()


async def crash_before_connected(visitor: Visitor) -> None:
    await visitor.upgrade()
    visitor.say(wire.connect(_name()))
    visitor.reset()


async def crash_in_the_bootstrap(visitor: Visitor) -> None:
    await visitor.upgrade()
    visitor.say(wire.connect(_name()))
    await visitor.hear(b"CONNECTED")
    visitor.say(wire.GREETING[0] + wire.GREETING[1])
    visitor.reset()


KINDS: tuple[Callable[[Visitor], Awaitable[None]], ...] = (
    silent,
    half_a_head,
    no_http,
    no_such_path,
    half_open,
    wrong_key,
    no_username,
    deaf,
    broken_stomp,
    crash_in_a_frame,
    crash_before_connected,
    crash_in_the_bootstrap,
)


async def visit_all(server: ServerProcess, api_key: str) -> None:
    """One round: EACH connections of each kind, mixed."""
    host, _, port = server.http_host.partition(":")
    queue = iter([kind for _ in range(EACH) for kind in KINDS])

    async def visit() -> None:
        for kind in queue:
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                await asyncio.wait_for(kind(Visitor(reader, writer, api_key)), 15)
            finally:
                writer.transport.abort()

    await asyncio.gather(*(visit() for _ in range(AT_ONCE)))


async def metric(server: ServerProcess, name: str) -> float:
    text = (await asyncio.to_thread(httpx.get, f"{server.url}/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


async def at_rest(server: ServerProcess) -> None:
    """Waits until no connection is left but the one that asks."""
    deadline = time.monotonic() + 20
    while await metric(server, "offhook_connections_open") > 1:
        assert time.monotonic() < deadline, "connections are left"
        await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
async def test_failed_connections_leave_nothing(
    server: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    api_key = await asyncio.to_thread(lambda: server.api_key)
    for _ in range(WARM_UP):
        await visit_all(server, api_key)
    await at_rest(server)
    memory, files = resident_bytes(server.pid), open_files(server.pid)
    for _ in range(ROUNDS):
        await visit_all(server, api_key)
    await at_rest(server)
    count = ROUNDS * EACH * len(KINDS)
    growth = (resident_bytes(server.pid) - memory) / count
    figures = f"{count} connections, {growth:.0f} bytes each stay, {open_files(server.pid) - files} descriptors"
    print(figures)
    record_property("leaks", figures)
    assert open_files(server.pid) <= files + 2
    assert growth <= MAX_GROWTH
    assert (await asyncio.to_thread(httpx.get, f"{server.url}/readyz")).status_code == 200
