"""What the tests of the Python client of Kandy share: users, networks, and clients that remember what they told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Literal, TypeVar

from argon2 import PasswordHasher
from tests.served import Site, until

from offhook import kandy
from offhook.domain.accounts import SessionPolicy
from offhook.domain.sessions import Session
from offhook.domain.values import PageRequest
from offhook.ports import SessionFilter
from offhook.services.applications import ApplicationChanges
from offhook.testing import FaultProxy

PASSWORD = "correct horse: bättery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""How servers hash here: a dear hash is most of what a sign-in takes, and no matter of the client's."""
ALICE, BOB = "alice@example.com", "bob@example.com"
QUICK = kandy.Reconnect(initial=0.05, maximum=0.2)
SERVICES = ["call", "Presence", "IM"]

Product = Literal["link", "uc"]
PRODUCTS: tuple[Product, ...] = ("link", "uc")
E = TypeVar("E", bound=kandy.Event)

_open: list[str] = []
"""Servers of the clients that are there, one a client."""


class Phone:
    """A client, and what it has told.

    Attributes:
        client: the client.
        told: its events, in order.
    """

    def __init__(self, client: kandy.Client) -> None:
        self.client = client
        self.told: list[kandy.Event] = []
        for name in kandy.EVENTS:
            client.on(name, self.told.append)

    @property
    def names(self) -> list[str]:
        """The names of the events, but for those that tell of notifications as such."""
        return [event.name for event in self.told if event.name != "notification:received"]

    def of(self, kind: type[E]) -> list[E]:
        """The events of a class."""
        return [event for event in self.told if isinstance(event, kind)]

    @property
    def heard(self) -> list[str]:
        """The texts that came, in order."""
        return [e.message.text for e in self.of(kandy.MessagesChange) if e.message is not None and e.message.incoming]

    @property
    def reasons(self) -> list[str]:
        """Why its subscriptions ended."""
        changes: list[kandy.SubscriptionChange | kandy.AuthChange] = []
        changes += self.of(kandy.SubscriptionChange)
        changes += self.of(kandy.AuthChange)
        return [change.reason for change in changes if change.reason is not None]

    @property
    def open(self) -> bool:
        """Whether its socket is open."""
        changes = self.of(kandy.WsChange)
        return bool(changes) and changes[-1].connected

    def shown(self, user: str) -> list[str]:
        """The activities told of a user."""
        return [event.activity for event in self.of(kandy.PresenceChange) if event.user == user]

    async def sign_in(self, user: str = ALICE, password: str = PASSWORD, services: list[str] | None = None) -> None:
        """Connects in the way of its product."""
        if self.client.config.product == "uc":
            await self.client.connect(username=user, password=password)
        else:
            self.client.set_credentials(username=user, password=password)
            await self.client.services.subscribe(services or SERVICES)

    async def sign_out(self) -> None:
        """Disconnects in the way of its product."""
        if self.client.config.product == "uc":
            await self.client.disconnect()
        else:
            await self.client.services.unsubscribe(SERVICES)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Waits until something is true."""
        try:
            await until(condition)
        except TimeoutError:
            raise AssertionError(f"it did not come true; told: {self.told}") from None


def kandy_tasks() -> list[asyncio.Task[object]]:
    """What clients do in the background now, of any client."""
    return [task for task in asyncio.all_tasks() if "Kandy" in task.get_name() and not task.done()]


def configuration(product: Product, host: str, **subscription: object) -> dict[str, object]:
    """A configuration in the spelling of the product's quickstart.

    Args:
        product: whose.
        host: ``address:port``.
        subscription: further keys of the section that has ``expires``.
    """
    name, _, port = host.rpartition(":")
    socket = {"protocol": "ws", "server": name, "port": port}
    if product == "link":
        return {
            "authentication": {"server": {"protocol": "http", "base": name, "port": port}},
            "subscription": {"websocket": socket, **subscription},
        }
    return {
        "authentication": {
            "subscription": {"protocol": "http", "server": name, "port": port, **subscription},
            "websocket": socket,
        }
    }


def host_of(site: Site) -> str:
    """``address:port`` of a server."""
    return "{}:{}".format(*site.address)


@contextlib.asynccontextmanager
async def phone(
    host: str, product: Product = "link", *, reconnect: kandy.Reconnect | None = QUICK, **subscription: object
) -> AsyncIterator[Phone]:
    """A client; that it leaves nothing behind is seen to in the end."""
    _open.append(host)
    # Authorities take long to read, and are not asked.
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with kandy.Transport(verify=bare, trust_env=False, timeout=5.0) as transport:
        client = kandy.create(configuration(product, host, **subscription), transport=transport, reconnect=reconnect)
        try:
            yield Phone(client)
        finally:
            await client.destroy()
    _open.pop()
    # The last one leaves none of the tasks behind that any of them had.
    assert _open or kandy_tasks() == []


def network(site: Site) -> FaultProxy:
    """A network in front of a server."""
    return FaultProxy(host_of(site))


async def add_users(site: Site, *names: str) -> None:
    """Users with PASSWORD."""
    application = await site.core.applications.get("default")
    for name in names or (ALICE, BOB):
        await site.core.users.create(application, name, password=PASSWORD)


async def allow(site: Site, **policy: object) -> None:
    """Changes the application's policy of sessions."""
    changes = ApplicationChanges(sessions=replace(SessionPolicy(), **policy))  # type: ignore[arg-type]
    await site.core.applications.change("default", changes)


async def sessions(site: Site, user: str = ALICE) -> list[Session]:
    """The live sessions of a user, by the server's own account."""
    page = await site.core.sessions.list(SessionFilter(user_name=user, live=True), PageRequest())
    return list(page.items)


async def signed_off(site: Site, user: str = ALICE) -> None:
    """Waits until a user has no session any more."""
    async with asyncio.timeout(10):
        while await sessions(site, user):
            await asyncio.sleep(0.01)
