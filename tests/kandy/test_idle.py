"""An idle page (Kandy protocol notes, 4.3): the client pings, the server is silent."""

from __future__ import annotations

import asyncio

import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

IDLE = 40.0
"""Seconds: more than one of the client's ping intervals and of the server's."""


async def test_server_sends_no_text_of_its_own(stage: KandyStage, builds: list[Product]) -> None:
    async def play(product: Product) -> None:
        page, _ = await stage.someone(product, "idler")
        since = page.tab.mark
        await page.tab.quiet(IDLE, "request", "websocket", "event", "closed")
        assert page.tab.frames("received") == [], product
        assert set(page.tab.frames("sent")) == {'{"message_type":"ping"}'}, product
        assert len(page.tab.frames("sent", since)) >= 1, product

    async with asyncio.TaskGroup() as group:
        for product in builds:
            group.create_task(play(product))


async def test_server_answers_those_who_ask(stage: KandyStage, product: Product) -> None:
    """The ``pingPong`` dialect: each check is acknowledged."""
    page = await stage.page(product, connectivity={"method": {"type": "pingPong"}, "pingInterval": 2000})
    await page.sign_in(await stage.user("asker"), PASSWORD)
    await page.tab.until(lambda: page.tab.frames("received") == ['{"connAck":{}}'] * 3, "three acknowledgements")
    assert set(page.tab.frames("sent")) == {'{"connCheck":{"interval":2}}'}
    assert page.reasons() == []
    assert len(page.tab.websockets()) == 1
