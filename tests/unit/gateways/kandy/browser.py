"""A page with an unmodified client, as far as a notification socket can tell, and the network between the two.

A browser answers pings by itself, in order. Its page drops a notification whose id is among the last hundred, over all
of its sockets (Kandy protocol notes, 4.2).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from itertools import count

import pytest

from offhook.codes import CloseReason
from offhook.core import Core
from offhook.domain.accounts import Application
from offhook.domain.sessions import Client
from offhook.domain.subscriptions import CALL, IM, PRESENCE, Product
from offhook.gateways.background import settle
from offhook.gateways.kandy import feed as feed_module
from offhook.gateways.kandy import socket as socket_module
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.socket import NotificationSocket
from offhook.protocols.kandy import hmac_token
from offhook.services import reaper as reaper_module
from offhook.services.credentials import AccessProof, BearerProof, HmacProof, Identity
from offhook.services.subscriptions import Opened, Wanted, Watching

REMEMBERED = 100
"""Ids of notifications that a page remembers."""
CLIENT = Client("kandy", "test/1", "192.0.2.7")
SERVICES = (CALL, PRESENCE, IM)
WAIT = 20.0

_nonces = count()


class Page:
    """What a user sees.

    Attributes:
        texts: of the messages, in the order in which they came.
        shown: of each user whose presence was told, by the name that was told: status, activity and note.
        told: every presence that was told, as (name, activity).
        gone: how often it was told that its subscription is gone.
        repeated: notifications that it dropped as seen.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self.texts: list[str] = []
        self.shown: dict[str, tuple[str, str, str]] = {}
        self.told: list[tuple[str, str]] = []
        self.gone = 0
        self.repeated = 0
        self._seen: deque[str] = deque(maxlen=remembered)

    def take(self, text: bytes) -> None:
        """Takes a message from a socket."""
        whole = json.loads(text)
        if whole in ({"connAck": {}}, {"connCheck": {"interval": 30}}):
            return
        assert list(whole) == ["notificationMessage"], whole
        message = whole["notificationMessage"]
        key = message.get("id") or message["eventId"]
        assert isinstance(key, str) and key
        if key in self._seen:
            self.repeated += 1
            return
        self._seen.append(key)
        match message.get("eventType", message.get("event")):
            case "IM":
                self.texts.append(message["imnotificationParams"]["msgText"])
            case "im":
                self.texts.append(message["txt"])
            case "presenceWatcher":
                params = message["presenceWatcherNotificationParams"]
                self.shown[params["name"]] = (params["status"], params["activity"], params.get("note", ""))
                self.told.append((params["name"], params["activity"]))
            case "gone":
                self.gone += 1
            case other:
                raise AssertionError(f"no client knows {other}")


class Wire:
    """A socket whose peer is a page.

    What is sent lies on the wire until it arrives, and pongs until they do; of a broken wire neither does any more.

    Args:
        page: the peer.
        prompt: whether all arrives by itself, at once.
    """

    congested = False

    def __init__(self, page: Page, handler: NotificationSocket, *, prompt: bool = True) -> None:
        self.page = page
        self.handler = handler
        self.prompt = prompt
        self.pongs_held = False
        self.sent: list[bytes] = []
        self.closing: tuple[CloseReason, int | None] | None = None
        self.unproved = 0
        self.most_unproved = 0
        self.open = True
        self._way: deque[tuple[bool, bytes]] = deque()
        self._pongs: deque[bytes] = deque()
        self._since: deque[tuple[bytes, int]] = deque()

    # --- for the server

    def send(self, *parts: bytes) -> None:
        text = b"".join(parts)
        if self.closing is not None or not self.open:
            return
        self.sent.append(text)
        if b'"notificationMessage"' in text and b'"gone"' not in text:
            self.unproved += 1
            self.most_unproved = max(self.most_unproved, self.unproved)
        self._way.append((False, text))
        self._hurry()

    def probe(self, data: bytes) -> None:
        assert data
        if self.closing is None and self.open:
            before = sum(proved for _, proved in self._since)
            self._since.append((data, self.unproved - before))
            self._way.append((True, data))
            self._hurry()

    def close(self, reason: CloseReason, detail: str | None = None, code: int | None = None) -> None:
        if self.closing is None and self.open:
            self.closing = reason, code
            asyncio.get_running_loop().call_soon(self.cut, reason)

    def abort(self, reason: CloseReason) -> None:
        self.close(reason)

    def pause(self) -> None:
        raise AssertionError("clients say next to nothing")

    def resume(self) -> None:
        raise AssertionError("it was not paused")

    # --- for the network

    def _hurry(self) -> None:
        if self.prompt:
            asyncio.get_running_loop().call_soon(self.arrive)

    def arrive(self, most: int | None = None) -> None:
        """Lets what was sent arrive, or that much of it, and then the pongs, unless they are held."""
        while self._way and self.open and most != 0:
            most = None if most is None else most - 1
            ping, data = self._way.popleft()
            if ping:
                self._pongs.append(data)
            else:
                self.page.take(data)
        if not self.pongs_held:
            self.answer()

    def answer(self, most: int | None = None) -> None:
        """Lets the pongs arrive, or that many of them."""
        while self._pongs and self.open and most != 0:
            most = None if most is None else most - 1
            data = self._pongs.popleft()
            while self._since:
                number, proved = self._since.popleft()
                self.unproved -= proved
                if number == data:
                    break
            self.handler.alive(data)

    def cut(self, reason: CloseReason = CloseReason.PEER_LOST) -> None:
        """Breaks the connection."""
        if self.open:
            self.open = False
            self.handler.closed(reason, "test")

    @property
    def words(self) -> list[bytes]:
        """The signs of life among what was sent."""
        return [text for text in self.sent if b"notificationMessage" not in text]


