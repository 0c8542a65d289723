"""The published SDK of anonymous calls (Kandy protocol notes, section 8.11): its way from no account to a call."""

from __future__ import annotations

import itertools

import msgspec
import pytest
import pytest_asyncio
from tests.e2e.driver import JS
from tests.e2e.kandy import SdkPage, scripts
from tests.e2e.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

SDK = JS / "node_modules" / "@kandy-io" / "callme-sdk" / "dist" / "kandy.js"
SUBSCRIBE = {
    "expires": 3600,
    "service": ["callMe"],
    "localization": "English_US",
    "useTurn": True,
    "notificationType": "WebSocket",
    "supported": ["RingingFeedback"],
    "forceLogOut": "false",
}

_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="session")
async def page(stage: Stage) -> SdkPage:
    """The SDK, created for the server under test."""
    sdk = SdkPage(await stage.tab("", scripts(SDK)))
    host, _, port = stage.server.tls_host.rpartition(":")
    server = {"server": host, "port": port}
    await sdk.create(
        {
            "authentication": {"subscription": server, "websocket": server},
            "logs": {"logLevel": "warn"},
        }
    )
    return sdk


@pytest_asyncio.fixture(loop_scope="session")
async def callee(stage: Stage) -> str:
    """Somebody to be called."""
    name = f"callee-{next(_numbers)}@example.com"
    await stage.cli("user", "create", name)
    return name


async def _call(page: SdkPage, callee: str, credentials: dict[str, object] | None = None) -> None:
    await page.call("call.makeAnonymous", callee, credentials or {}, {"from": "guest@example.com", "audio": True})


async def test_anonymous_call_subscribes_connects_and_cleans_up(stage: Stage, page: SdkPage, callee: str) -> None:
    base = f"/rest/version/1/anonymous/{callee}"
    await _call(page, callee)

    subscribed = await page.tab.answered(f"POST {base}/subscription")
    assert msgspec.json.decode(subscribed.request.body or "") == {"subscribeRequest": SUBSCRIBE}
    assert "authorization" not in subscribed.request.headers
    assert subscribed.answer is not None
    assert subscribed.answer.status in (200, 201)
    response = msgspec.convert(subscribed.answer.json()["subscribeResponse"], dict[str, object])
    parameters = msgspec.convert(response["subscriptionParams"], dict[str, object])
    assert response["statusCode"] == 0
    assert parameters["service"] == ["callMe"]
    assert parameters["expires"] == 3600
    channel = str(parameters["notificationChannel"])
    prefix, _, channel_id = channel.rpartition("/websocket/")
    assert channel_id and prefix == "" and "?" not in channel

    started = await page.tab.answered(f"POST {base}/callMe")
    (socket,) = page.tab.websockets()
    assert socket.url == f"wss://{stage.server.tls_host}{channel}"
    assert page.tab.sockets()[:2] == ["connecting", "open"]
    request = msgspec.json.decode(started.request.body or "", type=dict[str, dict[str, object]])["callMeRequest"]
    assert (request["type"], request["to"], request["notifyChannelId"]) == ("callStart", f"sip:{callee}", channel_id)
    assert started.answer is not None
    assert started.answer.status == 403
    failed = msgspec.convert(started.answer.json()["callControlResponse"], dict[str, object])
    assert failed["statusCode"] == 35

    await page.wait("call:stateChange", lambda event: "error" in event.fields)
    ended = await page.tab.answered(f"DELETE {response['subscription']}")
    assert ended.answer is not None
    assert ended.answer.status == 200
    assert msgspec.convert(ended.answer.json()["subscribeResponse"], dict[str, object])["statusCode"] == 0
    await page.tab.until(lambda: page.tab.sockets() == ["connecting", "open", "closed"], "the socket's end")
    assert page.tab.frames("received") == []


async def test_second_call_subscribes_anew(page: SdkPage, callee: str) -> None:
    for number in (1, 2):
        await _call(page, callee)
        await page.tab.answered(f"DELETE /rest/version/1/anonymous/{callee}/subscription", number)
    posts = page.tab.exchanges(f"POST /rest/version/1/anonymous/{callee}/subscription")
    channels = {post.answer.body for post in posts if post.answer is not None}
    assert len(channels) == 2


async def test_tokens_nobody_issued_are_refused_in_words_the_sdk_understands(page: SdkPage, callee: str) -> None:
    """The tokens are put into the path as they are, with their slashes."""
    tokens = {"realm": "office", "accountToken": "ACC/T+o=", "fromToken": "F/r+m=", "toToken": "T/o+o="}
    await _call(page, callee, dict(tokens))
    subscribed = await page.tab.answered("POST /rest/version/1/anonymous/ACC/T+o=/subscription")
    assert subscribed.request.query == "tokenrealm=office"
    assert subscribed.answer is not None
    assert subscribed.answer.status == 403
    started = await page.wait("call:start")
    assert started.error == ("call:7", "Failed to connect to server.")
