"""Presence over REST: one's own, and whose to be told of."""

from __future__ import annotations

import pytest
from tests.unit.gateways.kandy.conftest import ALICE, BOB, Kandy, base, basic
from tests.unit.gateways.kandy.test_subscription import refused

from offhook.domain.accounts import Application
from offhook.domain.subscriptions import Subscription
from offhook.ports import Transaction

PRESENCE, WATCHER = f"{base(ALICE)}/presence", f"{base(ALICE)}/presenceWatcher"


def choice(**values: object) -> dict[str, object]:
    """The body of ``presence``."""
    return {"presenceRequest": {"status": "open", "activity": "active", **values}}


def watching(action: str, *names: str) -> dict[str, object]:
    """The body of ``presenceWatcher``."""
    return {"presenceWatcherRequest": {"userList": list(names), "action": action}}


async def subscriptions(kandy: Kandy, application: Application) -> list[Subscription]:
    """Alice's subscriptions, oldest first."""
    user = await kandy.core.users.by_name(application, ALICE)

    def work(tx: Transaction) -> list[Subscription]:
        found = [tx.subscriptions.get(outline.session_id) for outline in tx.subscriptions.live_of(user.id)]
        return [subscription for subscription in found if subscription is not None]

    return await kandy.core.store.query(work)


async def test_a_user_chooses_a_presence(kandy: Kandy, application: Application) -> None:
    await kandy.subscribe(ALICE)
    reply = await kandy.post(PRESENCE, choice(status="closed", activity="on-the-phone", note="not now"), basic(ALICE))
    assert (reply.status, reply.json) == (200, {"presenceResponse": {"statusCode": 0}})
    user = await kandy.core.users.by_name(application, ALICE)
    assert (user.closed, user.status, user.note) == (True, "ON_THE_PHONE", "not now")
    await kandy.post(PRESENCE, choice(), basic(ALICE))
    user = await kandy.core.users.by_name(application, ALICE)
    assert (user.closed, user.status, user.note) == (False, "AVAILABLE", "")


@pytest.mark.parametrize(
    ("body", "code", "names"),
    [
        (b"", 5, ""),
        ({}, 5, "presenceRequest"),
        (choice(status="ajar"), 37, "presenceRequest.status"),
        (choice(activity="sleeping"), 37, "presenceRequest.activity"),
        (choice(note="x" * 256), 37, "presenceRequest.note"),
        (choice(note="a\ud800b"), None, ""),
    ],
)
async def test_a_bad_choice_is_refused(
    kandy: Kandy, body: bytes | dict[str, object], code: int | None, names: str
) -> None:
    await kandy.subscribe(ALICE)
    reply = await kandy.post(PRESENCE, body, basic(ALICE))
    if code is None:
        assert reply.status == 400
    else:
        assert names in refused(reply, 400, code, "presenceResponse")


async def test_presence_is_for_those_who_subscribed_to_it(kandy: Kandy) -> None:
    await kandy.subscribe(ALICE, "IM")
    refused(await kandy.post(PRESENCE, choice(), basic(ALICE)), 403, 35, "presenceResponse")
    reply = await kandy.post(WATCHER, watching("watch", BOB), basic(ALICE))
    refused(reply, 403, 35, "presenceWatcherResponse")


async def test_presence_needs_credentials(kandy: Kandy) -> None:
    await kandy.subscribe(ALICE)
    refused(await kandy.post(PRESENCE, choice(), basic(ALICE, "wrong")), 401, 4, "presenceResponse")
    refused(await kandy.post(PRESENCE, choice(), basic(BOB)), 401, 4, "presenceResponse")
    reply = await kandy.post(WATCHER, watching("get", BOB), basic(BOB))
    refused(reply, 401, 4, "presenceWatcherResponse")


async def test_users_are_watched_as_the_client_spells_them(kandy: Kandy, application: Application) -> None:
    await kandy.subscribe(ALICE)
    reply = await kandy.post(WATCHER, watching("watch", BOB, "Carol@example.com"), basic(ALICE))
    assert (reply.status, reply.json) == (200, {"presenceWatcherResponse": {"statusCode": 0}})
    (subscription,) = await subscriptions(kandy, application)
    assert subscription.watched == (BOB, "Carol@example.com")
    await kandy.post(WATCHER, watching("stopwatch", BOB), basic(ALICE))
    (subscription,) = await subscriptions(kandy, application)
    assert subscription.watched == ("Carol@example.com",)


async def test_only_the_device_that_asks_is_told(kandy: Kandy, application: Application) -> None:
    await kandy.subscribe(ALICE)
    phone = {**basic(ALICE), "user-agent": "a phone"}
    await kandy.subscribe(ALICE, headers=phone)
    await kandy.post(WATCHER, watching("watch", BOB), {**phone, "content-type": "text/plain"})
    first, second = await subscriptions(kandy, application)
    assert (first.watched, second.watched) == ((), (BOB,))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 5),
        (watching("stare", BOB), 37),
        (watching("watch", *(f"u{number}" for number in range(400))), None),
        (watching("watch", ""), 37),
        ({"presenceWatcherRequest": {"action": "get"}}, 5),
    ],
)
async def test_a_bad_watch_is_refused(kandy: Kandy, body: bytes | dict[str, object], code: int | None) -> None:
    await kandy.subscribe(ALICE)
    reply = await kandy.post(WATCHER, body, basic(ALICE))
    if code is None:
        assert reply.status in (200, 413)
    else:
        refused(reply, 400, code, "presenceWatcherResponse")
