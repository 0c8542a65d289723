"""Thousands of Kandy pages, cheap: one subscription and one socket each, and the SDKs' rule of when to try again."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

import jwt
import msgspec
from tests.kandy_client import Rule

from offhook.bench import wire

SECRET = "a secret of at least thirty-two bytes"
CLOSE = 0x88
TIMEOUT = 60.0
_SUBSCRIBE = msgspec.json.encode(
    {"subscribeRequest": {"expires": 3600, "service": ["call", "Presence", "IM"], "notificationType": "WebSocket"}}
)
_PING = wire.client_frame(b'{"message_type":"ping"}')


class Page:
    """A Link page that signs in with a JWT.

    Args:
        port: of the server's plain listener on 127.0.0.1.
        name: the username.
        rule: when it tries to open its socket again.

    Attributes:
        channel: the path of its socket.
        subscription: what its subscription is called below its user.
        tried: when it sent an upgrade request, or could not even connect.
        answers: what the server answered to those, by HTTP status; 0 where it did not.
        opens: sockets that were open so far.
        notifications: how many came, by type.
        up: whether the socket is open.
        reason: why it is over, as the SDKs call it; None while it is not.
        patience: cleared, it does not try again until set.
    """

    def __init__(self, port: int, name: str, rule: Rule) -> None:
        self._port = port
        self._rule = rule
        self._token = jwt.encode({"sub": name, "exp": int(time.time()) + 36000}, SECRET, "HS256")
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.name = name
        self.channel = ""
        self.subscription = ""
        self.tried: list[float] = []
        self.answers: Counter[int] = Counter()
        self.opens = 0
        self.notifications: Counter[str] = Counter()
        self.up = False
        self.reason: str | None = None
        self.patience = asyncio.Event()
        self.patience.set()

    async def ask(self, method: str, resource: str, body: bytes) -> tuple[int, bytes]:
        """Sends a request of the user, on a connection of its own. Returns status and body. Raises OSError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            head = (
                f"{method} /rest/version/1/user/{self.name}/{resource} HTTP/1.1\r\nHost: localhost\r\n"
                f"Connection: close\r\nAuthorization: Bearer {self._token}\r\nContent-Type: application/json\r\n"
                f"X-Cpaas-Agent: link-js-sdk/5.2.0\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = await asyncio.wait_for(reader.read(), TIMEOUT)
        finally:
            writer.transport.abort()
        head_end = answer.find(b"\r\n\r\n")
        if head_end < 0:
            raise ConnectionResetError
        return int(answer[9:12]), answer[head_end + 4 :]

    async def subscribe(self) -> None:
        """Makes the subscription. The server must live."""
        status, body = await self.ask("POST", "subscription", _SUBSCRIBE)
        assert status == 200, body
        answer = msgspec.json.decode(body)
        self.channel = answer["subscribeResponse"]["subscriptionParams"]["notificationChannel"]
        self.subscription = "subscription/" + answer["subscribeResponse"]["subscription"].rpartition("/")[2]

    def start(self) -> None:
        """Opens the socket, and comes back by the rule."""
        self._task = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """Goes away without a word."""
        if self._task is not None:
            self._task.cancel()
            (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), repr(outcome)

    def cut(self) -> None:
        """Breaks the connection, as a network does."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while self.reason is None:
            await self.patience.wait()
            began = loop.time()
            self.tried.append(began)
            reader = await self._open()
            if reader is not None:
                failures = 0
                self.opens += 1
                await self._hear(reader)
                continue
            failures += 1
            if failures >= self._rule.limit:
                self.reason = "LOST_CONNECTION"
                return
            await asyncio.sleep(max(0.0, began + self._rule.delay - loop.time()))

    async def _open(self) -> asyncio.StreamReader | None:
        """One attempt. Returns the open socket, or None."""
        status = 0
        try:
            async with asyncio.timeout(max(2.0, self._rule.delay)):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self._writer = writer
                key = base64.b64encode(os.urandom(16)).decode()
                writer.write(
                    f"GET {self.channel}?access_token={self._token} HTTP/1.1\r\nHost: localhost\r\n"
                    f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    f"Sec-WebSocket-Key: {key}\r\nOrigin: https://page.example.test\r\n\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.cut()
        self.answers[status] += 1
        if status != 101:
            self.cut()
            return None
        writer.write(_PING)
        self.up = True
        return reader

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        buffer = b""
        writer = cast(asyncio.StreamWriter, self._writer)
        try:
            while data := await reader.read(65536):
                frames, buffer = wire.split_frames(buffer + data)
                for first, payload in frames:
                    if first == wire.PING:
                        writer.write(wire.client_frame(payload, wire.PONG))
                    elif first == CLOSE:
                        if payload[:2] == (1000).to_bytes(2, "big"):
                            self.reason = self.reason or "LOST_CONNECTION"
                        return
                    elif first == wire.TEXT and self._take(payload):
                        return
        except OSError:
            return
        finally:
            self.up = False
            self.cut()

    def _take(self, payload: bytes) -> bool:
        """Takes a notification. Returns whether it is the end."""
        kind = msgspec.json.decode(payload)["notificationMessage"]["eventType"]
        self.notifications[kind] += 1
        if kind == "gone":
            self.reason = "GONE"
        return bool(kind == "gone")


async def open_pages(port: int, count: int, rule: Rule, prefix: str = "page") -> list[Page]:
    """Subscribes that many pages and opens their sockets, some at a time."""
    pages = [Page(port, f"{prefix}-{number}@example.com", rule) for number in range(count)]
    queue = iter(pages)

    async def worker() -> None:
        for page in queue:
            await page.subscribe()
            page.start()

    await asyncio.gather(*(worker() for _ in range(50)))
    return pages


def most_a_second(pages: Iterable[Page], since: float) -> int:
    """The most upgrade requests that were sent within one second."""
    times = sorted(at for page in pages for at in page.tried if at >= since)
    most, start = 0, 0
    for end, at in enumerate(times):
        while at - times[start] >= 1.0:
            start += 1
        most = max(most, end - start + 1)
    return most


def tried_since(pages: Sequence[Page], since: float) -> Counter[int]:
    """How many pages sent how many upgrade requests since then."""
    return Counter(sum(at >= since for at in page.tried) for page in pages)
