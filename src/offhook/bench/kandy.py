"""The load generator's Kandy clients: requests written beforehand, and sockets that hardly look at what they get.

They are UC clients, which show their access token in every query (Kandy protocol notes, 2.4). As browsers do, they
answer pings, so that the server knows what has arrived.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from offhook.bench import wire
from offhook.bench.client import TIMEOUT, LoadFailed, Target, crowd
from offhook.bench.seed import Subscriber

REST = 2.0
"""Seconds without a request after which the server may be about to close a connection."""
OPENING = 3 * TIMEOUT
"""Seconds after which opening many sockets has failed."""
SERVICES = ("call", "Presence", "IM")
_SUBSCRIBE = msgspec.json.encode(
    {
        "subscribeRequest": {
            "expires": 3600,
            "service": SERVICES,
            "localization": "English_US",
            "useTurn": True,
            "notificationType": "WebSocket",
        }
    }
)
_PING = wire.client_frame(b'{"message_type":"ping"}')
_BROWSER = "Origin: https://app.example.com\r\nUser-Agent: Mozilla/5.0\r\nAccept-Encoding: gzip, deflate, br\r\n"


def request(host: str, who: Subscriber, method: str, resource: str, body: bytes = b"") -> bytes:
    """A request for one of a user's resources (Kandy protocol notes, 1.3 and 1.5)."""
    head = (
        f"{method} /rest/version/1/user/{who.name}/{resource}?token={who.token} HTTP/1.1\r\nHost: {host}\r\n"
        f"Connection: keep-alive\r\nAccept: application/json\r\nX-Cpaas-Agent: uc-js-sdk/5.2.0\r\n{_BROWSER}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def send(host: str, who: Subscriber, to: str, text: str) -> bytes:
    """The request that sends a message (Kandy protocol notes, 6.2)."""
    return (
        f"GET /v2.0/rm/send?to={to}&txt={text}&token={who.token} HTTP/1.1\r\nHost: {host}\r\n"
        f"Connection: keep-alive\r\nAccept: application/json\r\nX-Cpaas-Agent: uc-js-sdk/5.2.0\r\n{_BROWSER}\r\n"
    ).encode()


def upgrade(host: str, channel: str, token: str, nonce: bytes) -> bytes:
    """The request that opens a notification socket (Kandy protocol notes, 4.1)."""
    return (
        f"GET {channel}?token={token} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(nonce).decode()}\r\n{_BROWSER}\r\n"
    ).encode()


class Requests(asyncio.Protocol):
    """A connection for requests, one after the other, made anew after a long rest. Make it with ``connect``."""

    __slots__ = ("_answer", "_answered_at", "_buffer", "_host", "_target", "_transport")

    def __init__(self, target: Target) -> None:
        self._target = target
        self._host = target.host
        self._answered_at = time.monotonic()
        self._buffer = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, target: Target) -> Requests:
        """Opens one. Raises OSError."""
        made = cls(target)
        await made._open()
        return made

    async def _open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._target.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        # One that was left after a rest ends when its successor is already there, and that one matters.
        present = self._transport is None or self._transport.is_closing()
        if present and self._answer is not None and not self._answer.done():
            self._answer.set_exception(LoadFailed(f"the connection was lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length: ") + 16
        if not end or len(body) < int(head[at:].partition(b"\r")[0]) or self._answer is None:
            return
        self._buffer = b""
        if head.startswith(b"HTTP/1.1 200") and b'"error"' not in body:
            self._answer.set_result(body)
        else:
            self._answer.set_exception(LoadFailed((head + b"\n" + body).decode(errors="replace")))

    async def ask(self, data: bytes) -> bytes:
        """Sends a request and returns the body of the answer. Raises LoadFailed."""
        if time.monotonic() - self._answered_at > REST:
            self.close()
            await self._open()
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        body = await asyncio.wait_for(self._answer, TIMEOUT)
        self._answered_at = time.monotonic()
        return body

    async def subscribe(self, who: Subscriber) -> str:
        """Makes a subscription. Returns its channel. Raises LoadFailed."""
        answer = await self.ask(request(self._host, who, "POST", "subscription", _SUBSCRIBE))
        return _field(answer, b'"notificationChannel":"')

    async def watch(self, who: Subscriber, name: str) -> None:
        """Asks to be told of a user's presence. Raises LoadFailed."""
        body = msgspec.json.encode({"presenceWatcherRequest": {"userList": [name], "action": "watch"}})
        await self.ask(request(self._host, who, "POST", "presenceWatcher", body))

    async def show(self, who: Subscriber, note: str) -> None:
        """Chooses a user's presence. Raises LoadFailed."""
        body = msgspec.json.encode({"presenceRequest": {"status": "open", "activity": "busy", "note": note}})
        await self.ask(request(self._host, who, "POST", "presence", body))

    async def send(self, who: Subscriber, to: str, text: str) -> None:
        """Sends a message. Raises LoadFailed."""
        await self.ask(send(self._host, who, to, text))

    def close(self) -> None:
        """Goes away."""
        if self._transport is not None:
            self._transport.close()


class Socket(asyncio.Protocol):
    """A notification socket.

    Args:
        target: where.
        channel: its path.
        token: shown with it.
        done: called once it is open, or refused.

    Attributes:
        channel: its path.
        events: how many notifications came.
        last: the latest of them.
        listener: called with each of them.
        on_lost: called when the connection is lost, unless by ``abort``.
        error: why it is over, if it is.
    """

    __slots__ = (
        "_buffer", "_done", "_request", "channel", "error", "events", "last", "listener", "on_lost", "transport",
    )  # fmt: skip

    def __init__(self, target: Target, channel: str, token: str, done: Callable[[Socket], None]) -> None:
        self._request = upgrade(target.host, channel, token, os.urandom(16))
        self._done: Callable[[Socket], None] | None = done
        self._buffer = b""
        self.channel = channel
        self.listener: Callable[[bytes], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self.events = 0
        self.last = b""
        self.error: str | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if self._done is not None:
            data = self._upgraded(data)
        frames, self._buffer = wire.split_frames(data)
        for first, payload in frames:
            if first == wire.TEXT:
                self.events += 1
                self.last = payload
                if self.listener is not None:
                    self.listener(payload)
            elif first == wire.PING and self.transport is not None:
                self.transport.write(wire.client_frame(payload, wire.PONG))

    def _upgraded(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        if head.startswith(b"HTTP/1.1 101") and self.transport is not None:
            self.transport.write(_PING)
        else:
            self.error = head.decode(errors="replace")
        self._finish()
        return rest

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = self.error or f"the connection was lost: {exc}"
        self._finish()
        if self.on_lost is not None:
            self.on_lost()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self)

    def abort(self) -> None:
        """Goes away without a word."""
        self.listener = self.on_lost = None
        if self.transport is not None:
            self.transport.abort()


async def open_sockets(
    target: Target, users: Sequence[Subscriber], *, watch: str | None = None, concurrency: int = 50
) -> list[Socket]:
    """Subscribes and opens the socket, each user on connections of its own; some at a time.

    Args:
        target: where.
        users: one for each subscription.
        watch: whose presence they are to watch, if anybody's.
        concurrency: how many are being opened at once.

    Raises:
        LoadFailed: one of them was refused, or they take too long.
    """
    sockets: list[Socket] = []
    queue = iter(users)
    loop = asyncio.get_running_loop()

    async def worker() -> None:
        for who in queue:
            requests = await Requests.connect(target)
            channel = await requests.subscribe(who)
            opened: asyncio.Future[Socket] = loop.create_future()
            made = Socket(target, channel, who.token, opened.set_result)
            await loop.create_connection(lambda made=made: made, "127.0.0.1", target.port)  # type: ignore[misc]
            await opened
            if made.error is not None:
                raise LoadFailed(made.error)
            if watch is not None:
                await requests.watch(who, watch)
            requests.close()
            sockets.append(made)

    await crowd(worker, concurrency, OPENING, lambda: f"opened only {len(sockets)} sockets")
    return sockets


def _field(body: bytes, name: bytes) -> str:
    start = body.index(name) + len(name)
    return body[start : body.index(b'"', start)].decode()
