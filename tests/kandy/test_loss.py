"""The socket breaks and comes back (Kandy protocol notes, 4.4): nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from tests.kandy.page import KandyPage
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

from offhook.testing import FaultProxy

pytestmark = pytest.mark.asyncio(loop_scope="session")

PING: dict[str, object] = {"pingInterval": 3000}
"""Older builds find out about a broken socket at their next ping, which is 30 s away unless told otherwise."""


@dataclass(frozen=True, slots=True)
class _Journey:
    """A page whose network goes away, somebody who writes to it, and somebody who watches its user."""

    page: KandyPage
    user: str
    proxy: FaultProxy
    friend: KandyPage
    other: str
    watcher: KandyPage


def _address(proxy: FaultProxy) -> str:
    return f"localhost:{proxy.host.rpartition(':')[2]}"


async def _traveller(stage: KandyStage, product: Product, **connectivity: object) -> tuple[KandyPage, str, FaultProxy]:
    """A page signed in whose socket goes through a proxy of its own."""
    proxy = await stage.proxy(secure=True)
    page = await stage.page(product, socket=_address(proxy), connectivity={**PING, **connectivity})
    user = await stage.user("traveller")
    await page.sign_in(user, PASSWORD)
    return page, user, proxy


async def test_short_loss(stage: KandyStage, product: Product) -> None:
    page, user, proxy = await _traveller(stage, product)
    friend, other = await stage.someone(product, "friend")
    await friend.say(user, "before")
    await page.hears(other, "before")
    since = page.tab.mark

    proxy.go_away()
    await page.tab.until(lambda: "closed" in page.tab.sockets(since), "the loss")
    for text in ("one", "two", "three"):
        await friend.say(user, text)
    await friend.spoke(user, "before", "one", "two", "three")
    await proxy.accept()
    await page.tab.until(lambda: "open" in page.tab.sockets(since), "the reconnect")
    await page.hears(other, "before", "one", "two", "three")
    await friend.say(user, "after")
    await page.hears(other, "before", "one", "two", "three", "after")
    assert page.reasons() == []
    assert page.posted(since) == []
    (channel,) = {socket.url.partition("?")[0] for socket in page.tab.websockets()}
    assert "/websocket/" in channel
    (session,) = [session for session in await stage.sessions(user) if session.state == "active"]
    assert session.resumes == 1


@pytest.mark.timeout(180)
async def test_long_loss(stage: KandyStage, builds: list[Product]) -> None:
    """Thirty seconds without a network, longer than the delay between attempts, shorter than the SDK's patience."""

    async def prepare(product: Product) -> _Journey:
        page, user, proxy = await _traveller(stage, product, reconnectLimit=20)
        friend, other = await stage.someone(product, "friend")
        watcher, _ = await stage.someone(product, "watcher")
        await watcher.watch(user)
        await watcher.sees(user, "open", "active")
        return _Journey(page, user, proxy, friend, other, watcher)

    async def play(journey: _Journey) -> None:
        page, user, friend = journey.page, journey.user, journey.friend
        journey.proxy.go_away()
        texts = [f"message {number}" for number in range(10)]
        for number, text in enumerate(texts):
            await friend.say(user, text)
            await friend.spoke(user, *texts[: number + 1])
        since = page.tab.mark
        await page.tab.quiet(30, "frame")
        await journey.proxy.accept()
        await page.hears(journey.other, *texts)
        assert page.reasons() == [], page
        assert page.posted(since) == [], page
        assert journey.watcher.told(user) == [("open", "active")], page

    journeys = [await prepare(product) for product in builds]
    async with asyncio.TaskGroup() as group:
        for journey in journeys:
            group.create_task(play(journey))


async def test_stalled_network(stage: KandyStage, product: Product) -> None:
    """Nothing is reset, only nothing arrives; then all of it does."""
    page, user, proxy = await _traveller(stage, product)
    friend, other = await stage.someone(product, "friend")
    proxy.stall()
    for text in ("one", "two"):
        await friend.say(user, text)
    await friend.spoke(user, "one", "two")
    proxy.flow()
    await page.hears(other, "one", "two")


async def test_many_cuts(stage: KandyStage, product: Product) -> None:
    """Messages are under way while the connection is cut again and again."""
    if not product.watches_close:
        return
    page, user, proxy = await _traveller(stage, product)
    friend, other = await stage.someone(product, "friend")
    texts = [f"message {number}" for number in range(12)]
    for number, text in enumerate(texts):
        await friend.say(user, text)
        if number % 3 == 2:
            since = page.tab.mark
            proxy.cut()
            await page.tab.until(lambda mark=since: "open" in page.tab.sockets(mark), "the reconnect")  # type: ignore[misc]
    await page.hears(other, *texts)
    assert page.reasons() == []
