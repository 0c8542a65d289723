"""What one fault at the wrong moment must not cost a page: a message, a user's presence, or its session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.gateways.kandy.browser import Device, subscribed, until
from tests.unit.gateways.kandy.conftest import ALICE, BOB
from tests.unit.gateways.kandy.sockets.conftest import choose, connected, send, watched

from offhook.core import Core
from offhook.domain.accounts import Application, UserChanges
from offhook.domain.events import user_topic
from offhook.domain.presence import Activity
from offhook.domain.subscriptions import IM, PRESENCE
from offhook.errors import Unavailable
from offhook.gateways.background import settle
from offhook.gateways.kandy import feed as feed_module
from offhook.gateways.kandy.gateway import Gateway
from offhook.ports import Transaction
from offhook.services.subscriptions import Watching


def fails_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    """Has a coroutine method of an object fail the first time. Returns how often it was called, as it grows."""
    real: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    async def flaky(self: object, *args: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise Unavailable("busy")
        return await real(*args)

    monkeypatch.setattr(type(owner), name, flaky)
    return calls


async def told(device: Device, name: str, activity: str) -> None:
    """Waits until the page shows a user so."""
    await until(lambda: device.page.shown.get(name, ("", "", ""))[1] == activity)


async def test_messages_that_wait_survive_a_failed_question(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(core, "old 1", "old 2")
    calls = fails_once(monkeypatch, core.messages, "undelivered")
    alice = await subscribed(gateway, core, ALICE)
    await alice.connect()
    await send(core, "new")
    await until(lambda: len(alice.page.texts) == 3)
    assert alice.page.texts == ["old 1", "old 2", "new"] and len(calls) > 1


async def test_a_watch_that_failed_half_way_is_done_again(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await connected(gateway, core)
    calls = fails_once(monkeypatch, core.broker, "position")
    await alice.watch(BOB)
    await told(alice, BOB, "unknown")
    await send(core, "hello")
    await until(lambda: alice.page.texts == ["hello"])
    assert len(calls) > 1 and watched(core, alice) == frozenset({BOB})


async def test_messages_between_the_request_and_the_first_are_told_by_the_next_socket(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await connected(gateway, core, ALICE, PRESENCE)
    monkeypatch.setattr(feed_module, "ANSWER_FIRST", 5.0)
    await alice.renew(PRESENCE, IM)
    await send(core, "between")
    live = core.hub.get(alice.id)
    # Nothing proves anything of what is kept back.
    assert live is not None and live.held
    await alice.lose()
    monkeypatch.setattr(feed_module, "ANSWER_FIRST", 0.005)
    await alice.connect()
    await until(lambda: alice.page.texts == ["between"])
    await send(core, "after")
    await until(lambda: alice.page.texts == ["between", "after"])


async def test_messages_asked_for_are_kept_back_though_another_answer_is_due(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await connected(gateway, core, ALICE, PRESENCE)
    monkeypatch.setattr(feed_module, "ANSWER_FIRST", 0.05)
    await alice.watch(BOB, action=Watching.GET)
    live, handler = core.hub.get(alice.id), alice.wire.handler
    await until(lambda: live is not None and live.subscription is not None and bool(live.subscription.owed))
    monkeypatch.setattr(feed_module, "ANSWER_FIRST", 5.0)
    await alice.renew(PRESENCE, IM)
    await send(core, "between")
    await until(lambda: handler._ripe is not None and bool(handler._ripe.owed) and not handler._feeding)
    assert live is not None and live.held
    await alice.lose()
    monkeypatch.setattr(feed_module, "ANSWER_FIRST", 0.005)
    await alice.connect()
    await until(lambda: alice.page.texts == ["between"])


async def test_who_is_told_nothing_of_the_own_topic_keeps_up_with_it(
    gateway: Gateway, core: Core, application: Application
) -> None:
    alice = await connected(gateway, core, ALICE, PRESENCE)
    # More than the history keeps.
    for number in range(150):
        await core.users.change(application, alice.user_id, UserChanges(status=f"status {number}"))
    alice.wire.handler._on_timer()
    await alice.lose()
    await alice.connect()
    assert alice.page.gone == 0 and core.hub.get(alice.id) is not None


async def test_presence_that_is_told_again_is_taken_if_it_has_changed(gateway: Gateway, core: Core) -> None:
    bobs = await connected(gateway, core, BOB)
    alice = await connected(gateway, core)
    alice.wire.pongs_held = True
    await alice.watch(BOB)
    await told(alice, BOB, "active")
    await alice.lose()

    def forget(tx: Transaction) -> None:
        # As after a crash before the place in everybody's topic was stored.
        session = tx.sessions.get(alice.id)
        assert session is not None
        own = user_topic(alice.user_id)
        tx.sessions.save_positions([(alice.id, session.generation, {own: session.positions[own]})])

    await core.store.transact(forget)
    await choose(core, BOB, Activity.BUSY)
    await alice.connect()
    await told(alice, BOB, "busy")
    await bobs.lose()


async def test_presence_is_owed_until_that_is_stored(
    gateway: Gateway, core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    bobs = await connected(gateway, core, BOB)
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await told(alice, BOB, "active")
    await alice.lose()
    await choose(core, BOB, Activity.BUSY)
    other = await core.users.create(application, "carol@example.com")
    for number in range(150):
        await core.users.change(application, other.id, UserChanges(status=f"status {number}"))
    calls = fails_once(monkeypatch, core.subscriptions, "owe")
    await alice.connect()
    await told(alice, BOB, "busy")
    assert len(calls) > 1 and alice.page.gone == 0
    await bobs.lose()


@pytest.mark.parametrize("late", [False, True])
async def test_a_block_and_a_change_of_presence_at_once(
    gateway: Gateway, core: Core, application: Application, late: bool
) -> None:
    bobs = await connected(gateway, core, BOB)
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await told(alice, BOB, "active")
    changes = [choose(core, BOB, Activity.BUSY), core.users.block(application, bobs.user_id, alice.user_id)]
    await asyncio.gather(*(reversed(changes) if late else changes))
    await told(alice, BOB, "unknown")
    await settle()
    assert alice.page.shown[BOB][0] == "closed"
    changes = [choose(core, BOB, Activity.AWAY), core.users.unblock(application, bobs.user_id, alice.user_id)]
    await asyncio.gather(*(reversed(changes) if late else changes))
    await told(alice, BOB, "away")


async def test_a_spelling_keeps_its_ids_when_another_goes(gateway: Gateway, core: Core) -> None:
    bobs = await connected(gateway, core, BOB)
    alice = await connected(gateway, core)
    spelt = f"sip:{BOB}"
    await alice.watch(BOB, spelt)
    await told(alice, spelt, "active")
    alice.wire.prompt = False
    await choose(core, BOB, Activity.BUSY)
    # The first of the two notifications arrives, the other does not, and then only that name is watched.
    alice.wire.arrive(1)
    await alice.lose()
    assert (alice.page.shown[BOB][1], alice.page.shown[spelt][1]) == ("busy", "active")
    await alice.watch(BOB, action=Watching.STOP)
    await alice.connect()
    await told(alice, spelt, "busy")
    await bobs.lose()


async def test_an_older_socket_that_is_late_takes_nothing_from_a_newer_one(gateway: Gateway, core: Core) -> None:
    alice = await subscribed(gateway, core, ALICE)
    older = alice.open()
    newer = alice.open()
    await settle()
    assert newer.open and newer.closing is None
    await until(lambda: older.closing is not None)
    live = core.hub.get(alice.id)
    assert live is not None and live.outlet is newer.handler
