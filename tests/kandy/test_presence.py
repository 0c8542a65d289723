"""Presence between pages (Kandy protocol notes, section 5)."""

from __future__ import annotations

import asyncio

import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

OPEN, CLOSED = ("open", "active"), ("closed", "unknown")


async def test_watch_before_the_other_signs_in(stage: KandyStage, product: Product) -> None:
    page, _ = await stage.someone(product, "alice")
    bob = await stage.user("bob")
    await page.watch(bob)
    await page.sees(bob, *CLOSED)
    other = await stage.page(product)
    await other.sign_in(bob, PASSWORD)
    await page.sees(bob, *OPEN)
    await other.sign_out()
    await page.sees(bob, "closed", "unknown")
    assert [status for status, _ in page.told(bob)] == ["closed", "open", "closed"]
    assert page.names("presence:error") == []
    assert page.complaints() == []


async def test_watch_after_the_other_signed_in(stage: KandyStage, product: Product) -> None:
    other, bob = await stage.someone(product, "bob")
    await other.call("presence.update", "open", "busy", "until ünder 3")
    await other.wait("presence:selfChange")
    page, _ = await stage.someone(product, "alice")
    await page.watch(bob)
    await page.sees(bob, "open", "busy", "until ünder 3")
    await page.wait("presence:change")


async def test_every_update_is_seen(stage: KandyStage, product: Product) -> None:
    other, bob = await stage.someone(product, "bob")
    page, _ = await stage.someone(product, "alice")
    await page.watch(bob)
    await page.sees(bob, *OPEN)
    activities = ["idle", "away", "lunch", "other", "busy", "vacation", "on-the-phone", "unknown", "active"]
    for activity in activities:
        since = other.tab.mark
        await other.call("presence.update", "open", activity)
        await other.wait("presence:selfChange", since=since)
        await page.sees(bob, "open", activity)
    since = other.tab.mark
    await other.call("presence.update", "closed", "away")
    await other.wait("presence:selfChange", since=since)
    await page.sees(bob, "closed", "away")
    assert page.told(bob) == [OPEN, *(("open", activity) for activity in activities), ("closed", "away")]
    own = await other.call("presence.getSelf")
    assert isinstance(own, dict)
    assert (own["status"], own["activity"]) == ("closed", "away")


async def test_names_keep_the_spelling_of_the_watcher(stage: KandyStage, product: Product) -> None:
    other, bob = await stage.someone(product, "bob")
    page, _ = await stage.someone(product, "alice")
    address = f"sip:{bob}"
    await page.watch(address)
    await page.sees(address, *OPEN)
    await other.call("presence.update", "open", "lunch")
    await page.sees(address, "open", "lunch")
    assert page.told(bob) == []


async def test_unknown_users_are_closed(stage: KandyStage, product: Product) -> None:
    page, _ = await stage.someone(product, "alice")
    await page.watch("nobody@example.com", "nobody@nowhere.example", "garbage")
    for name in ("nobody@example.com", "nobody@nowhere.example", "garbage"):
        await page.sees(name, *CLOSED)
    assert page.names("presence:error") == []


async def test_fetch_tells_once(stage: KandyStage, product: Product) -> None:
    other, bob = await stage.someone(product, "bob")
    page, _ = await stage.someone(product, "alice")
    await page.call("presence.fetch", [bob])
    await page.sees(bob, *OPEN)
    await other.call("presence.update", "open", "lunch")
    await other.wait("presence:selfChange")
    await page.tab.quiet(1, "frame")
    assert page.told(bob) == [OPEN]


async def test_nothing_is_told_after_unsubscribing(stage: KandyStage, product: Product) -> None:
    other, bob = await stage.someone(product, "bob")
    page, _ = await stage.someone(product, "alice")
    await page.watch(bob)
    await page.sees(bob, *OPEN)
    await page.call("presence.unsubscribe", [bob])
    await page.tab.answered("presenceWatcher", 2)
    # What was asked for takes effect in order, a moment after the answers.
    await page.watch("nobody@example.com")
    await page.sees("nobody@example.com", *CLOSED)
    await other.call("presence.update", "open", "lunch")
    await other.wait("presence:selfChange")
    await page.tab.quiet(1, "frame")
    assert page.told(bob) == [OPEN]


async def test_closed_page_goes_offline_once_its_grace_is_over(stage: KandyStage, builds: list[Product]) -> None:
    """A page that is closed says nothing; only its socket ends."""

    async def play(product: Product) -> None:
        other, bob = await stage.someone(product, "bob")
        page, _ = await stage.someone(product, "alice")
        await page.watch(bob)
        await page.sees(bob, *OPEN)
        await other.tab.kill()
        await page.tab.until(lambda: [s for s, _ in page.told(bob)] == ["open", "closed"], "the end", timeout=80)

    async with asyncio.TaskGroup() as group:
        for product in builds:
            group.create_task(play(product))


async def test_reload_does_not_flicker(stage: KandyStage, product: Product) -> None:
    other, bob = await stage.someone(product, "bob")
    page, _ = await stage.someone(product, "alice")
    await page.watch(bob)
    await page.sees(bob, *OPEN)
    await other.reload()
    await other.sign_in(bob, PASSWORD)
    await page.tab.quiet(2, "frame")
    assert page.told(bob) == [OPEN]
