"""Connections on a real core with a real database; only the socket is a recorder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from offhook.codes import CloseReason
from offhook.core import Core, open_core
from offhook.domain.accounts import Application
from offhook.domain.limits import Rate
from offhook.gateways.background import settle
from offhook.gateways.chatkitty.connection import Connection
from offhook.gateways.chatkitty.gateway import Gateway, Limits, Opening
from offhook.protocols import stomp
from offhook.server.timers import TimerWheel
from offhook.settings import Settings

BASE_URL = "http://chat.example.test"
WAIT = 5.0


class Recorder:
    """A socket that keeps what is sent."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[stomp.Frame] = asyncio.Queue()
        self.closed: CloseReason | None = None
        self.handler: Connection | None = None
        self.paused = False
        self.pauses = 0
        self.beats = 0
        self._decoder = stomp.Decoder()

    def send(self, *parts: bytes) -> None:
        data = b"".join(parts)
        if data == stomp.HEART_BEAT:
            self.beats += 1
        for frame in self._decoder.feed(data):
            self.frames.put_nowait(frame)

    congested = False

    def probe(self, data: bytes) -> None:
        assert self.handler is not None
        self.handler.alive(data)

    def close(self, reason: CloseReason, detail: str | None = None, code: int | None = None) -> None:
        if self.closed is None:
            self.closed = reason
            assert self.handler is not None
            asyncio.get_running_loop().call_soon(self.handler.closed, reason, detail or "")

    def abort(self, reason: CloseReason) -> None:
        self.close(reason)

    def pause(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        self.paused = False


class Client:
    """A client as its frames make it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.socket = Recorder()
        self.socket.handler = connection
        connection.opened(self.socket)
        self.user: dict[str, object] = {}
        self.session = ""

    def send(self, command: str, headers: dict[str, str] | None = None, body: object = None) -> None:
        """Sends a frame."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.received(stomp.encode(command, headers or {}, data))

    async def frame(self, command: str | None = None) -> stomp.Frame:
        """The next frame; it must be this command."""
        async with asyncio.timeout(WAIT):
            frame = await self.socket.frames.get()
        if command is not None:
            assert frame.command == command, frame
        return frame

    async def body(self) -> dict[str, object]:
        """The JSON of the next MESSAGE."""
        value = json.loads((await self.frame("MESSAGE")).body)
        assert isinstance(value, dict)
        return value

    def skip(self) -> None:
        """Looks away from what has been sent so far."""
        while not self.socket.frames.empty():
            self.socket.frames.get_nowait()

    def nothing_more(self) -> bool:
        """Whether everything that was sent has been looked at."""
        return self.socket.frames.empty()

    async def closing(self) -> CloseReason:
        """Waits until the server closes."""
        async with asyncio.timeout(WAIT):
            while self.socket.closed is None:
                await asyncio.sleep(0.001)
        return self.socket.closed

    async def connect(self, name: str, **headers: str) -> stomp.Frame:
        """Says CONNECT and returns the answer."""
        self.send(
            "CONNECT",
            {
                "StompX-User": name,
                "StompX-User-Agent": "test/1",
                "accept-version": "1.2",
                "heart-beat": "60000,10000",
                **headers,
            },
        )
        answer = await self.frame()
        self.session = answer.headers.get("session", "")
        return answer

    async def relay(self, destination: str, **parameters: str) -> dict[str, object]:
        """Asks a relay and returns its resource."""
        self.send("SUBSCRIBE", {**parameters, "id": f"relay-{destination}", "destination": destination})
        resource = (await self.body())["resource"]
        assert isinstance(resource, dict)
        return resource

    async def subscribe(self, *keys: str) -> None:
        """Subscribes to topics of the user."""
        topics = self.user["_topics"]
        assert isinstance(topics, dict)
        for key in keys:
            headers = {"id": f"t-{key}", "destination": topics[key], "receipt": f"r-{key}", "ack": "client-individual"}
            self.send("SUBSCRIBE", headers)
            assert (await self.frame("RECEIPT")).headers["receipt-id"] == f"r-{key}"

    async def bootstrap(self, name: str, **headers: str) -> Client:
        """Starts a session as the SDKs do."""
        answer = await self.connect(name, **headers)
        assert answer.command == "CONNECTED", answer
        self.user = await self.relay("/application/v1/user.relay")
        self.send("SUBSCRIBE", {"id": "errors", "destination": "/user/queue/v1/errors"})
        await self.subscribe("self", "channels", "contacts", "users")
        return self

    async def lose(self) -> None:
        """Breaks the connection and waits until that is noted."""
        self.connection.closed(CloseReason.PEER_LOST, "test")
        await settle()

    def action(self, name: str) -> str:
        """An action's destination."""
        actions = self.user["_actions"]
        assert isinstance(actions, dict)
        return str(actions[name])


Connect = Callable[..., Client]


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with open_core(Settings(data_dir=tmp_path, history_size=100)) as core:
        await core.applications.create("default", domain="example.com", api_key="key-default")
        yield core
        await settle()


@pytest.fixture
async def application(core: Core) -> Application:
    return await core.applications.get("default")


def gateway_of(core: Core, timers: TimerWheel) -> Gateway:
    """A gateway with small sizes and generous rates."""
    return Gateway(
        applications=core.applications,
        sessions=core.sessions,
        users=core.users,
        hub=core.hub,
        reaper=core.reaper,
        signer=core.signer,
        clock=core.clock,
        timers=timers,
        metrics=core.metrics,
        limits=Limits(10.0, 30, Rate(10_000, 10_000), Rate(10_000, 10_000), 4096),
        stomp_limits=stomp.Limits(max_frame=8192, max_body=8192),
    )


@pytest.fixture
async def gateway(core: Core) -> AsyncIterator[Gateway]:
    timers = TimerWheel(tick=0.01)
    timers.start(asyncio.get_running_loop())
    yield gateway_of(core, timers)
    timers.stop()


@pytest.fixture
def connect(gateway: Gateway) -> Connect:
    """Makes clients, of the default application unless told otherwise."""

    def make(
        api_key: str = "key-default",
        *,
        connect_timeout: float = gateway.limits.connect_timeout,
        max_waiting: int = gateway.limits.max_waiting,
        frames: Rate = gateway.limits.frames,
        requests: Rate = gateway.limits.requests,
    ) -> Client:
        limits = replace(
            gateway.limits, connect_timeout=connect_timeout, max_waiting=max_waiting, frames=frames, requests=requests
        )
        changed = replace(gateway, limits=limits)
        return Client(Connection(changed, Opening(api_key, "127.0.0.1", False, BASE_URL)))

    return make
