"""Signing in and out (Kandy protocol notes, 3.1 to 3.3 and 3.6), event by event."""

from __future__ import annotations

import msgspec
import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIGNS = ("auth:", "subscription:", "ws:", "request:")


def _answered(body: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """The answer to a subscription request: all of it, and its parameters."""
    response = msgspec.convert(body["subscribeResponse"], dict[str, object])
    return response, msgspec.convert(response["subscriptionParams"], dict[str, object])


async def test_services_subscribe_tells_each_step(stage: KandyStage, plugin: Product) -> None:
    page, user = await stage.page(plugin), await stage.user("alice")
    await page.call("setCredentials", {"username": user, "password": PASSWORD})
    first = await page.wait("auth:change")
    assert first.fields == {}
    assert first.user == {"username": user}
    # Older builds tell what there is to subscribe to only once something is.
    assert (first.services or {})["available"] == (["call", "Presence", "IM"] if plugin.since((4, 30, 0)) else [])
    assert page.tab.exchanges() == []

    await page.call("services.subscribe", ["call", "Presence", "IM"], {"forceLogOut": True})
    done = await page.wait("subscription:change", page.signed_in)
    assert page.names(*SIGNS) == ["auth:change", "subscription:change", "ws:change", "ws:change", "subscription:change"]
    pending = page.events("subscription:change")[0]
    assert (pending.services or {})["isPending"] is True
    assert done.subscribed == ["call", "Presence", "IM"]
    assert (done.services or {})["isPending"] is False
    assert done.user == {"username": user}
    assert not done.connected

    since = page.tab.mark
    await page.sign_out()
    told = page.names(*SIGNS, since=since)
    assert told[0] == told[-1] == "subscription:change"
    assert set(told) == {"subscription:change", "ws:change"}
    assert (await page.state()).user == {"username": user}
    assert page.posted() == ["POST", "DELETE"]
    assert page.complaints() == []


async def test_connect_tells_each_step(stage: KandyStage, product: Product) -> None:
    """``connect`` is the only way of the older builds, and goes on in the newer ones of Link."""
    page, user = await stage.page(product), await stage.user("alice")
    await page.call("connect", {"username": user, "password": PASSWORD})
    done = await page.wait("auth:change", lambda event: event.connected)
    told = page.names(*SIGNS)
    if product.plugin:
        assert [name for name in told if name != "auth:credentialsSet"] == [
            *("auth:change", "auth:change", "subscription:change", "ws:change", "ws:change"),
            *("subscription:change", "auth:change"),
        ]
    else:
        credentials = ["auth:credentialsSet"] if product.since((4, 13, 0), (3, 13, 0)) else []
        assert told == ["auth:change", *credentials, "ws:change", "ws:change", "auth:change"]
        subscription = msgspec.convert((done.connection or {})["subscription"], dict[str, object])
        assert subscription["status"] == "FULL"
        assert subscription["missing"] == []
        assert subscription["services"] == {"call": True, "IM": True, "Presence": True}
    named = done.user or {}
    assert named["username"] == user
    if not product.link:
        assert named["accessToken"] and named["refreshToken"]

    since = page.tab.mark
    await page.call("disconnect")
    await page.wait(
        "auth:change", lambda e: not e.connected and (e.connection or {})["isPending"] is False, since=since
    )
    await page.tab.answered("DELETE ")
    assert page.posted() == ["POST", "DELETE"]
    assert page.names("auth:error", "subscription:error") == []
    assert page.complaints() == []


async def test_answer_has_what_the_sdks_read(stage: KandyStage, product: Product) -> None:
    page, user = await stage.someone(product, "alice")
    exchange = await page.tab.answered(f"POST /rest/version/1/user/{user}/subscription")
    assert exchange.answer is not None
    assert exchange.answer.status in (200, 201)
    response, parameters = _answered(exchange.answer.json())
    assert response["statusCode"] == 0
    assert str(response["subscription"]).startswith(f"/rest/version/1/user/{user}/subscription/")
    assert parameters["service"] == ["call", "Presence", "IM"]
    assert parameters["expires"] == 3600
    assert parameters["notificationType"] == "WebSocket"
    channel = str(parameters["notificationChannel"])
    assert channel.startswith("/") and "/websocket/" in channel and "?" not in channel
    (socket,) = page.tab.websockets()
    assert socket.url.partition("?")[0] == f"wss://{stage.server.tls_host}{channel}"
    assert exchange.answer.headers["content-type"].startswith("application/json")
    assert exchange.answer.headers["access-control-allow-origin"].startswith("http://localhost:")


@pytest.mark.parametrize("wrong", ["password", "user", "domain"])
async def test_wrong_credentials_are_refused_in_words(stage: KandyStage, product: Product, wrong: str) -> None:
    page, user = await stage.page(product), await stage.user("alice")
    name = {"password": user, "user": f"nobody-{user}", "domain": "alice@nowhere.example"}[wrong]
    password = "wrong" if wrong == "password" else PASSWORD
    code, message = await page.refused({"username": name, "password": password})
    if product.link:
        assert code == "authentication:4"
        assert message.startswith("Failed to subscribe user.")
        assert message.endswith("Code: 4.")
    else:
        assert code == "authentication:9"
        prefix, _, reason = message.partition("There was an error connecting. Error: ")
        assert prefix == "" and reason and reason != "undefined"
    noticed = page.names("request:error")
    assert noticed == (["request:error"] if product.plugin and product.since((4, 23, 0)) else [])
    state = await page.state()
    assert not state.connected and not state.subscribed
    assert page.tab.websockets() == []
    assert page.complaints() == []

    # There is no cool-down: the next attempt may succeed at once.
    await page.sign_in(user, PASSWORD)


async def test_page_may_sign_in_again_and_misses_nothing(stage: KandyStage, product: Product) -> None:
    """The SDK remembers the ids of events over subscriptions: they must never come twice."""
    page, user = await stage.someone(product, "alice")
    friend, other = await stage.someone(product, "bob")
    await friend.say(user, "one")
    await page.hears(other, "one")
    await page.sign_out()
    await page.sign_in(user, PASSWORD)
    await friend.say(user, "two")
    await page.hears(other, "one", "two")


async def test_a_reload_is_a_new_device(stage: KandyStage, product: Product) -> None:
    page, user = await stage.someone(product, "alice")
    await page.reload()
    since = page.tab.mark
    await page.sign_in(user, PASSWORD)
    friend, other = await stage.someone(product, "bob")
    await friend.say(user, "hello")
    await page.hears(other, "hello")
    assert page.events("subscription:error", "auth:error", since=since) == []


async def test_destroy_leaves_no_traffic(stage: KandyStage, product: Product) -> None:
    if not product.destroys:
        return
    page, _ = await stage.someone(product, "alice")
    await page.sign_out()
    await page.call("destroy")
    await page.tab.quiet(2, "request", "websocket", "frame")
    assert page.complaints() == []
