"""Kandy UC's tokens (Kandy protocol notes, 2.4 to 2.6)."""

from __future__ import annotations

import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOON = 3597
"""A margin that makes the SDKs refresh a token of an hour after three seconds."""


async def test_token_refresh(stage: KandyStage, uc: Product) -> None:
    """The SDK refreshes before the end, and goes on using its first token for requests."""
    page, user = await stage.page(uc, margin=SOON), await stage.user("alice")
    first = await page.sign_in(user, PASSWORD)
    for number in (1, 2):
        since = page.tab.mark
        refreshed = await page.tab.answered("/auth/refresh_token", number)
        assert refreshed.answer is not None
        assert refreshed.answer.status == 200
        changed = await page.wait("auth:change", since=since)
        assert changed.connected
    latest = await page.state()
    assert (latest.user or {})["accessToken"] != (first.user or {})["accessToken"]
    friend, other = await stage.someone(uc, "friend")
    await page.say(other, "still here")
    await friend.hears(user, "still here")
    await friend.say(user, "good")
    await page.hears(other, "good")
    assert page.names("auth:error") == []


async def test_socket_comes_back_with_the_latest_token(stage: KandyStage, uc: Product) -> None:
    proxy = await stage.proxy(secure=True)
    address = f"localhost:{proxy.host.rpartition(':')[2]}"
    page = await stage.page(uc, socket=address, margin=SOON, connectivity={"pingInterval": 3000})
    user = await stage.user("alice")
    await page.sign_in(user, PASSWORD)
    await page.tab.answered("/auth/refresh_token")
    since = page.tab.mark
    proxy.cut()
    await page.tab.until(lambda: "open" in page.tab.sockets(since), "the reconnect")
    before, after = (socket.url for socket in page.tab.websockets()[:2])
    assert before.partition("?")[0] == after.partition("?")[0]
    assert before.partition("?")[2] != after.partition("?")[2]
    assert page.reasons() == []


async def test_access_token_of_another_page(stage: KandyStage, uc: Product) -> None:
    page, user = await stage.page(uc), await stage.user("alice")
    tokens = (await page.sign_in(user, PASSWORD)).user or {}
    second = await stage.page(uc)
    await second.sign_in_with({"username": user, "accessToken": tokens["accessToken"]})
    third = await stage.page(uc)
    await third.sign_in_with({"username": user, "refreshToken": tokens["refreshToken"]})
    assert second.tab.exchanges("mk_token") == third.tab.exchanges("mk_token") == []


@pytest.mark.parametrize("token", ["accessToken", "refreshToken", "oauthToken"])
async def test_made_up_tokens_are_refused(stage: KandyStage, uc: Product, token: str) -> None:
    page, user = await stage.page(uc), await stage.user("alice")
    code, message = await page.refused({"username": user, token: "made-up"})
    assert code == ("authentication:9" if token == "refreshToken" else "authentication:4")
    assert "undefined" not in message
    assert page.complaints() == []


async def test_tokens_end_with_the_password(stage: KandyStage, uc: Product) -> None:
    page, user = await stage.page(uc, connectivity={"pingInterval": 3000}), await stage.user("alice")
    tokens = (await page.sign_in(user, PASSWORD)).user or {}
    await stage.admin("PUT", f"/applications/default/users/{user}/password", password="another one")
    assert await page.ended(timeout=60) == page.evicted
    for token in ("accessToken", "refreshToken"):
        again = await stage.page(uc)
        await again.refused({"username": user, token: tokens[token]})


async def test_disconnect_ends_the_session(stage: KandyStage, uc: Product) -> None:
    page, user = await stage.someone(uc, "alice")
    await page.sign_out()
    (session,) = await stage.sessions(user)
    assert session.state == "ended"
    if uc.revokes:
        revoked = await page.tab.answered("/auth/revoke_token")
        assert revoked.answer is not None
        assert revoked.answer.status == 200
    assert page.names("auth:error") == []
    assert page.complaints() == []
