"""More devices than the application allows (Kandy protocol notes, 3.1, 3.3 and 3.8)."""

from __future__ import annotations

import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

PING: dict[str, object] = {"pingInterval": 3000}
"""Older builds find out that their socket is closed at their next ping, which is 30 s away unless told otherwise."""


async def test_force_logout_ends_the_oldest(stage: KandyStage, product: Product) -> None:
    if not product.passes_options:
        return
    app, domain = await stage.tenant(sessions={"max_sessions": 1, "duplicates": "reject-new"})
    user = await stage.user("alice", app=app, domain=domain)
    first, second = await stage.page(product, connectivity=PING), await stage.page(product, connectivity=PING)
    await first.sign_in(user, PASSWORD)
    since = first.tab.mark
    await second.sign_in(user, PASSWORD, forceLogOut=True)
    assert await first.ended(since, timeout=60) == first.evicted
    await first.tab.quiet(7, "request", "websocket")
    assert first.reasons() == [first.evicted]
    assert second.reasons() == []
    # Whoever comes next with the same wish sends the second one away.
    third = await stage.page(product)
    await third.sign_in(user, PASSWORD, forceLogOut=True)
    assert await second.ended(timeout=60) == second.evicted


async def test_force_logout_below_the_limit_ends_nobody(stage: KandyStage, product: Product) -> None:
    app, domain = await stage.tenant(sessions={"max_sessions": 2, "duplicates": "reject-new"})
    user = await stage.user("alice", app=app, domain=domain)
    first, second = await stage.page(product), await stage.page(product)
    await first.sign_in(user, PASSWORD, forceLogOut=True)
    await second.sign_in(user, PASSWORD, forceLogOut=True)
    await first.tab.quiet(2, "request", "websocket", "frame")
    assert first.reasons() == []


async def test_without_it_the_newcomer_is_refused(stage: KandyStage, product: Product) -> None:
    app, domain = await stage.tenant(sessions={"max_sessions": 1, "duplicates": "reject-new"})
    user = await stage.user("alice", app=app, domain=domain)
    first, second = await stage.page(product), await stage.page(product)
    await first.sign_in(user, PASSWORD)
    code, message = await second.refused({"username": user, "password": PASSWORD})
    assert code == "authentication:4"
    assert message.endswith("Code: 19.")
    assert second.names("request:error") == []
    assert first.reasons() == []
    await first.sign_out()
    await second.sign_in(user, PASSWORD)


async def test_application_may_prefer_the_newcomer(stage: KandyStage, product: Product) -> None:
    app, domain = await stage.tenant(sessions={"max_sessions": 1, "duplicates": "end-oldest"})
    user = await stage.user("alice", app=app, domain=domain)
    first, second = await stage.page(product, connectivity=PING), await stage.page(product)
    await first.sign_in(user, PASSWORD)
    await second.sign_in(user, PASSWORD)
    assert await first.ended(timeout=60) == first.evicted
    assert second.reasons() == []
