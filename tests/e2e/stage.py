"""Where a test's clients, proxies and names come from, and the server's own view of their sessions."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec
from tests.e2e.driver import Driver
from tests.e2e.sdk import Client
from tests.e2e.tab import Tab
from tests.e2e.values import Runtime
from tests.support import ServerProcess

from offhook.testing import FaultProxy

_numbers = itertools.count(1)


class SessionRecord(msgspec.Struct, frozen=True):
    """A session as ``offhook session list`` shows it."""

    id: int
    user: str
    protocol: str
    state: str
    client: str
    address: str
    started_at: str
    resumes: int
    end_reason: str | None = None


class Ledger(msgspec.Struct, frozen=True):
    """What ``offhook session list`` answers, as far as the tests look at it."""

    sessions: list[SessionRecord]


class Application(msgspec.Struct, frozen=True):
    """An application as ``offhook app create`` shows it."""

    name: str
    api_key: str


@functools.cache
def first_api_key(server: ServerProcess) -> str:
    """The key of the application that the server made by itself; asked for only once."""
    return server.api_key


class Stage:
    """Makes what a test needs, and clears it away.

    Args:
        driver: runs the SDKs.
        server: what they connect to unless told otherwise.
    """

    def __init__(self, driver: Driver, server: ServerProcess) -> None:
        self._driver = driver
        self._clients: list[Client | Tab] = []
        self._proxies: list[FaultProxy] = []
        self.server = server

    def name(self, role: str) -> str:
        """A username that no other test has."""
        return f"{role}-{next(_numbers)}@example.test"

    async def client(
        self,
        runtime: Runtime,
        *,
        host: str | None = None,
        secure: bool = False,
        api_key: str | None = None,
        websocket: bool = True,
    ) -> Client:
        """A new SDK client, without a session, for the server's first application unless told otherwise."""
        client = await self._driver.open(
            runtime,
            host=host or (self.server.tls_host if secure else self.server.http_host),
            api_key=first_api_key(self.server) if api_key is None else api_key,
            secure=secure,
            websocket=websocket,
        )
        self._clients.append(client)
        return client

    async def tab(self, html: str, scripts: Sequence[Path]) -> Tab:
        """A page with this body, after scripts from these files."""
        tab = await self._driver.open_tab(html, scripts)
        self._clients.append(tab)
        return tab

    async def proxy(self, *, secure: bool = False) -> FaultProxy:
        """A proxy to the server's plain or secure listener, accepting connections."""
        proxy = FaultProxy(self.server.tls_host if secure else self.server.http_host)
        await proxy.accept()
        self._proxies.append(proxy)
        return proxy

    async def cli(self, *arguments: str, stdin: str | None = None) -> object:
        """Runs ``offhook`` with these arguments against the server and returns what it prints as JSON."""
        return await asyncio.to_thread(self.server.cli, *arguments, stdin=stdin)

    async def application(self, name: str, *options: str) -> Application:
        """A new application."""
        return msgspec.convert(await self.cli("app", "create", name, *options), Application)

    async def sessions(self, user: str) -> list[SessionRecord]:
        """All sessions of a user, past ones too, newest first: what ``offhook session list`` shows, but faster."""
        token = (self.server.data_dir / "admin.token").read_text().strip()
        async with httpx.AsyncClient(base_url=self.server.url, trust_env=False) as http:
            answer = await http.get(
                "/admin/v1/sessions", params={"user": user}, headers={"Authorization": f"Bearer {token}"}
            )
        return msgspec.json.decode(answer.raise_for_status().content, type=Ledger).sessions

    async def session(self, user: str) -> SessionRecord:
        """The only session the user ever had."""
        (record,) = await self.sessions(user)
        return record

    async def clear(self) -> None:
        """Kills all clients and closes all proxies."""
        await asyncio.gather(*(self._driver.forget(client) for client in self._clients))
        await asyncio.gather(*(proxy.close() for proxy in self._proxies))
