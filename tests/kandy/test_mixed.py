"""A user is a user: Kandy and ChatKitty pages of one application see each other come and go."""

from __future__ import annotations

import pytest
from tests.e2e.values import NEWEST
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_both_see_each_other_come_and_go(stage: KandyStage, product: Product) -> None:
    page, alice = await stage.someone(product, "alice")
    visitor_name = await stage.user("visitor")
    await page.watch(visitor_name)
    await page.sees(visitor_name, "closed", "unknown")

    visitor = await stage.client(NEWEST)
    await visitor.sign_in(visitor_name, {"password": PASSWORD})
    await page.sees(visitor_name, "open", "active")
    assert (await visitor.contact(alice)).presence.online

    await page.sign_out()
    await visitor.until(lambda: visitor.presence(alice) == [(alice, False)], "the Kandy page's end")
    await page.sign_in(alice, PASSWORD)
    await visitor.until(lambda: visitor.presence(alice) == [(alice, False), (alice, True)], "its return")
    await page.watch(visitor_name)
    await page.sees(visitor_name, "open", "active")
    await visitor.end()
    await page.tab.until(lambda: page.told(visitor_name)[-1][0] == "closed", "the ChatKitty page's end")


async def test_one_user_on_both_is_online_until_the_last_leaves(stage: KandyStage, product: Product) -> None:
    page, alice = await stage.someone(product, "alice")
    watcher, _ = await stage.someone(product, "watcher")
    client = await stage.client(NEWEST)
    await client.sign_in(alice, {"password": PASSWORD})
    await watcher.watch(alice)
    await watcher.sees(alice, "open", "active")
    await page.sign_out()
    await watcher.tab.quiet(2, "frame")
    await client.end()
    await watcher.tab.until(lambda: [status for status, _ in watcher.told(alice)] == ["open", "closed"], "the end")
