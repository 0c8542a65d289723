"""What one connection may cost the others: sizes, rates, slow readers and the silent."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest
from tests.served import WAIT, Client, Site, served, until

from offhook.domain.accounts import UserChanges
from offhook.domain.sessions import StoryKind
from offhook.protocols import stomp

USER = "/application/v1/user.relay"


def masked(payload: bytes, opcode: int = 1, final: bool = True) -> bytes:
    """A WebSocket frame as clients send it."""
    mask = os.urandom(4)
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0xFE]) + size.to_bytes(2, "big")
    else:
        head += bytes([0xFF]) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class SlowReader:
    """A client on a bare socket with small buffers, which reads only when told to."""

    def __init__(self, site: Site) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.setblocking(False)
        self._site = site

    async def start(self, name: str) -> None:
        """Upgrades, starts a session and asks for events."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._site.address)
        head = (
            "GET /rtm/websocket?api-key=key-default HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await loop.sock_sendall(self._socket, head.encode())
        assert b" 101 " in await asyncio.wait_for(loop.sock_recv(self._socket, 4096), WAIT)
        await self.send("CONNECT", {"StompX-User": name, "accept-version": "1.2"})
        assert b"CONNECTED" in await asyncio.wait_for(loop.sock_recv(self._socket, 4096), WAIT)
        user = await self._site.core.users.by_name(await self._site.core.applications.get("default"), name)
        for key in ("self", "contacts", "users"):
            destination = f"/topic/v1.users.{user.id}.{key}"
            await self.send("SUBSCRIBE", {"id": key, "destination": destination, "receipt": key})
        await asyncio.wait_for(loop.sock_recv(self._socket, 4096), WAIT)

    async def send(self, command: str, headers: dict[str, str]) -> None:
        data = masked(stomp.encode(command, headers))
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def close(self) -> None:
        self._socket.close()


async def last_reason(site: Site, session_id: int) -> str:
    """Why the session's connection broke, once it did."""
    async with asyncio.timeout(WAIT):
        while (entry := (await site.core.sessions.show(session_id)).story[-1]).kind is StoryKind.STARTED:
            await asyncio.sleep(0.005)
    return entry.reason


@pytest.mark.parametrize("size", [9000, 200_000])
async def test_messages_are_bounded_whole_and_in_parts(tmp_path: Path, size: int) -> None:
    async with served(tmp_path, max_frame=8192) as site, site.client("witness") as witness:
        async with site.client("jane") as client:
            await client.socket.send("x" * size)
            assert await client.closing() == 1009
        async with site.client("jane") as client:
            await client.socket.send(["x" * 1000] * (size // 1000))
            assert await client.closing() == 1009
        async with site.client("jane") as client:
            # Many small messages that together are one endless STOMP frame.
            await client.socket.send("SEND\ndestination:/x\n\n")
            for _ in range(size // 1000):
                await client.socket.send("x" * 1000)
            assert await client.closing() == 1009
        assert (await witness.relay(USER))["name"] == "witness"


async def test_request_bodies_are_bounded_one_by_one(tmp_path: Path) -> None:
    async with served(tmp_path, max_body=1024) as site, site.client("jane") as client:
        for body in (b"x" * 1025, b"x" * 50_000):
            answer = await client.act("/application/v1/user.update", body)
            assert answer["error"] == "ClientError" and "large" in str(answer["message"])
        assert (await client.relay(USER))["displayName"] == "jane"


async def test_frames_are_limited_in_rate_for_each_connection(tmp_path: Path) -> None:
    limits = {"frame_rate": 1.0, "frame_burst": 50}
    async with served(tmp_path, **limits) as site, site.client("witness") as witness, site.client("jane") as client:
        await client.socket.send(stomp.encode("ACK", {"id": "a-1"}) * 100, text=True)
        assert json.loads((await client.frame("ERROR")).body)["error"] == "RateLimitedError"
        assert await client.closing() == 4005
        assert (await witness.relay(USER))["name"] == "witness"


async def test_requests_are_limited_in_rate_and_refused_one_by_one(tmp_path: Path) -> None:
    async with served(tmp_path, request_rate=0.5, request_burst=10) as site, site.client("jane") as client:
        answers = [await client.ask(USER) for _ in range(15)]
        refused = [answer for answer in answers if answer.get("error") == "RateLimitedError"]
        assert 4 <= len(refused) <= 6
        assert all(str(answer["coolOffDuration"]).startswith("PT") for answer in refused)
        async with site.client("john") as other:
            assert (await other.relay(USER))["name"] == "john"


async def test_subscriptions_are_limited(tmp_path: Path) -> None:
    async with served(tmp_path, max_subscriptions=20) as site, site.client("jane") as client:
        topics = client.user["_topics"]
        assert isinstance(topics, dict)
        for number in range(30):
            await client.send("SUBSCRIBE", {"id": f"more-{number}", "destination": topics["self"]})
        assert json.loads((await client.frame("MESSAGE")).body)["message"] == "Too many subscriptions"
        (connection,) = site.server._chatkitty.connections()
        assert connection._subscriptions.count == 20


async def names_heard(client: Client, last: str) -> list[str]:
    """The display names that a client hears until the last one."""
    names: list[str] = []
    while not names or names[-1] != last:
        body = await client.body()
        if body["type"] == "contact.user.updated":
            resource = body["resource"]
            assert isinstance(resource, dict)
            names.append(resource["displayName"])
    return names


async def test_a_slow_reader_is_cut_off_and_costs_the_others_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, max_write_buffer=65536, write_timeout=30.0) as site:
        application = await site.core.applications.get("default")
        john = await site.core.users.create(application, "john", properties={"x": "y" * 15_000})
        slow = SlowReader(site)
        await slow.start("slow")
        async with site.client("witness") as witness:
            sent = [f"name-{number}" for number in range(600)]
            heard = asyncio.create_task(names_heard(witness, sent[-1]))
            for name in sent:
                await site.core.users.change(application, john.id, UserChanges(display_name=name))
            assert await asyncio.wait_for(heard, WAIT) == sent
            assert await last_reason(site, 1) == "slow_consumer"
            assert len(site.server._websockets) == 1
            assert (await witness.relay(USER))["name"] == "witness"
        slow.close()


async def test_a_reader_that_stands_still_is_cut_off_in_time(tmp_path: Path) -> None:
    async with served(tmp_path, max_write_buffer=100_000_000, write_timeout=0.5) as site:
        application = await site.core.applications.get("default")
        john = await site.core.users.create(application, "john", properties={"x": "y" * 15_000})
        slow = SlowReader(site)
        await slow.start("slow")
        for number in range(400):
            await site.core.users.change(application, john.id, UserChanges(display_name=f"{number}"))
        assert await last_reason(site, 1) == "slow_consumer"
        slow.close()


async def test_a_peer_that_answers_no_ping_is_dropped_and_a_quiet_one_is_not(tmp_path: Path) -> None:
    async with served(tmp_path, ping_interval=0.3, ping_timeout=0.3) as site:
        dead = SlowReader(site)
        await dead.start("dead")
        async with site.client("quiet") as quiet:
            assert await last_reason(site, 1) == "ping_timeout"
            assert (await quiet.relay(USER))["name"] == "quiet"
            assert len(site.server._websockets) == 1
        dead.close()


async def test_frames_that_wait_do_not_pile_up(tmp_path: Path) -> None:
    limits = {"request_rate": 10_000.0, "request_burst": 10_000, "frame_burst": 10_000}
    async with served(tmp_path, **limits) as site, site.client("jane") as client:
        count = 3000
        ask = {"destination": "/application/v1/user/contacts.count.relay"}
        for number in range(count):
            await client.send("SUBSCRIBE", {**ask, "id": f"{number}"})
        (connection,) = site.server._chatkitty.connections()
        order = [(await client.frame("MESSAGE")).headers["subscription"] for _ in range(count)]
        assert order == [f"{number}" for number in range(count)]
        await until(lambda: not connection._waiting)
