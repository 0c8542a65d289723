"""How a notification socket gets its session, lives and ends."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.gateways.kandy.browser import CLIENT, Device, Wire, subscribed, until
from tests.unit.gateways.kandy.conftest import ALICE, BOB, PASSWORD
from tests.unit.gateways.kandy.sockets.conftest import PING, choose, connected, send

from offhook.codes import CloseReason, EndReason
from offhook.core import Core
from offhook.domain.accounts import Application, UserChanges
from offhook.domain.events import application_topic, user_topic
from offhook.domain.presence import Activity
from offhook.errors import InternalError, Unavailable
from offhook.gateways.background import settle
from offhook.gateways.kandy.gateway import Gateway
from offhook.protocols.kandy import keepalive
from offhook.services.credentials import AccessProof, PasswordProof

# --- signs of life


async def test_pings_are_met_by_silence(gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = await connected(gateway, core)
    opened = gateway.timers.now
    alice.wire.handler.received(PING)
    for seconds in (30.0, 40.0, 70.0, 100.0):
        monkeypatch.setattr(gateway.timers, "now", opened + seconds)
        alice.wire.handler._on_timer()
        alice.wire.handler.received(PING)
    assert alice.wire.sent == []


async def test_a_check_is_acknowledged_and_nothing_else_is(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    for text in (PING, b'{"connAck":{}}', b"{}", b"[]", b"\xff", b'{"connCheck":null}', b"x" * 5000, b"null"):
        alice.wire.handler.received(text)
    assert alice.wire.sent == []
    alice.wire.handler.received(b'{"connCheck":{"interval":30}}')
    assert alice.wire.sent == [keepalive.ACK]


async def test_a_client_without_a_word_for_a_minute_is_asked(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await connected(gateway, core)
    opened, clock = gateway.timers.now, [0.0]
    monkeypatch.setattr(gateway.timers, "now", opened)
    gateway.timers.stop()
    asked = []
    for clock[0] in (30.0, 59.0, 60.0, 90.0):
        monkeypatch.setattr(gateway.timers, "now", opened + clock[0])
        alice.wire.handler._on_timer()
        asked.append(len(alice.wire.words))
    assert asked == [0, 0, 1, 2] and set(alice.wire.words) == {keepalive.CHECK}
    alice.wire.handler.received(keepalive.ACK)
    alice.wire.handler._on_timer()
    assert len(alice.wire.words) == 2


async def test_a_client_that_says_too_much_is_cut_off(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    for _ in range(gateway.limits.frames.burst + 100):
        alice.wire.handler.received(PING)
    assert alice.wire.closing is not None and alice.wire.closing[0] is CloseReason.RATE_LIMITED
    await until(lambda: not alice.wire.open)
    await settle()


# --- the end


async def gone_and_closed(device: Device) -> None:
    """It is told that it is gone, and closed for good a moment later."""
    await until(lambda: device.page.gone == 1)
    assert device.wire.open
    await until(lambda: device.wire.closing is not None)
    assert device.wire.closing is not None and device.wire.closing[1] == 1000
    await until(lambda: not device.wire.open)
    await settle()


@pytest.mark.parametrize("how", ["operator", "password", "disabled", "replaced", "expired", "application", "deleted"])
async def test_a_subscription_that_is_ended_is_told_so(
    gateway: Gateway, core: Core, application: Application, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await connected(gateway, core)
    match how:
        case "operator":
            await core.sessions.end(alice.id, EndReason.OPERATOR)
        case "password":
            await core.users.set_password(application, ALICE, "another one")
        case "disabled":
            await core.users.set_enabled(application, ALICE, False)
        case "replaced":
            for _ in range(application.sessions.max_sessions):
                await subscribed(gateway, core, ALICE, force=True)
            # Those without a socket went first.
            assert alice.page.gone == 0
            session = (await core.sessions.show(alice.id)).session
            await core.sessions.tell_ended([session], EndReason.REPLACED)
        case "expired":
            later = core.clock.now().timestamp() + 4000

            class Later:
                def now(self) -> object:
                    from datetime import UTC, datetime

                    return datetime.fromtimestamp(later, UTC)

            monkeypatch.setattr(core.reaper, "_clock", Later())
            await core.reaper.sweep()
        case "application":
            from offhook.services.applications import ApplicationChanges

            await core.applications.change("default", ApplicationChanges(enabled=False))
        case _:
            await core.users.delete(application, alice.user_id)
    await gone_and_closed(alice)
    assert len(alice.wire.sent) == 1


async def test_a_client_that_ends_its_subscription_is_told_nothing(
    gateway: Gateway, core: Core, application: Application
) -> None:
    alice = await connected(gateway, core)
    user = await core.users.by_name(application, ALICE)
    assert await core.subscriptions.end(user, alice.id)
    await send(core, "unheard")
    await until(lambda: alice.wire.closing is not None)
    assert alice.wire.closing == (CloseReason.SESSION_ENDED, 1000) and alice.wire.sent == []


async def test_the_socket_of_a_subscription_that_is_over_is_told_so(gateway: Gateway, core: Core) -> None:
    alice = await subscribed(gateway, core, ALICE)
    await core.sessions.end(alice.id, EndReason.OPERATOR)
    alice.open()
    await gone_and_closed(alice)


async def test_the_socket_of_a_subscription_that_never_was_is_told_so(gateway: Gateway, core: Core) -> None:
    alice = await subscribed(gateway, core, ALICE)
    from offhook.gateways.kandy.socket import NotificationSocket

    handler = NotificationSocket(gateway, 999, CLIENT, None)
    wire = Wire(alice.page, handler)
    alice.wires.append(wire)
    handler.opened(wire)
    await gone_and_closed(alice)


async def test_an_end_while_the_socket_is_opened_is_told(gateway: Gateway, core: Core) -> None:
    for delay in range(12):
        alice = await subscribed(gateway, core, ALICE)
        alice.open()
        for _ in range(delay):
            await asyncio.sleep(0)
        await core.sessions.end(alice.id, EndReason.OPERATOR)
        await gone_and_closed(alice)
        assert core.hub.get(alice.id) is None


async def test_messages_that_are_kept_no_more_end_the_subscription(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    await alice.lose()
    await send(core, *(f"{number}" for number in range(260)))
    alice.open()
    await gone_and_closed(alice)
    session = (await core.sessions.show(alice.id)).session
    assert session.end_reason is EndReason.HISTORY_LOST
    # What waited is told to the next subscription: nothing is lost.
    again = await connected(gateway, core)
    await until(lambda: len(again.page.texts) == 260)


async def test_a_restart_sends_clients_away_so_that_they_come_back(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    alice.wire.handler.goodbye()
    assert alice.wire.closing == (CloseReason.DRAINING, None)
    await until(lambda: not alice.wire.open)
    await settle()
    await alice.connect()
    await send(core, "back")
    await until(lambda: alice.page.texts == ["back"])


# --- more than one socket


async def test_a_newer_socket_takes_over(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    old, new = alice.wire, await alice.connect()
    await until(lambda: not old.open)
    assert old.closing == (CloseReason.SUPERSEDED, 1000)
    await send(core, "one")
    await until(lambda: alice.page.texts == ["one"])
    assert len(old.sent) == 0 and new.open and len(core.hub) == 1


async def test_many_sockets_at_once_leave_the_newest(gateway: Gateway, core: Core) -> None:
    alice = await subscribed(gateway, core, ALICE)
    for _ in range(8):
        alice.open()
        await asyncio.sleep(0)
    await until(lambda: sum(wire.open for wire in alice.wires) == 1)
    await settle()
    assert alice.wire.open
    await send(core, "one")
    await until(lambda: alice.page.texts == ["one"])
    assert len(core.hub) == 1 and len(gateway.sockets) == 1


async def test_an_older_socket_that_tries_again_takes_nothing_from_the_newer(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await subscribed(gateway, core, ALICE)
    attach, failing = core.sessions.attach, [True]

    async def fails_first(*args: object) -> object:
        if failing[0]:
            failing[0] = False
            raise Unavailable("away")
        return await attach(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(core.sessions, "attach", fails_first)
    old = alice.open()
    await until(lambda: not failing[0])
    new = alice.open()
    await settle()
    await until(lambda: not old.open)
    assert new.open and old.closing is not None and old.closing[1] == 1000
    await send(core, "one")
    await until(lambda: alice.page.texts == ["one"])


async def test_a_store_that_is_away_closes_no_socket(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await subscribed(gateway, core, ALICE)
    attach, left = core.sessions.attach, [5]

    async def failing(*args: object) -> object:
        if left[0]:
            left[0] -= 1
            raise Unavailable("away")
        return await attach(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(core.sessions, "attach", failing)
    await alice.connect()
    await send(core, "one")
    await until(lambda: alice.page.texts == ["one"])
    assert alice.wire.closing is None and len(alice.wires) == 1


@pytest.mark.parametrize("error", [InternalError("a defect"), RuntimeError("a defect")])
async def test_a_defect_keeps_the_client_away(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    alice = await subscribed(gateway, core, ALICE)

    async def failing(*_: object) -> object:
        raise error

    monkeypatch.setattr(core.sessions, "attach", failing)
    alice.open()
    await until(lambda: alice.wire.closing is not None)
    assert alice.wire.closing == (CloseReason.INTERNAL, 1000)
    await settle()


async def test_a_socket_that_is_gone_before_it_has_its_session_leaves_nothing(gateway: Gateway, core: Core) -> None:
    alice = await subscribed(gateway, core, ALICE)
    for delay in range(12):
        wire = alice.open()
        for _ in range(delay):
            await asyncio.sleep(0)
        wire.cut()
        await settle()
        assert core.hub.get(alice.id) is None and not gateway.sockets
    await alice.connect()
    await send(core, "one")
    await until(lambda: alice.page.texts == ["one"])


# --- tokens


async def test_a_token_of_the_same_user_may_stand_beside_the_channel(
    gateway: Gateway, core: Core, application: Application
) -> None:
    await core.users.set_password(application, ALICE, PASSWORD)
    alice = await subscribed(gateway, core, ALICE)
    tokens = await core.logins.log_in(application, ALICE, PasswordProof(ALICE, PASSWORD), None, CLIENT)
    alice.open(proof=AccessProof(tokens.access))
    await settle()
    assert alice.wire.closing is None and core.hub.get(alice.id) is not None


async def test_a_token_of_another_user_beside_the_channel_is_refused(
    gateway: Gateway, core: Core, application: Application
) -> None:
    alice = await subscribed(gateway, core, ALICE)
    await core.users.set_password(application, BOB, PASSWORD)
    tokens = await core.logins.log_in(application, BOB, PasswordProof(BOB, PASSWORD), None, CLIENT)
    for proof in (AccessProof(tokens.access), AccessProof(tokens.refresh), AccessProof("nonsense")):
        wire = alice.open(proof=proof)
        await until(lambda: wire.closing is not None)  # noqa: B023 - looked at before the next round
        assert wire.closing == (CloseReason.ACCESS_DENIED, 1000) and wire.sent == []
        await settle()
        assert core.hub.get(alice.id) is None


# --- nothing is left behind


async def test_a_socket_that_is_closed_leaves_nothing_in_the_hub(
    gateway: Gateway, core: Core, application: Application
) -> None:
    alice = await connected(gateway, core)
    await alice.watch(BOB, "carol@example.com")
    await until(lambda: len(alice.page.told) == 2)
    await alice.lose()
    assert not core.hub._topics and not gateway.sockets
    assert not core.broker._heard  # type: ignore[attr-defined]
    session = (await core.sessions.show(alice.id)).session
    assert set(session.positions) == {user_topic(alice.user_id), application_topic(application.id)}


async def test_blocks_silence_presence_but_not_what_was_written_before(
    gateway: Gateway, core: Core, application: Application
) -> None:
    await send(core, "before")
    alice, bob = await subscribed(gateway, core, ALICE), await connected(gateway, core, BOB)
    await core.users.block(application, alice.user_id, bob.user_id)
    await alice.connect()
    await alice.watch(BOB)
    await until(lambda: alice.page.shown == {BOB: ("closed", "unknown", "")})
    await choose(core, BOB, Activity.BUSY)
    await core.users.change(application, alice.user_id, UserChanges(display_name="Alice"))
    assert alice.page.told == [(BOB, "unknown")] and alice.page.texts == ["before"]
