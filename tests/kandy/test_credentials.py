"""Kandy Link's ways to prove who it is (Kandy protocol notes, 2.1, 2.2 and 2.6)."""

from __future__ import annotations

import secrets
import time

import jwt
import msgspec
import pytest
from tests.kandy.page import KandyPage
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

from offhook.protocols.kandy import hmac_token

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "a shared secret of more than thirty-two bytes"
POLICY: dict[str, object] = {"algorithms": ["HS256"], "secret": SECRET}


def _token(user: str, life: float = 600) -> str:
    now = int(time.time())
    return jwt.encode({"sub": user, "iat": now, "exp": now + int(life), "jti": secrets.token_hex(8)}, SECRET, "HS256")


async def _works(stage: KandyStage, page: KandyPage, user: str, app: str, domain: str) -> None:
    """Requests and the socket work both."""
    friend_name = await stage.user("friend", app=app, domain=domain)
    friend = await stage.page(page.product)
    await friend.sign_in(friend_name, PASSWORD)
    await page.say(friend_name, "hello")
    await page.spoke(friend_name, "hello")
    await friend.hears(user, "hello")
    await friend.say(user, "hi")
    await page.hears(friend_name, "hi")
    assert page.names("subscription:error", "auth:error", "request:error", "messages:error") == []


async def test_authname(stage: KandyStage, link: Product) -> None:
    page, user = await stage.page(link), await stage.user("alice")
    await page.sign_in_with({"username": user, "authname": user, "password": PASSWORD})
    await _works(stage, page, user, "default", "example.com")


async def test_authname_of_another_user_is_refused(stage: KandyStage, link: Product) -> None:
    page, user, other = await stage.page(link), await stage.user("alice"), await stage.user("mallory")
    code, _ = await page.refused({"username": user, "authname": other, "password": PASSWORD})
    assert code == "authentication:4"


async def test_bearer_token_and_its_successor(stage: KandyStage, plugin: Product) -> None:
    app, domain = await stage.tenant(tokens=POLICY)
    user = await stage.user("alice", app=app, domain=domain)
    proxy = await stage.proxy(secure=True)
    address = f"localhost:{proxy.host.rpartition(':')[2]}"
    page = await stage.page(plugin, socket=address, connectivity={"pingInterval": 3000})
    first = _token(user)
    await page.sign_in_with({"username": user, "bearerAccessToken": first})
    await _works(stage, page, user, app, domain)

    later = _token(user) if plugin.updates_tokens else first
    since = page.tab.mark
    if plugin.updates_tokens:
        await page.call("updateToken", {"username": user, "bearerAccessToken": later})
        await page.wait("auth:change", since=since)
    proxy.cut()
    await page.tab.until(lambda: "open" in page.tab.sockets(since), "the reconnect")
    assert page.tab.websockets(since)[0].url.endswith(f"token={later}")
    await page.call("presence.update", "open", "busy")
    await page.wait("presence:selfChange", since=since)
    request = page.tab.exchanges("/presence", since)[-1].request
    assert request.headers["authorization"] == f"Bearer {later}"
    await page.sign_out()
    assert page.reasons() == []
    assert page.names("subscription:error", "auth:error", "request:error") == []


async def test_token_may_stay_off_the_socket_url(stage: KandyStage, plugin: Product) -> None:
    if not plugin.since((4, 27, 0)):
        return
    app, domain = await stage.tenant(tokens=POLICY)
    user = await stage.user("alice", app=app, domain=domain)
    page = await stage.page(plugin, connectivity={"webSocketOAuthMode": "none"})
    await page.sign_in_with({"username": user, "bearerAccessToken": _token(user)})
    (socket,) = page.tab.websockets()
    assert "?" not in socket.url


async def test_access_token_in_the_query(stage: KandyStage, plugin: Product) -> None:
    if not plugin.since((4, 38, 0)):
        return
    app, domain = await stage.tenant(tokens=POLICY)
    user = await stage.user("alice", app=app, domain=domain)
    page = await stage.page(plugin)
    await page.sign_in_with({"username": user, "accessToken": _token(user)})
    await _works(stage, page, user, app, domain)
    later = _token(user)
    since = page.tab.mark
    await page.call("updateToken", {"username": user, "accessToken": later})
    await page.wait("auth:change", since=since)
    await page.call("presence.update", "open", "busy")
    await page.wait("presence:selfChange", since=since)
    assert page.tab.exchanges("/presence", since)[-1].request.query == f"token={later}"


@pytest.mark.parametrize("fault", ["expired", "garbage", "other user"])
async def test_bad_bearer_tokens_are_refused(stage: KandyStage, plugin: Product, fault: str) -> None:
    app, domain = await stage.tenant(tokens=POLICY)
    user = await stage.user("alice", app=app, domain=domain)
    token = {"expired": _token(user, -600), "garbage": "a.b.c", "other user": _token(f"other-{user}")}[fault]
    page = await stage.page(plugin)
    code, message = await page.refused({"username": user, "bearerAccessToken": token})
    assert code == "authentication:4"
    assert "undefined" not in message
    assert page.names("request:error") == (["request:error"] if plugin.since((4, 23, 0)) else [])


async def _hmac_token(stage: KandyStage, app: str, domain: str, user: str, age: int = 0) -> str:
    shown = await stage.admin("GET", f"/applications/{app}?secrets=true")
    key = str(msgspec.convert(shown, dict[str, object])["hmac_key"])
    claims = hmac_token.HmacClaims(user, domain, int(time.time()) - age, secrets.token_hex(16))
    return hmac_token.encode(key.encode(), claims)


async def test_hmac_token(stage: KandyStage, link: Product) -> None:
    app, domain = await stage.tenant()
    user = await stage.user("alice", app=app, domain=domain)
    page = await stage.page(link)
    token = await _hmac_token(stage, app, domain, user)
    await page.sign_in_with({"username": user, "hmacToken": token})
    first = page.tab.exchanges("/subscription")[0].request
    assert first.headers["x-token"] == token
    if not link.exchanges_hmac:
        return
    await _works(stage, page, user, app, domain)
    session = page.tab.exchanges("/instantmessage")[0].request.headers["x-session"]
    assert "x-token" not in page.tab.exchanges("/instantmessage")[0].request.headers
    await page.sign_out()
    if link.plugin:
        # The same page may come back with the session it was given.
        await page.call("services.subscribe", ["call", "Presence", "IM"])
        await page.in_at_last(page.tab.mark)
        again = page.tab.exchanges("POST /rest/version/1/user/" + user + "/subscription")[1].request
        assert again.headers["x-session"] == session
    # The token is good for one sign-in.
    thief = await stage.page(link)
    code, _ = await thief.refused({"username": user, "hmacToken": token})
    assert code == "authentication:4"


@pytest.mark.parametrize("fault", ["old", "garbage", "other user", "other domain"])
async def test_bad_hmac_tokens_are_refused(stage: KandyStage, link: Product, fault: str) -> None:
    app, domain = await stage.tenant()
    user = await stage.user("alice", app=app, domain=domain)
    token = {
        "old": await _hmac_token(stage, app, domain, user, 86400),
        "garbage": "a.b",
        "other user": await _hmac_token(stage, app, domain, f"x{user}"),
        "other domain": await _hmac_token(stage, app, "example.com", user),
    }[fault]
    page = await stage.page(link)
    code, message = await page.refused({"username": user, "hmacToken": token})
    assert code == "authentication:4"
    assert "undefined" not in message
