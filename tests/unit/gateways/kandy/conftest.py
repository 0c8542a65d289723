"""The gateway on a real core with a real database; only the HTTP server is left out."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlencode

import pytest

from offhook.core import Core, open_core
from offhook.domain.accounts import Application
from offhook.domain.limits import Rate
from offhook.gateways.background import settle
from offhook.gateways.kandy.gateway import Gateway, Limits, Turn
from offhook.gateways.kandy.rest import PREFIXES, KandyRest, cors
from offhook.server.asgi import Health, build_app
from offhook.server.proxies import TrustedProxies
from offhook.server.timers import TimerWheel
from offhook.settings import Settings

if TYPE_CHECKING:
    from starlette.types import Message, Scope

ORIGIN = "https://app.example.test"
PASSWORD = "correct horse"
ALICE, BOB = "alice@example.com", "bob@example.com"
LIMITS = Limits(Rate(10_000, 10_000), Rate(10_000, 10_000), Rate(10_000, 10_000), 4096)

Headers = Mapping[str, str]
Body = Mapping[str, object] | bytes | Sequence[bytes] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as its client gets it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        """The body, which must be a JSON object."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    def part(self, name: str) -> dict[str, object]:
        """An object in the body."""
        value = self.json[name]
        assert isinstance(value, dict), value
        return value

    @property
    def params(self) -> dict[str, object]:
        """What a client is told of its subscription."""
        value = self.part("subscribeResponse")["subscriptionParams"]
        assert isinstance(value, dict)
        return value

    @property
    def subscription(self) -> str:
        """The path of a client's subscription."""
        return str(self.part("subscribeResponse")["subscription"])


def basic(username: str, password: str = PASSWORD) -> dict[str, str]:
    """The header of a user with a password."""
    return {"authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def subscribe(*services: str, **more: object) -> dict[str, object]:
    """The body that makes or renews a subscription."""
    return {"subscribeRequest": {"expires": 3600, "service": list(services or ("call", "Presence", "IM")), **more}}


def base(username: str) -> str:
    """The path below which a user's resources are."""
    return f"/rest/version/1/user/{username}"


@dataclass
class Kandy:
    """Clients of one server.

    Attributes:
        core: the services.
        gateway: the gateway.
        base_path: where the server has everything.
        address: where requests come from.
    """

    core: Core
    gateway: Gateway
    base_path: str = ""
    address: str = "192.0.2.7"
    origins: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        self._app = build_app(
            [],
            health=Health(),
            metrics=self.core.metrics,
            proxies=TrustedProxies(),
            max_body=self.gateway.limits.max_body * 2,
            base_path=self.base_path,
            mounts=[(prefix, KandyRest(self.gateway, cors(self.origins), self.base_path)) for prefix in PREFIXES],
        )

    def using(self, **changes: object) -> Kandy:
        """The clients of a server that differs in these parts of its gateway."""
        return replace(self, gateway=replace(self.gateway, **changes))  # type: ignore[arg-type]

    async def request(self, method: str, path: str, body: Body = None, headers: Headers | None = None) -> Reply:
        """Sends a request and returns the answer.

        Args:
            method: of HTTP.
            path: with query, as it goes over the wire.
            body: JSON, or bytes in one or more pieces.
            headers: beside Origin and User-Agent.
        """
        if isinstance(body, Mapping):
            body = json.dumps(body).encode()
        chunks = [body] if isinstance(body, bytes) else list(body or (b"",))
        sent: list[Message] = []
        scope = self._scope(method, path, {"content-type": "application/json", **(headers or {})})

        async def receive() -> Message:
            part = chunks.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(chunks)}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start, *parts = sent
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        assert len(found) == len(start["headers"]), "a header came twice"
        return Reply(start["status"], found, b"".join(part.get("body", b"") for part in parts))

    async def abandoned(self, method: str, path: str, body: bytes, headers: Headers) -> list[Message]:
        """Sends a part of a request and goes away. Returns what the server sends all the same."""
        pending: list[Message] = [
            {"type": "http.request", "body": body, "more_body": True},
            {"type": "http.disconnect"},
        ]
        sent: list[Message] = []

        async def receive() -> Message:
            return pending.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(self._scope(method, path, headers), receive, send)
        return sent

    def _scope(self, method: str, path: str, headers: Headers) -> Scope:
        raw, _, query = path.partition("?")
        every = {"host": "offhook.test", "origin": ORIGIN, "user-agent": "Mozilla/5.0 test", **headers}
        return {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": _decoded(raw),
            "raw_path": raw.encode("latin-1"),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in every.items()],
            "client": (self.address, 50_000),
            "server": ("127.0.0.1", 8686),
        }

    async def get(self, path: str, headers: Headers | None = None, **query: str | list[str]) -> Reply:
        """Sends a GET with these parameters."""
        text = urlencode(query, doseq=True)
        return await self.request("GET", f"{path}?{text}" if text else path, None, headers)

    async def post(self, path: str, body: Body = None, headers: Headers | None = None) -> Reply:
        """Sends a POST."""
        return await self.request("POST", path, body, headers)

    async def put(self, path: str, body: Body = None, headers: Headers | None = None) -> Reply:
        """Sends a PUT."""
        return await self.request("PUT", path, body, headers)

    async def delete(self, path: str, headers: Headers | None = None) -> Reply:
        """Sends a DELETE."""
        return await self.request("DELETE", path, None, headers)

    async def subscribe(self, username: str, *services: str, headers: Headers | None = None, **more: object) -> Reply:
        """Makes a subscription, which must succeed."""
        path = f"{base(username)}/subscription"
        reply = await self.post(path, subscribe(*services, **more), headers or basic(username))
        assert reply.status == 200, reply
        return reply

    async def log_in(self, username: str) -> str:
        """Signs in as clients of UC do. Returns the access token."""
        reply = await self.get("/v2.0/auth/mk_token", basic(username), refresh="y")
        assert reply.status == 200, reply
        return str(reply.part("success")["access_token"])


def _decoded(raw: str) -> str:
    return unquote(raw.encode("latin-1").decode("utf-8", "replace"))


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """A core with the application ``default`` and its users alice and bob."""
    async with open_core(Settings(data_dir=tmp_path, durability="normal", history_size=100)) as core:
        application, _ = await core.applications.create("default", domain="example.com", api_key="key-default")
        for name in (ALICE, BOB):
            await core.users.create(application, name, password=PASSWORD)
        yield core
        await settle()


@pytest.fixture
async def application(core: Core) -> Application:
    return await core.applications.get("default")


def gateway_of(core: Core, timers: TimerWheel) -> Gateway:
    """A gateway with generous rates."""
    return Gateway(
        applications=core.applications,
        users=core.users,
        sessions=core.sessions,
        subscriptions=core.subscriptions,
        messages=core.messages,
        credentials=core.credentials,
        logins=core.logins,
        hub=core.hub,
        reaper=core.reaper,
        signer=core.signer,
        clock=core.clock,
        timers=timers,
        metrics=core.metrics,
        limits=LIMITS,
        turn=Turn("turn-secret", 86_400.0),
        draining=lambda: False,
    )


@pytest.fixture
async def gateway(core: Core) -> AsyncIterator[Gateway]:
    timers = TimerWheel(tick=0.01)
    timers.start(asyncio.get_running_loop())
    yield gateway_of(core, timers)
    timers.stop()


@pytest.fixture
async def kandy(core: Core, gateway: Gateway) -> Kandy:
    """Clients of a server on the core."""
    return Kandy(core, gateway)
