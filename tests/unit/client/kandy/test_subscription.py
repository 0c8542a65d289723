"""Subscriptions of servers that refuse, are busy, or forget (Kandy protocol notes, 3.3, 3.5 and 3.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.client.kandy.scripted import Platform, SkippingLoop, refusal

from offhook import kandy

CONFIG: dict[str, object] = {
    "authentication": {"server": {"base": "rest.example"}},
    "subscription": {"websocket": {"server": "ws.example"}},
}


def play(platform: Platform, act: Callable[[kandy.Client], Awaitable[None]]) -> list[kandy.Event]:
    """Has a client do something; what it told, its own end apart."""
    told: list[kandy.Event] = []

    async def whole() -> None:
        async with kandy.create(CONFIG, transport=platform) as client:
            for name in kandy.EVENTS:
                client.on(name, told.append)
            client.set_credentials(username="alice@example.com", password="secret")
            del told[:]
            await act(client)
            seen = list(told)
        told[:] = seen
        assert len(asyncio.all_tasks()) == 1
        assert all(socket.closed for socket in platform.sockets)

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(whole())
    return told


def names(told: list[kandy.Event]) -> list[str]:
    """The names of events."""
    return [event.name for event in told]


async def subscribe(client: kandy.Client) -> None:
    """Subscribes."""
    await client.services.subscribe(["IM"])


async def refused(client: kandy.Client) -> None:
    """Subscribes in vain."""
    with pytest.raises(kandy.KandyError):
        await subscribe(client)
    assert not client.services.get_subscriptions().is_pending and not client.get_connection().is_connected


def error_of(told: list[kandy.Event]) -> kandy.KandyError:
    """The error of the last event."""
    last = told[-1]
    assert isinstance(last, kandy.SubscriptionError)
    return last.error


def test_a_server_that_is_busy_is_asked_again() -> None:
    platform = Platform()
    platform.script["POST"] = [refusal(503, 26, "10"), refusal(503, 26, retry_after_ms=4000), refusal(503, 26, "2", 9)]
    told = play(platform, subscribe)
    assert names(told) == ["subscription:change", "ws:change", "subscription:change"]
    assert platform.methods == ["POST"] * 4 + ["DELETE"]
    assert [low <= gap <= low * 1.3 for gap, low in zip(platform.gaps(), (10, 4, 2), strict=False)] == [True] * 3


@pytest.mark.parametrize(
    ("answers", "code", "posts"),
    [
        ([refusal(503, 26, "1")] * 4, "authentication:13", 4),
        ([refusal(503, 26, "3600")], "authentication:13", 1),
        ([refusal(503, 26)], "authentication:4", 1),
        ([refusal(500, 26)], "authentication:4", 1),
        ([(200, {}, b"{}")], "authentication:4", 1),
        ([(200, {}, b"<html>")], "authentication:4", 1),
        ([(403, {"content-type": "text/html"}, b"<html>")], "authentication:4", 1),
    ],
)
def test_what_is_refused_in_the_end(answers: list[tuple[int, dict[str, str], bytes]], code: str, posts: int) -> None:
    platform = Platform()
    platform.script["POST"] = list(answers)
    told = play(platform, refused)
    assert (error_of(told).code, platform.methods) == (code, ["POST"] * posts)
    assert ("request:error" in names(told)) is (answers[0][0] == 403)


def test_the_server_may_tell_its_number_at_another_place() -> None:
    for body in (b'{"statusCode":4,"reason":"No"}', b'{"authorizationResponse":{"statusCode":4,"reason":"No"}}'):
        platform = Platform()
        platform.script["POST"] = [(403, {}, body)]
        assert error_of(play(platform, refused)).message == "Failed to subscribe user. Status Code: 4. No"


async def much_later(client: kandy.Client) -> None:
    """Subscribes, and lets a day pass."""
    await subscribe(client)
    await asyncio.sleep(86_400)


def test_renewals_are_tried_more_and_more_often() -> None:
    platform = Platform()
    platform.script["PUT"] = [refusal(500, 26)] * 9
    told = play(platform, much_later)
    resubs = [event for event in told if isinstance(event, kandy.SubscriptionResub)]
    assert [(event.attempt_num, event.is_failure) for event in resubs[:11]] == [
        *((number, True) for number in range(1, 10)),
        (10, False),
        (1, False),
    ]
    assert all(event.error is not None and event.error.code == "authentication:6" for event in resubs[:9])
    bases = [1800, 900, 450, 225, 112.5, 56.25, 30, 30, 30, 30, 1800]
    assert all(0.79 * base < gap < 1.21 * base for gap, base in zip(platform.gaps(), bases, strict=False))


@pytest.mark.parametrize("code", [39, 4])
def test_a_subscription_that_is_forgotten_is_gone(code: int) -> None:
    platform = Platform()
    platform.script["PUT"] = [refusal(404, code)]
    told = play(platform, much_later)
    assert names(told)[3:] == ["subscription:resub", "ws:change", "subscription:change"]
    assert told[3] == kandy.SubscriptionResub(1, True, getattr(told[3], "error", None))
    assert told[-1] == kandy.SubscriptionChange("GONE")
    assert platform.methods == ["POST", "PUT"]


def test_one_that_is_forgotten_when_services_are_added() -> None:
    platform = Platform()
    platform.script["PUT"] = [refusal(404, 39)]

    async def add(client: kandy.Client) -> None:
        await subscribe(client)
        with pytest.raises(kandy.KandyError) as failed:
            await client.services.subscribe(["Presence"])
        assert failed.value.code == "39" and failed.value.status == 404
        assert not client.get_connection().is_connected

    assert names(play(platform, add))[4:] == ["subscription:error", "ws:change", "subscription:change"]


def test_an_end_that_the_server_refuses_is_an_end_all_the_same() -> None:
    platform = Platform()
    platform.script["DELETE"] = [refusal(500, 26)]

    async def leave(client: kandy.Client) -> None:
        await subscribe(client)
        await client.services.unsubscribe(["IM"])
        assert client.services.get_subscriptions() == kandy.Subscriptions((), ("call", "Presence", "IM"), False)

    assert names(play(platform, leave))[3:] == ["subscription:change", "ws:change", "subscription:change"]
    assert platform.methods == ["POST", "DELETE"]


def test_a_placeholder_is_found_before_anything_is_sent() -> None:
    async def whole() -> None:
        platform = Platform()
        config = {**CONFIG, "subscription": {"websocket": {"server": "$WEBSOCKETFQDN$"}}}
        async with kandy.create(config, transport=platform) as client:
            client.set_credentials(username="alice@example.com", password="secret")
            with pytest.raises(kandy.KandyError, match=r"subscription\.websocket\.server") as failed:
                await subscribe(client)
            assert failed.value.code == "configuration"
        assert platform.asked == []

    asyncio.run(whole())
