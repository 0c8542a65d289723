"""Who gets as far as a connection: origins, upgrades that are none, those who come too slowly or too often."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
from tests.served import API_KEY, WAIT, Site, served, until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from offhook.codes import CloseReason
from offhook.protocols import stomp

ALLOWED = ("https://app.example.test", "https://*.trusted.test")
STRANGERS = [
    "https://evil.test",
    "http://app.example.test",
    "https://app.example.test:8443",
    "https://app.example.test.evil.test",
    "https://evilapp.example.test",
    "https://trusted.test",
    "https://eviltrusted.test",
    "https://a.trusted.test.evil.test",
    "null",
    "",
    "file://",
]
FRIENDS = [None, "https://app.example.test", "HTTPS://APP.EXAMPLE.TEST", "https://a.b.trusted.test"]
PATHS = ["/rtm/websocket", "/stompx/websocket", "/rtm/000/session/websocket"]
HEAD = (
    "GET /rtm/websocket?api-key=key-default HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def upgrade(site: Site, path: str = "/rtm/websocket", origin: str | None = None) -> int:
    """The status that answers an upgrade; 101 if it is granted."""
    try:
        async with connect(site.websocket(path), origin=None if origin is None else Origin(origin), proxy=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def raw(site: Site, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which something was sent."""
    reader, writer = await asyncio.open_connection(*site.address)
    writer.write(data)
    return reader, writer


async def answer(site: Site, data: bytes) -> bytes:
    """The head of what answers some bytes."""
    reader, writer = await raw(site, data)
    async with asyncio.timeout(WAIT):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


async def test_only_pages_of_allowed_origins_come_in(tmp_path: Path) -> None:
    async with served(tmp_path, allowed_origins=ALLOWED) as site:
        for path in PATHS:
            assert [await upgrade(site, path, origin) for origin in FRIENDS] == [101] * len(FRIENDS)
            assert [await upgrade(site, path, origin) for origin in STRANGERS] == [403] * len(STRANGERS)


async def test_what_is_answered_to_strangers_they_cannot_read(tmp_path: Path) -> None:
    async with served(tmp_path, allowed_origins=ALLOWED) as site:
        for path in ("/rtm", "/rtm/info"):
            for origin in STRANGERS:
                response = await site.http.get(site.url + path, headers={"Origin": origin})
                assert "access-control-allow-origin" not in response.headers
                assert "access-control-allow-credentials" not in response.headers
            response = await site.http.get(site.url + path, headers={"Origin": ALLOWED[0]})
            assert response.headers["access-control-allow-origin"] == ALLOWED[0]


async def test_strangers_open_no_session_over_requests(tmp_path: Path) -> None:
    async with served(tmp_path, allowed_origins=ALLOWED) as site:
        url = f"{site.url}/rtm/000/session/xhr"
        response = await site.http.post(url, params={"api-key": API_KEY}, headers={"Origin": STRANGERS[0]})
        assert response.status_code == 403
        assert len(site.server._chatkitty.sockjs) == 0


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all, sir!!", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", base64.b64encode(b"x" * 17).decode(), 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426),
        ("GET ", "POST ", 405),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("Host: x\r\n", "", 400),
    ],
)
async def test_upgrades_that_are_none(tmp_path: Path, old: str, new: str, status: int) -> None:
    async with served(tmp_path) as site:
        head = await answer(site, (HEAD.replace(old, new) + "\r\n").encode())
        code = int(head.split()[1])
        assert code != 101 and 400 <= code < 500
        if status in (400, 426):
            assert code == status
        assert len(site.server._websockets) == 0
        assert b"101" in await answer(site, (HEAD + "\r\n").encode())


