"""A whole server in the test's own process and event loop, behind real sockets, with what is inside at hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from offhook.app import Server
from offhook.core import Core, open_core
from offhook.protocols import stomp
from offhook.settings import Settings

API_KEY = "key-default"
WAIT = 10.0

T = TypeVar("T")


class Site:
    """A running server.

    Attributes:
        core: its services.
        server: the server itself.
        url: of its plain listener, with the base path.
        admin_token: what the admin API wants.
        http: a client without cookies or proxies.
    """

    def __init__(self, core: Core, server: Server, url: str, admin_token: str, http: httpx.AsyncClient) -> None:
        self.core = core
        self.server = server
        self.url = url
        self.admin_token = admin_token
        self.http = http

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def websocket(self, path: str = "/rtm/websocket", query: str = f"api-key={API_KEY}") -> str:
        """The URL of a WebSocket."""
        return f"{self.url.replace('http', 'ws', 1)}{path}?{query}"

    @contextlib.asynccontextmanager
    async def client(
        self,
        name: str | None = None,
        *,
        origin: str | None = None,
        api_key: str = API_KEY,
        **headers: str,
    ) -> AsyncIterator[Client]:
        """A client on a WebSocket; with a name it has gone through the bootstrap of the SDKs."""
        async with connect(
            self.websocket(query=f"api-key={api_key}"),
            origin=None if origin is None else Origin(origin),
            subprotocols=[Subprotocol("v12.stomp")],
            compression=None,
            proxy=None,
            max_size=None,
            ping_interval=None,
            close_timeout=1,
        ) as socket:
            client = Client(socket)
            if name is not None:
                await client.bootstrap(name, **headers)
            yield client


class Client:
    """A STOMP client on a WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.user: dict[str, object] = {}
        self.session = ""
        self._decoder = stomp.Decoder()
        self._frames: list[stomp.Frame] = []

    async def send(self, command: str, headers: dict[str, str], body: object = None) -> None:
        """Sends a frame."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.socket.send(stomp.encode(command, headers, data), text=True)

    async def frame(self, command: str | None = None) -> stomp.Frame:
        """The next frame; with a command the next of that command."""
        async with asyncio.timeout(WAIT):
            while True:
                while not self._frames:
                    data = await self.socket.recv(decode=False)
                    self._frames += self._decoder.feed(data)
                frame = self._frames.pop(0)
                if command is None or frame.command == command:
                    return frame

    async def body(self) -> dict[str, object]:
        """The JSON of the next MESSAGE."""
        value = json.loads((await self.frame("MESSAGE")).body)
        assert isinstance(value, dict)
        return value

    async def connect(self, name: str, **headers: str) -> stomp.Frame:
        """Says CONNECT and returns the answer."""
        said = {"StompX-User": name, "accept-version": "1.2", "heart-beat": "60000,10000", **headers}
        await self.send("CONNECT", said)
        answer = await self.frame()
        self.session = answer.headers.get("session", "")
        return answer

    async def bootstrap(self, name: str, **headers: str) -> None:
        """Starts a session as the SDKs do."""
        answer = await self.connect(name, **headers)
        assert answer.command == "CONNECTED", answer
        self.user = await self.relay("/application/v1/user.relay")
        await self.send("SUBSCRIBE", {"id": "errors", "destination": "/user/queue/v1/errors"})
        topics = self.user["_topics"]
        assert isinstance(topics, dict)
        for key in ("self", "contacts", "users"):
            await self.send("SUBSCRIBE", {"id": f"t-{key}", "destination": topics[key], "receipt": f"r-{key}"})
            assert (await self.frame("RECEIPT")).headers["receipt-id"] == f"r-{key}"

    async def relay(self, destination: str, **parameters: str) -> dict[str, object]:
        """Asks a relay and returns its resource."""
        answer = await self.ask(destination, **parameters)
        resource = answer["resource"]
        assert isinstance(resource, dict)
        return resource

    async def ask(self, destination: str, **parameters: str) -> dict[str, object]:
        """Asks a relay and returns the body of what answers it, be it an error."""
        name = f"ask-{destination}"[:200]
        await self.send("SUBSCRIBE", {**parameters, "id": name, "destination": destination})
        while True:
            frame = await self.frame("MESSAGE")
            if name in (frame.headers["subscription"], frame.headers.get("subscription-id")):
                body = json.loads(frame.body)
                assert isinstance(body, dict)
                return body

    async def act(self, destination: str, body: object = None) -> dict[str, object]:
        """Does something and returns the body of the event or error that answers it."""
        receipt = f"act-{destination}"[:200]
        await self.send("SEND", {"destination": destination, "receipt": receipt}, {} if body is None else body)
        while True:
            frame = await self.frame("MESSAGE")
            if frame.headers.get("receipt-id") == receipt:
                answer = json.loads(frame.body)
                assert isinstance(answer, dict)
                return answer

    async def closing(self) -> int:
        """Waits until the server closes the socket, and returns the code."""
        async with asyncio.timeout(WAIT):
            try:
                while True:
                    self._frames += self._decoder.feed(await self.socket.recv(decode=False))
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd is not None else 1006


@contextlib.asynccontextmanager
async def served(data_dir: Path, **settings: object) -> AsyncIterator[Site]:
    """Runs a server with the application ``default``, whose key is API_KEY.

    Args:
        data_dir: its data folder.
        settings: further settings by name.
    """
    given: dict[str, object] = {"port": 0, "durability": "normal", "drain_seconds": 0.0, **settings}
    made = Settings(data_dir=data_dir, **given)  # type: ignore[arg-type]
    async with open_core(made) as core:
        await core.applications.create("default", domain="example.com", api_key=API_KEY)
        server = Server(core)
        endpoints = await server.start()
        token = (data_dir / "admin.token").read_text().strip()
        try:
            async with httpx.AsyncClient(timeout=WAIT, trust_env=False) as http:
                yield Site(core, server, endpoints[0].url + made.base_path, token, http)
        finally:
            at_once = asyncio.Event()
            at_once.set()
            await server.stop(at_once)


async def until(condition: Callable[[], bool], seconds: float = WAIT) -> None:
    """Waits until a condition is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