class Device:
    """A subscription and its page, over as many sockets as it takes."""

    def __init__(self, gateway: Gateway, application: Application, name: str, opened: Opened) -> None:
        self.gateway = gateway
        self.application = application
        self.name = name
        self.opened = opened
        self.page = Page()
        self.wires: list[Wire] = []

    @property
    def id(self) -> int:
        """Its session's id."""
        return self.opened.session.id

    @property
    def wire(self) -> Wire:
        """The newest socket."""
        return self.wires[-1]

    @property
    def user_id(self) -> int:
        """Its user's id."""
        return self.opened.session.user_id

    def open(self, *, prompt: bool = True, proof: AccessProof | BearerProof | None = None) -> Wire:
        """Opens a socket."""
        handler = NotificationSocket(self.gateway, self.id, CLIENT, proof)
        wire = Wire(self.page, handler, prompt=prompt)
        self.wires.append(wire)
        handler.opened(wire)
        return wire

    async def connect(self, *, prompt: bool = True) -> Wire:
        """Opens a socket and waits until it has its session and all that was missed is told."""
        wire = self.open(prompt=prompt)
        await settle()
        return wire

    async def lose(self) -> None:
        """Breaks the newest socket and waits until that is noted."""
        self.wire.cut()
        await settle()

    async def watch(self, *names: str, action: Watching = Watching.WATCH) -> None:
        """Asks for the presence of users."""
        user = await self.gateway.users.by_name(self.application, self.name)
        identity = Identity(user, session_id=self.id)
        await self.gateway.subscriptions.watch(identity, "", names, action)

    async def renew(self, *services: str, lifetime: float = 3600.0) -> Opened:
        """Renews the subscription with these services."""
        user = await self.gateway.users.by_name(self.application, self.name)
        return await self.gateway.subscriptions.renew(user, self.id, Wanted(services or SERVICES, lifetime))


async def subscribed(
    gateway: Gateway,
    core: Core,
    name: str,
    *services: str,
    application: Application | None = None,
    product: Product = Product.LINK,
    force: bool = False,
) -> Device:
    """Makes a subscription, by a token of the application's back end."""
    application = application or await core.applications.get("default")
    issued_at = int(core.clock.now().timestamp())
    claims = hmac_token.HmacClaims(name, application.domain, issued_at, f"nonce-of-a-test-{next(_nonces):08}")
    token = hmac_token.encode(core.hmac_key(application).encode(), claims)
    wanted = Wanted(services or SERVICES, 3600.0, force=force, product=product)
    opened = await core.subscriptions.create(application, name, [HmacProof(token)], wanted, CLIENT)
    return Device(gateway, application, name, opened)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has sockets do the same as ever, only faster."""
    for name, seconds in {"GONE_BEFORE": 0.05, "GOODBYE_AFTER": 0.05, "ATTACH_AGAIN": 0.02}.items():
        monkeypatch.setattr(socket_module, name, seconds)
    for name, seconds in {"ANSWER_FIRST": 0.005, "AGAIN_AFTER": 0.02, "PROBE_AFTER": 0.02}.items():
        monkeypatch.setattr(feed_module, name, seconds)
    monkeypatch.setattr(reaper_module, "SAVE_AFTER", 0.005)


async def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition is true."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.001)