async def test_nothing_is_compressed(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame\r\n\r\n"
        reader, writer = await raw(site, (HEAD + offer).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head and b"extensions" not in head.lower()
        # A frame that claims to be compressed all the same is against the protocol.
        writer.write(b"\xc1\x81\0\0\0\0x")
        frame = await asyncio.wait_for(reader.readexactly(4), WAIT)
        assert frame[0] == 0x88 and int.from_bytes(frame[2:4], "big") == 1002
        writer.close()


async def test_those_who_shake_hands_slowly_are_dropped_and_hold_nobody_up(tmp_path: Path) -> None:
    async with served(tmp_path, connect_timeout=0.5) as site:
        beginnings = [b"", b"G", HEAD.encode(), b"GET /rtm/info HTTP/1.1\r\nX: ", b"POST /rtm/0/s/xhr HTTP/1.1\r\n"]
        slow = [await raw(site, beginning) for beginning in beginnings * 5]

        async def drip(writer: asyncio.StreamWriter) -> None:
            while not writer.is_closing():
                writer.write(b"X")
                await asyncio.sleep(0.05)

        drips = [asyncio.create_task(drip(writer)) for _, writer in slow[2:4]]
        async with site.client("jane") as client:
            assert (await client.relay("/application/v1/user.relay"))["name"] == "jane"
            async with asyncio.timeout(WAIT):
                for reader, _ in slow:
                    with_answer = await reader.read()
                    assert with_answer == b"" or b" 408 " in with_answer
            assert (await client.relay("/application/v1/user.relay"))["name"] == "jane"
        for task in drips:
            task.cancel()
        await asyncio.gather(*drips, return_exceptions=True)
        for _, writer in slow:
            writer.close()


async def test_those_who_connect_and_say_nothing_are_sent_away(tmp_path: Path) -> None:
    async with served(tmp_path, connect_timeout=0.3) as site, site.client() as silent, site.client() as beating:
        await beating.socket.send("\n")
        assert await silent.closing() == 4003
        assert await beating.closing() == 4003


async def test_connections_are_limited_in_all(tmp_path: Path) -> None:
    async with served(tmp_path, max_connections=3) as site:
        async with site.client("a"), site.client("b"), site.client("c"):
            assert await upgrade(site) == 503
            assert b"retry-after" in (await answer(site, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).lower()
        await until(lambda: site.core.metrics.connections["http"] == 0)
        assert await upgrade(site) == 101


async def test_connections_are_limited_by_address(tmp_path: Path) -> None:
    settings: dict[str, object] = {"max_connections_per_address": 2, "trusted_proxies": ("127.0.0.1",)}
    async with served(tmp_path, **settings) as site:

        async def enter(address: str) -> int:
            try:
                socket = await connect(site.websocket(), additional_headers={"X-Forwarded-For": address}, proxy=None)
            except InvalidStatus as refused:
                return refused.response.status_code
            kept.append(socket)
            return 101

        kept: list[object] = []
        assert [await enter("203.0.113.1") for _ in range(3)] == [101, 101, 503]
        assert await enter("203.0.113.2") == 101
        # An invented hop to the left of the real client changes nothing.
        assert await enter("198.51.100.9, 203.0.113.1") == 503
        for socket in site.server._websockets.copy():
            socket.abort(CloseReason.PEER_LOST)
        await until(lambda: len(site.server._websockets) == 0)
        assert await enter("203.0.113.1") == 101


async def test_sessions_over_requests_are_limited_by_address(tmp_path: Path) -> None:
    settings: dict[str, object] = {"max_connections_per_address": 3}
    async with served(tmp_path, **settings) as site:
        statuses = [
            (await site.http.post(f"{site.url}/rtm/000/{number}/xhr", params={"api-key": API_KEY})).status_code
            for number in range(5)
        ]
        assert statuses.count(503) >= 2


async def test_refused_starts_cost_the_guesser_and_nobody_else(tmp_path: Path) -> None:
    async with served(tmp_path, denial_rate=0.001, denial_burst=3) as site:
        application = await site.core.applications.get("default")
        await site.core.users.create(application, "jane", password="secret")
        wrong = {"StompX-Auth-Params": '{"password":"wrong"}'}
        bodies = []
        for _ in range(4):
            async with site.client() as client:
                frame = await client.connect("jane", **wrong)
                assert frame.command == "ERROR"
                bodies.append(frame.body)
        assert [b"RateLimitedError" in body for body in bodies] == [False, False, False, True]
        async with site.client("john"):
            assert len(site.core.hub) == 1


async def test_the_first_frame_decides(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        for command in ("SEND", "SUBSCRIBE", "DISCONNECT", "ACK"):
            async with site.client() as client:
                await client.send(command, {"id": "x", "destination": "/application/v1/user.relay"})
                assert (await client.frame()).command == "ERROR"
                assert await client.closing() == 1002
        async with site.client() as client:
            early = stomp.encode("SEND", {"destination": "/application/v1/user.update"}, b'{"displayName":"x"}')
            connect_frame = stomp.encode("CONNECT", {"StompX-User": "jane", "accept-version": "1.2"})
            await client.socket.send(early + connect_frame, text=True)
            assert (await client.frame()).command == "ERROR"
            await client.closing()
        assert len(site.core.hub) == 0
