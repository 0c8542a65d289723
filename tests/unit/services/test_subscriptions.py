"""Subscriptions on a real core: made, connected, renewed, replaced and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.kandy import (
    ALICE,
    BOB,
    CLIENT,
    EVERYTHING,
    Line,
    attach,
    connected,
    online,
    session_of,
    subscribe,
    user_of,
)
from tests.unit.services.support import Outlet, lose, sessions_of, set_policy, start, story_of, until

from offhook.codes import CloseReason, EndReason
from offhook.core import Core
from offhook.domain.accounts import Application, DuplicatePolicy
from offhook.domain.events import PresenceChanged
from offhook.domain.presence import NOT_THERE, Activity, Presence
from offhook.domain.sessions import SessionState, StoryKind
from offhook.domain.subscriptions import CALL, CALL_ME, IM, PRESENCE, RENEWAL_GRACE, Owed, Product, Subscription
from offhook.errors import (
    AccessDenied,
    InvalidInput,
    NotFound,
    NotSubscribed,
    SessionLimitReached,
    Unavailable,
    UserDisabled,
)
from offhook.services.applications import ApplicationChanges
from offhook.services.credentials import Identity, PasswordProof
from offhook.services.starting import SETTLING
from offhook.services.subscriptions import MAX_ANONYMOUS, Wanted, Watching

WAIT, GRACE = 60.0, 60.0


async def stored(core: Core, line: Line) -> Subscription:
    found = await core.store.query(lambda tx: tx.subscriptions.get(line.id))
    assert found is not None
    return found


async def break_off(core: Core, line: Line) -> None:
    assert line.live is not None
    await core.sessions.suspend(line.live, CloseReason.PEER_LOST)


async def transitions(core: Core, name: str) -> Callable[[], list[bool]]:
    """Watches who comes online and goes; call what is returned for what there was so far."""
    witness = await start(core, "witness")

    def heard() -> list[bool]:
        events = [event for event in witness.outlet.events if isinstance(event, PresenceChanged)]
        return [event.user.online for event in events if event.user.name == name]

    return heard


# --- made


async def test_a_subscription_waits_for_its_socket_and_is_there_then(core: Core, application: Application) -> None:
    line = await subscribe(core, ALICE, CALL, PRESENCE, "MWI", lifetime=120.0, correlator="cc")
    session, subscription = line.opened.session, line.opened.subscription
    assert (session.state, session.generation, session.announces) == (SessionState.STARTING, 0, True)
    assert (subscription.services, subscription.lifetime, subscription.correlator) == ((CALL, PRESENCE), 120.0, "cc")
    assert session.expires_at is not None
    assert (session.expires_at - session.started_at).total_seconds() == 120.0 + RENEWAL_GRACE
    assert line.opened.hmac_session is not None
    assert not await online(core) and len(core.hub) == 0
    live = await attach(core, line)
    assert live is not None and live.record.generation == 1 and live.subscription == subscription
    assert await online(core) and core.hub.get(line.id) is live
    assert await story_of(core, line.id) == [StoryKind.STARTED, StoryKind.CONNECTED]


async def test_nothing_is_made_for_services_that_there_are_not(core: Core) -> None:
    with pytest.raises(InvalidInput):
        await subscribe(core, ALICE, "im", "callMe")
    assert not await sessions_of(core, ALICE)


async def test_wrong_credentials_make_nothing(core: Core, application: Application) -> None:
    await core.users.create(application, ALICE, password="alice's word")
    for name, word in ((ALICE, "no"), (BOB, "alice's word")):
        with pytest.raises(AccessDenied):
            proofs = [PasswordProof(name, word)]
            await core.subscriptions.create(application, name, proofs, Wanted(EVERYTHING), CLIENT)
    assert not await sessions_of(core, ALICE)
    assert core.metrics.session_starts.value("access_denied", "none") == 2


async def test_a_disabled_user_or_application_makes_and_connects_nothing(core: Core, application: Application) -> None:
    first, second = await subscribe(core), await connected(core)
    await core.users.set_enabled(application, ALICE, False)
    assert await attach(core, first) is None
    await until(lambda: bool(second.outlet.ends))
    assert second.outlet.ends[0][0] is EndReason.USER_DISABLED
    with pytest.raises(UserDisabled):
        await subscribe(core)
    await core.users.set_enabled(application, ALICE, True)
    third = await subscribe(core)
    await core.applications.change("default", ApplicationChanges(enabled=False))
    assert await attach(core, third) is None
    assert (await session_of(core, third)).end_reason is EndReason.APPLICATION_CLOSED


# --- time


async def test_without_a_socket_in_time_it_ends(core: Core, clock: ManualClock) -> None:
    await set_policy(core, socket_wait=WAIT)
    line = await subscribe(core)
    clock.advance(WAIT - 0.1)
    await core.reaper.sweep()
    assert (await session_of(core, line)).live
    # Renewing keeps nobody waiting for longer.
    await core.subscriptions.renew(await user_of(core), line.id, Wanted(EVERYTHING))
    clock.advance(0.1)
    assert await attach(core, line) is None
    await core.reaper.sweep()
    assert (await session_of(core, line)).end_reason is EndReason.NOT_CONNECTED
    assert not await online(core)


@pytest.mark.parametrize("away", [False, True])
async def test_without_a_renewal_it_ends_connected_or_not(core: Core, clock: ManualClock, away: bool) -> None:
    line = await connected(core, lifetime=300.0)
    if away:
        await break_off(core, line)
    clock.advance(300 + RENEWAL_GRACE - 0.1)
    await core.reaper.sweep()
    assert (await session_of(core, line)).live
    clock.advance(0.1)
    await core.reaper.sweep()
    assert (await session_of(core, line)).end_reason is EndReason.NOT_RENEWED
    if not away:
        await until(lambda: bool(line.outlet.ends))
        assert line.outlet.ends[0][0] is EndReason.NOT_RENEWED
    assert not await online(core) and core.hub.get(line.id) is None


@pytest.mark.parametrize("away", [False, True])
async def test_renewals_keep_it_alive(core: Core, clock: ManualClock, away: bool) -> None:
    line = await connected(core, lifetime=300.0)
    for number in range(5):
        if away and number == 2:
            await break_off(core, line)
        clock.advance(299)
        await core.reaper.sweep()
        opened = await core.subscriptions.renew(await user_of(core), line.id, Wanted(EVERYTHING, 300.0))
        assert opened.session.expires_at is not None
        assert (opened.session.expires_at - clock.now()).total_seconds() == 300.0 + RENEWAL_GRACE
    assert await attach(core, line) is not None


async def test_the_user_stays_for_the_grace_of_sockets_and_no_longer(core: Core, clock: ManualClock) -> None:
    await set_policy(core, socket_grace=GRACE, leave_grace=1.0)
    heard = await transitions(core, ALICE)
    line = await connected(core)
    await break_off(core, line)
    clock.advance(GRACE - 0.1)
    await core.reaper.sweep()
    assert await online(core)
    clock.advance(0.1)
    await core.reaper.sweep()
    assert not await online(core) and (await session_of(core, line)).live
    assert await attach(core, line) is not None
    assert heard() == [True, False, True]


# --- login limits


async def fill(core: Core, policy: DuplicatePolicy, *states: str) -> list[Line]:
    """Sessions up to the limit: ``a``ctive, ``s``tarting, or ``b``roken."""
    await set_policy(core, max_sessions=len(states), duplicates=policy)
    lines: list[Line] = []
    for state in states:
        line = await subscribe(core)
        if state != "s":
            await attach(core, line)
        if state == "b":
            await break_off(core, line)
        lines.append(line)
    return lines


async def living(core: Core, lines: list[Line]) -> list[bool]:
    return [(await session_of(core, line)).live for line in lines]


@pytest.mark.parametrize(
    ("policy", "force", "expected"),
    [
        (DuplicatePolicy.END_OLDEST, False, [False, True, True]),
        (DuplicatePolicy.END_OLDEST, True, [False, True, True]),
        (DuplicatePolicy.END_NEWEST, False, [True, True, False]),
        (DuplicatePolicy.END_NEWEST, True, [False, True, True]),
        (DuplicatePolicy.REJECT_NEW, True, [False, True, True]),
    ],
)
async def test_one_too_many_ends_one(core: Core, policy: DuplicatePolicy, force: bool, expected: list[bool]) -> None:
    lines = await fill(core, policy, "a", "a", "a")
    await subscribe(core, force=force)
    assert await living(core, lines) == expected
    (ended,) = [line for line, lives in zip(lines, expected, strict=True) if not lives]
    await until(lambda: bool(ended.outlet.ends))
    assert ended.outlet.ends == [(EndReason.REPLACED, "")]


async def test_one_too_many_is_refused_if_the_application_says_so(core: Core) -> None:
    lines = await fill(core, DuplicatePolicy.REJECT_NEW, "a", "a")
    with pytest.raises(SessionLimitReached):
        await subscribe(core)
    assert await living(core, lines) == [True, True]
    assert len(await sessions_of(core, ALICE)) == 2


@pytest.mark.parametrize("policy", list(DuplicatePolicy))
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("states", "gone"), [("aab", 2), ("abs", 1), ("sba", 1), ("bbb", 0)])
async def test_those_whose_socket_broke_go_first_whatever_the_policy(
    core: Core, policy: DuplicatePolicy, force: bool, states: str, gone: int
) -> None:
    lines = await fill(core, policy, *states)
    await subscribe(core, force=force)
    assert await living(core, lines) == [index != gone for index in range(3)]


@pytest.mark.parametrize("states", ["asa", "sss", "saa"])
async def test_those_whose_socket_is_still_to_come_count_as_connected(core: Core, states: str) -> None:
    lines = await fill(core, DuplicatePolicy.REJECT_NEW, *states)
    with pytest.raises(SessionLimitReached):
        await subscribe(core)
    assert await living(core, lines) == [True, True, True]
    await subscribe(core, force=True)
    assert await living(core, lines) == [False, True, True]


async def test_those_whose_socket_does_not_come_count_no_more(core: Core, clock: ManualClock) -> None:
    lines = await fill(core, DuplicatePolicy.REJECT_NEW, "a", "s")
    clock.advance(SETTLING)
    await subscribe(core)
    assert await living(core, lines) == [True, False]


async def test_force_below_the_limit_ends_nobody(core: Core) -> None:
    lines = [await connected(core), await subscribe(core)]
    await subscribe(core, force=True)
    assert await living(core, lines) == [True, True]


# --- presence


async def test_nobody_flickers_when_a_forced_login_replaces_the_only_session(core: Core, clock: ManualClock) -> None:
    await set_policy(core, max_sessions=1, socket_wait=WAIT)
    heard = await transitions(core, ALICE)
    await connected(core)
    new = await subscribe(core, force=True)
    await core.reaper.sweep()
    assert await online(core)
    clock.advance(WAIT / 2)
    await core.reaper.sweep()
    await attach(core, new)
    assert heard() == [True]


async def test_a_forced_login_that_never_connects_leaves_in_the_end(core: Core, clock: ManualClock) -> None:
    await set_policy(core, max_sessions=1, socket_wait=WAIT)
    heard = await transitions(core, ALICE)
    await connected(core)
    await subscribe(core, force=True)
    clock.advance(WAIT)
    await core.reaper.sweep()
    assert heard() == [True, False] and not await online(core)


async def test_a_login_without_presence_takes_the_place_and_the_user_goes(core: Core) -> None:
    await set_policy(core, max_sessions=1)
    await connected(core)
    await connected(core, ALICE, CALL, IM)
    assert not await online(core)


async def test_presence_comes_and_goes_with_the_service(core: Core) -> None:
    heard = await transitions(core, ALICE)
    line = await connected(core, ALICE, CALL)
    assert not await online(core)
    user = await user_of(core)
    for services in ((CALL, PRESENCE), (CALL, PRESENCE, IM), (CALL,), (IM,), (PRESENCE,)):
        await core.subscriptions.renew(user, line.id, Wanted(services))
        assert await online(core) is (PRESENCE in services)
    assert heard() == [True, False, True]
    await until(lambda: line.outlet.changes == 5)


async def test_presence_that_is_asked_for_before_the_socket_begins_with_it(core: Core) -> None:
    line = await subscribe(core, ALICE, CALL)
    await core.subscriptions.renew(await user_of(core), line.id, Wanted((PRESENCE,)))
    assert not await online(core)
    await attach(core, line)
    assert await online(core)


async def test_presence_that_is_given_up_before_the_socket_comes_back_only_with_it(core: Core) -> None:
    first, user = await connected(core), await user_of(core)
    waiting, silent = await subscribe(core, ALICE), await subscribe(core, ALICE, CALL)
    await core.subscriptions.end(user, first.id)
    # Who is online stays so while the one that is to go on connects.
    assert await online(core)
    await core.subscriptions.renew(user, waiting.id, Wanted((CALL,)))
    assert not await online(core)
    await core.subscriptions.renew(user, waiting.id, Wanted((CALL, PRESENCE)))
    assert not await online(core)
    await attach(core, silent)
    assert not await online(core)
    await attach(core, waiting)
    assert await online(core)


async def test_one_of_several_devices_is_enough(core: Core) -> None:
    heard = await transitions(core, ALICE)
    first, second = await connected(core), await connected(core)
    chat = await start(core, ALICE)
    user = await user_of(core)
    assert await core.subscriptions.end(user, first.id)
    await lose(core, chat)
    await core.subscriptions.renew(user, second.id, Wanted((CALL,)))
    assert await online(core)
    await core.sessions.end(chat.id, EndReason.OPERATOR)
    assert not await online(core) and heard() == [True, False]


# --- renewed and ended


async def test_the_ids_of_others_are_unknown(core: Core) -> None:
    line = await connected(core)
    await connected(core, BOB)
    bob = await user_of(core, BOB)
    for key in (line.id, 999, "cc"):
        with pytest.raises(NotFound):
            await core.subscriptions.renew(bob, key, Wanted(EVERYTHING))
    assert not await core.subscriptions.end(bob, line.id)
    assert (await session_of(core, line)).live


async def test_sessions_of_chatkitty_are_no_subscriptions(core: Core) -> None:
    chat = await start(core, ALICE)
    user = await user_of(core)
    with pytest.raises(NotFound):
        await core.subscriptions.renew(user, chat.id, Wanted(EVERYTHING))
    assert not await core.subscriptions.end(user, chat.id)
    assert await core.sessions.attach(chat.id, CLIENT, Outlet()) is None
    assert core.hub.get(chat.id) is chat.live


async def test_what_has_ended_is_neither_renewed_nor_connected_nor_ended_again(core: Core, clock: ManualClock) -> None:
    ended, expired, user = await connected(core), await connected(core, lifetime=60.0), await user_of(core)
    assert await core.subscriptions.end(user, ended.id)
    await until(lambda: bool(ended.outlet.ends))
    assert ended.outlet.ends == [(EndReason.CLIENT, "")]
    clock.advance(60 + RENEWAL_GRACE)
    # Nobody has swept yet.
    for line in (ended, expired):
        with pytest.raises(NotFound):
            await core.subscriptions.renew(user, line.id, Wanted(EVERYTHING))
        assert await core.sessions.attach(line.id, CLIENT, Outlet()) is None
    assert not await core.subscriptions.end(user, ended.id)


async def test_the_correlator_names_the_latest(core: Core) -> None:
    first = await subscribe(core, correlator="cc")
    second = await subscribe(core, correlator="cc")
    user = await user_of(core)
    assert (await core.subscriptions.renew(user, "cc", Wanted((CALL,)))).session.id == second.id
    assert await core.subscriptions.end(user, second.id)
    assert (await core.subscriptions.renew(user, "cc", Wanted((CALL,)))).session.id == first.id
    assert (await stored(core, first)).correlator == "cc"
    with pytest.raises(InvalidInput):
        await core.subscriptions.renew(user, "cc", Wanted(("nothing",)))


async def test_whose_a_subscription_is(core: Core, application: Application) -> None:
    line = await subscribe(core)
    assert await core.subscriptions.holder(line.id) == (application, ALICE)
    await core.sessions.end(line.id, EndReason.OPERATOR)
    assert await core.subscriptions.holder(line.id) is None
    assert await core.subscriptions.holder(999) is None


# --- connected again


async def test_a_newer_socket_has_the_session(core: Core) -> None:
    line = await connected(core)
    old = line.outlet
    live = await attach(core, line)
    assert live is not None and live.record.generation == 2
    assert old.drops == [CloseReason.SUPERSEDED] and old.ends == [] and len(core.hub) == 1


async def test_many_sockets_at_once_leave_one(core: Core) -> None:
    line = await subscribe(core)
    outlets = [Outlet() for _ in range(8)]
    answers = await asyncio.gather(
        *(core.sessions.attach(line.id, CLIENT, outlet) for outlet in outlets), return_exceptions=True
    )
    winner = core.hub.get(line.id)
    assert winner is not None and len(core.hub) == 1
    for outlet, answer in zip(outlets, answers, strict=True):
        if answer is winner:
            assert outlet.drops == []
        elif isinstance(answer, BaseException):
            assert isinstance(answer, Unavailable)
        else:
            assert outlet.drops == [CloseReason.SUPERSEDED]
    assert (await session_of(core, line)).state is SessionState.ACTIVE
    assert (await session_of(core, line)).generation == winner.record.generation == 8


# --- watching


async def test_a_request_is_for_the_subscription_of_its_credentials_else_its_device_else_all(core: Core) -> None:
    one = await connected(core, device="phone")
    two = await connected(core, device="desk")
    three = await connected(core, ALICE, CALL, device="desk")
    user = await user_of(core)

    async def owed(identity: Identity, device: str, name: str) -> list[int]:
        await core.subscriptions.watch(identity, device, [name], Watching.GET)
        return [
            line.id for line in (one, two, three) if name in {owed.name for owed in (await stored(core, line)).owed}
        ]

    assert await owed(Identity(user, session_id=one.id), "desk", "a") == [one.id]
    assert await owed(Identity(user), "desk", "b") == [two.id]
    assert await owed(Identity(user), "elsewhere", "c") == [one.id, two.id]
    assert await owed(Identity(user, login="unknown"), "phone", "d") in ([one.id], [one.id, two.id])
    # Without presence, there is nothing to watch with.
    assert await owed(Identity(user, session_id=three.id), "desk", "e") == [one.id, two.id]


async def test_who_has_no_presence_watches_nobody(core: Core) -> None:
    await connected(core, ALICE, CALL, IM)
    identity = Identity(await user_of(core))
    for action in Watching:
        with pytest.raises(NotSubscribed):
            await core.subscriptions.watch(identity, "", [BOB], action)
    await core.subscriptions.require(identity, IM)
    with pytest.raises(NotSubscribed):
        await core.subscriptions.require(identity, PRESENCE)


async def test_what_was_got_is_owed_no_more_and_what_was_asked_again_is(core: Core) -> None:
    line = await connected(core)
    identity = Identity(await user_of(core))
    await core.subscriptions.watch(identity, "", [BOB, "carol"], Watching.WATCH)
    got = (await stored(core, line)).owed
    await core.subscriptions.watch(identity, "", [BOB], Watching.GET)
    assert line.live is not None
    await core.subscriptions.shown(line.id, line.live.record.generation, got, dict(line.live.acked))
    after = await stored(core, line)
    assert after.owed == (Owed(BOB, after.version),) and after.watched == (BOB, "carol")
    await core.subscriptions.watch(identity, "", [BOB], Watching.STOP)
    assert (await stored(core, line)).owed == () and (await stored(core, line)).watched == ("carol",)
    await until(lambda: line.outlet.changes == 3)


async def test_presence_is_shown_by_any_spelling_and_hidden_by_blocks(core: Core, application: Application) -> None:
    bob = await connected(core, BOB)
    alice = await connected(core)
    alice_id, bob_id = alice.opened.session.user_id, bob.opened.session.user_id
    names = [BOB, f"sip:{BOB}", f" {BOB}", "nobody", ALICE]
    there = Presence(True, Activity.ACTIVE)
    shown = await core.subscriptions.presence(application.id, alice_id, names)
    assert shown == {BOB: there, f"sip:{BOB}": there, f" {BOB}": there, "nobody": NOT_THERE, ALICE: there}
    await core.users.block(application, bob_id, alice_id)
    shown = await core.subscriptions.presence(application.id, alice_id, names)
    assert shown[BOB] == shown[f"sip:{BOB}"] == NOT_THERE and shown[ALICE] == there


# --- callers without an account


async def test_callers_without_an_account(core: Core, application: Application, clock: ManualClock) -> None:
    await core.users.create(application, BOB)
    opened = await core.subscriptions.create_anonymous(application, BOB, Wanted((CALL_ME,)), CLIENT)
    line = Line(opened)
    assert opened.subscription.product is Product.ANONYMOUS and not opened.session.announces
    live = await attach(core, line)
    assert live is not None and live.user_id == 0
    assert await core.subscriptions.end_anonymous(application, line.id)
    assert not await core.subscriptions.end_anonymous(application, line.id)
    await until(lambda: bool(line.outlet.ends))
    with pytest.raises(NotFound):
        await core.subscriptions.create_anonymous(application, "nobody", Wanted((CALL_ME,)), CLIENT)
    with pytest.raises(InvalidInput):
        await core.subscriptions.create_anonymous(application, BOB, Wanted((CALL,)), CLIENT)


async def test_they_are_not_let_in_without_guests_nor_beyond_their_number(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    await core.users.create(application, BOB)
    monkeypatch.setattr("offhook.services.subscriptions.MAX_ANONYMOUS", 2)
    assert MAX_ANONYMOUS > 2
    for _ in range(2):
        await core.subscriptions.create_anonymous(application, BOB, Wanted((CALL_ME,)), CLIENT)
    with pytest.raises(SessionLimitReached):
        await core.subscriptions.create_anonymous(application, BOB, Wanted((CALL_ME,)), CLIENT)
    closed = await core.applications.change("default", ApplicationChanges(guests=False))
    with pytest.raises(AccessDenied):
        await core.subscriptions.create_anonymous(closed, BOB, Wanted((CALL_ME,)), CLIENT)


async def test_a_user_ends_no_anonymous_subscription_nor_the_reverse(core: Core, application: Application) -> None:
    await core.users.create(application, BOB)
    opened = await core.subscriptions.create_anonymous(application, BOB, Wanted((CALL_ME,)), CLIENT)
    assert not await core.subscriptions.end(await user_of(core, BOB), opened.session.id)
    line = await connected(core)
    assert not await core.subscriptions.end_anonymous(application, line.id)
    elsewhere, _ = await core.applications.create("elsewhere")
    assert not await core.subscriptions.end_anonymous(elsewhere, opened.session.id)
