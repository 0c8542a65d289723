"""Subscriptions that are renewed, run out, or are unknown when they should be renewed (Kandy notes, 3.5 and 3.7)."""

from __future__ import annotations

import asyncio

import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIFE = 60
"""Seconds; the SDKs renew after half of it, or 30 s, give or take a fifth."""


async def _everywhere(stage: KandyStage, builds: list[Product], renewed: int) -> None:
    async def play(product: Product) -> None:
        page, user = await stage.page(product, expires=LIFE), await stage.user("alice")
        await page.sign_in(user, PASSWORD)
        for number in range(1, renewed + 1):
            put = await page.tab.answered("PUT /rest/", number, timeout=45)
            assert put.answer is not None
            assert put.answer.status == 200, f"{product}: {put}"
        await page.tab.until(lambda: len(page.names(page.renewals)) == renewed, page.renewals)
        told = [event.fields for event in page.events(page.renewals)]
        assert told == [{"attemptNum": 1, "isFailure": False}] * renewed, product
        assert page.reasons() == []
        friend, other = await stage.someone(product, "bob")
        await friend.say(user, "still here?")
        await page.hears(other, "still here?")
        assert page.complaints() == []

    async with asyncio.TaskGroup() as group:
        for product in builds:
            group.create_task(play(product))


@pytest.mark.timeout(180)
async def test_renewals_keep_it_alive_beyond_its_first_life(stage: KandyStage, builds: list[Product]) -> None:
    await _everywhere(stage, builds, 3)


@pytest.mark.timeout(180)
async def test_renewal_of_an_unknown_subscription_is_gone(stage: KandyStage, builds: list[Product]) -> None:
    """Its socket is cut off, so only the PUT can tell; older builds know no such answer and go on trying."""

    async def play(product: Product) -> None:
        proxy = await stage.proxy(secure=True)
        patience: dict[str, object] = {"reconnectLimit": 0}
        page = await stage.page(product, socket=f"localhost:{proxy.host.rpartition(':')[2]}", expires=LIFE,
                                connectivity=patience)  # fmt: skip
        user = await stage.user("alice")
        await page.sign_in(user, PASSWORD)
        proxy.go_away()
        await stage.end_sessions(user)
        put = await page.tab.answered("PUT /rest/", timeout=45)
        assert put.answer is not None
        assert put.answer.status == 404, f"{product}: {put}"
        await page.wait(page.renewals, lambda event: event.fields["isFailure"] is True)
        if product.since((4, 29, 0), (3, 29, 0)):
            assert await page.ended() == "GONE"
        assert page.complaints() == [] or not product.since((4, 29, 0), (3, 29, 0))

    async with asyncio.TaskGroup() as group:
        for product in builds:
            group.create_task(play(product))
