"""What the tests of notification sockets share: a real core, and pages whose network can be broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.gateways.kandy.browser import Device, hurry, subscribed
from tests.unit.gateways.kandy.conftest import ALICE, BOB, gateway_of

from offhook.codes import CloseReason
from offhook.core import Core, open_core
from offhook.domain.presence import Activity, Presence, choosing
from offhook.gateways.background import settle
from offhook.gateways.kandy.gateway import Gateway
from offhook.server.timers import TimerWheel
from offhook.settings import Settings

PING = b'{"message_type":"ping"}'


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as ever, only faster."""
    hurry(monkeypatch)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """As everywhere, but for the time that passwords take; a history of a hundred events."""
    async with open_core(Settings(data_dir=tmp_path, durability="normal", history_size=100)) as core:
        application, _ = await core.applications.create("default", domain="example.com", api_key="key-default")
        for name in (ALICE, BOB):
            await core.users.create(application, name)
        await core.reaper.start()
        yield core
        await settle()
        await core.reaper.stop()


@pytest.fixture
async def gateway(core: Core) -> AsyncIterator[Gateway]:
    """As everywhere; what is open in the end is closed, since nobody answers its pings any more."""
    timers = TimerWheel(tick=0.01)
    timers.start(asyncio.get_running_loop())
    gateway = gateway_of(core, timers)
    yield gateway
    for handler in list(gateway.sockets):
        handler.closed(CloseReason.PEER_LOST, "the test is over")
    timers.stop()


async def send(core: Core, *texts: str, sender: str = BOB, to: str = ALICE) -> None:
    """Sends messages, one after the other."""
    application = await core.applications.get("default")
    user = await core.users.by_name(application, sender)
    for text in texts:
        await core.messages.send(user, to, text)


async def choose(core: Core, name: str, *activities: Activity, note: str = "") -> None:
    """Has a user choose one presence after the other."""
    application = await core.applications.get("default")
    user = await core.users.by_name(application, name)
    for activity in activities:
        await core.users.change(application, user.id, choosing(Presence(True, activity, note)))


async def connected(gateway: Gateway, core: Core, name: str = ALICE, *services: str) -> Device:
    """A subscription with a socket."""
    device = await subscribed(gateway, core, name, *services)
    await device.connect()
    return device


def service_known(core: Core, device: Device, service: str) -> bool:
    """Whether its session has learnt that it has a service."""
    live = core.hub.get(device.id)
    assert live is not None and live.subscription is not None
    return service in live.subscription.services


def watched(core: Core, device: Device) -> frozenset[str] | None:
    """About whom its session hears."""
    live = core.hub.get(device.id)
    assert live is not None
    return live.watched
