"""Events that never reached this node: what can be told anew is, and who cannot be told starts over."""

from __future__ import annotations

import pytest
from tests.unit.gateways.kandy.browser import until
from tests.unit.gateways.kandy.conftest import ALICE, BOB
from tests.unit.gateways.kandy.sockets.conftest import choose, connected, send

from offhook.codes import EndReason
from offhook.core import Core
from offhook.domain.accounts import Application
from offhook.domain.events import application_topic, user_topic
from offhook.domain.presence import Activity
from offhook.gateways.background import settle
from offhook.gateways.kandy.gateway import Gateway
from offhook.ports import Handlers


async def test_presence_that_was_missed_is_told_anew(
    gateway: Gateway, core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connected(gateway, core, BOB)
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: alice.page.shown == {BOB: ("open", "active", "")} and alice.wire.unproved == 0)
    await settle()
    with monkeypatch.context() as patch:
        patch.setattr(core.broker, "_handlers", Handlers())
        await choose(core, BOB, *[Activity.AWAY, Activity.BUSY] * 80)
    assert alice.page.shown == {BOB: ("open", "active", "")}
    core.hub.gap(application_topic(application.id))
    await until(lambda: alice.page.shown == {BOB: ("open", "busy", "")})
    assert alice.page.gone == 0
    await choose(core, BOB, Activity.AWAY)
    await until(lambda: alice.page.shown == {BOB: ("open", "away", "")})


async def test_messages_that_were_missed_end_the_subscription(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await connected(gateway, core)
    with monkeypatch.context() as patch:
        patch.setattr(core.broker, "_handlers", Handlers())
        await send(core, *(f"{number}" for number in range(260)))
    core.hub.gap(user_topic(alice.user_id))
    await until(lambda: alice.page.gone == 1)
    await settle()
    assert (await core.sessions.show(alice.id)).session.end_reason is EndReason.HISTORY_LOST
    again = await connected(gateway, core, ALICE)
    await until(lambda: len(again.page.texts) == 260)
