"""Subscriptions and used tokens."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from tests.contract.systems import START, System, a_session

from offhook.codes import EndReason
from offhook.domain.accounts import User
from offhook.domain.sessions import Session, SessionState, end
from offhook.domain.subscriptions import CALL, IM, PRESENCE, Outline, Owed, Product, Subscription
from offhook.errors import NotFound
from offhook.ports import Transaction

FULL = Subscription(
    0,
    Product.UC,
    (IM, CALL, PRESENCE),
    90.5,
    localization="Français",
    correlator="☎",
    login="login-1",
    device="device-1",
    watched=("bob@example.com", "josé"),
    owed=(Owed("josé", 7), Owed("bob@example.com", 2)),
    backlog=2**50,
    version=7,
)


async def session(system: System, user: User, **values: object) -> Session:
    return await system.store.transact(lambda tx: tx.sessions.add(a_session(user, **values)))


async def add(system: System, subscription: Subscription) -> Subscription:
    await system.store.transact(lambda tx: tx.subscriptions.add(subscription))
    return subscription


async def get(system: System, session_id: int) -> Subscription | None:
    return await system.store.query(lambda tx: tx.subscriptions.get(session_id))


def save(subscription: Subscription, tx: Transaction) -> None:
    tx.subscriptions.save(subscription)


async def test_every_field_comes_back(system: System) -> None:
    user = await system.user(await system.application())
    one, other = await session(system, user), await session(system, user)
    full = await add(system, replace(FULL, session_id=one.id))
    plain = await add(system, Subscription(other.id, Product.LINK, (CALL,), 3600.0))
    assert await get(system, one.id) == full
    assert await get(system, other.id) == plain
    assert await get(system, 99) is None


async def test_a_subscription_is_added_with_its_session(system: System) -> None:
    user = await system.user(await system.application())

    def begin(tx: Transaction) -> Subscription:
        subscription = replace(FULL, session_id=tx.sessions.add(a_session(user, state=SessionState.STARTING)).id)
        tx.subscriptions.add(subscription)
        assert tx.subscriptions.get(subscription.session_id) == subscription
        return subscription

    added = await system.store.transact(begin)
    assert await get(system, added.session_id) == added
    with pytest.raises(NotFound):
        await add(system, replace(FULL, session_id=added.session_id + 1))


async def test_save_stores_every_field_of_that_one(system: System) -> None:
    user = await system.user(await system.application())
    one, other = await session(system, user), await session(system, user)
    await add(system, Subscription(one.id, Product.LINK, (CALL,), 3600.0))
    untouched = await add(system, Subscription(other.id, Product.LINK, (CALL,), 3600.0))
    for state in (replace(FULL, session_id=one.id), Subscription(one.id, Product.ANONYMOUS, (), 60.0, version=9)):
        await system.store.transact(partial(save, state))
        assert await get(system, one.id) == state
    assert await get(system, other.id) == untouched
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.subscriptions.save(replace(FULL, session_id=99)))


async def test_live_of_are_those_of_the_users_sessions_that_have_not_ended_oldest_first(system: System) -> None:
    alice, bob = await system.users(await system.application(), "alice", "bob")
    states = (SessionState.SUSPENDED, SessionState.STARTING, SessionState.ACTIVE)
    live = [await session(system, alice, state=state) for state in states]
    await session(system, alice)  # no subscription
    gone = await session(system, alice, state=SessionState.ENDED, ended_at=START, end_reason=EndReason.CLIENT)
    foreign = await session(system, bob)
    for each in (live[1], foreign, gone, live[0], live[2]):
        await add(system, replace(FULL, session_id=each.id))
    found = await system.store.query(lambda tx: tx.subscriptions.live_of(alice.id))
    assert list(found) == [
        Outline(each.id, FULL.product, FULL.services, FULL.correlator, FULL.login, FULL.device) for each in live
    ]
    over = end(live[0], START, EndReason.CLIENT)
    await system.store.transact(lambda tx: tx.sessions.save(over))
    found = await system.store.query(lambda tx: tx.subscriptions.live_of(alice.id))
    assert [each.session_id for each in found] == [live[1].id, live[2].id]
    assert await system.store.query(lambda tx: tx.subscriptions.live_of(99)) == []


async def test_anonymous_counts_the_live_ones_of_nobody_in_an_application(system: System) -> None:
    one, other = await system.application("one"), await system.application("other")
    nobody, elsewhere = (User(0, app.id, "anonymous", "anonymous", START) for app in (one, other))
    alice = await system.user(one)
    sessions = [
        await session(system, nobody),
        await session(system, nobody, state=SessionState.STARTING),
        await session(system, elsewhere),
        await session(system, alice),
    ]
    for each in sessions:
        await add(system, replace(FULL, session_id=each.id))

    async def counts() -> list[int]:
        return await system.store.query(lambda tx: [tx.subscriptions.anonymous(app) for app in (one.id, other.id, 99)])

    assert await counts() == [2, 1, 0]
    over = end(sessions[0], START, EndReason.CLIENT)
    await system.store.transact(lambda tx: tx.sessions.save(over))
    assert await counts() == [1, 1, 0]


async def test_a_subscription_goes_with_its_session_and_its_application(system: System) -> None:
    kept, gone = await system.application("kept"), await system.application("gone")
    (alice,), (bob,) = await system.users(kept, "alice"), await system.users(gone, "bob")
    past = await session(system, alice, state=SessionState.ENDED, ended_at=START, end_reason=EndReason.CLIENT)
    alive, foreign = await session(system, alice), await session(system, bob)
    for each in (past, alive, foreign):
        await add(system, replace(FULL, session_id=each.id))
    assert await system.store.transact(lambda tx: tx.sessions.forget(START + timedelta(1), 10)) == 1
    await system.store.transact(lambda tx: tx.applications.delete(gone.id))
    assert await get(system, past.id) is None
    assert await get(system, foreign.id) is None
    await system.store.transact(lambda tx: tx.users.delete(kept.id, alice.id))
    assert await get(system, alive.id) == replace(FULL, session_id=alive.id)


async def test_a_token_is_used_once(system: System) -> None:
    until = START + timedelta(hours=1)

    def twice(tx: Transaction) -> list[bool]:
        return [tx.use_token(digest, until) for digest in ("a", "b", "a")]

    assert await system.store.transact(twice) == [True, True, False]
    later = until + timedelta(hours=1)
    assert await system.store.transact(lambda tx: tx.use_token("b", later)) is False
    assert await system.store.transact(lambda tx: tx.use_token("☎", until)) is True


async def test_what_fails_after_a_token_was_used_leaves_it_unused(system: System) -> None:
    def fail(tx: Transaction) -> None:
        assert tx.use_token("a", START)
        raise NotFound("no such thing")

    with pytest.raises(NotFound):
        await system.store.transact(fail)
    assert await system.store.transact(lambda tx: tx.use_token("a", START)) is True


async def test_tokens_are_forgotten_once_their_time_is_up(system: System) -> None:
    def use(tx: Transaction) -> list[bool]:
        return [tx.use_token(str(number), START + timedelta(seconds=number)) for number in range(5)]

    assert all(await system.store.transact(use))
    before = START + timedelta(seconds=3)
    assert await system.store.transact(lambda tx: tx.forget_tokens(before, 2)) == 2
    assert await system.store.transact(lambda tx: tx.forget_tokens(before, 2)) == 1
    assert await system.store.transact(lambda tx: tx.forget_tokens(before, 2)) == 0
    assert await system.store.transact(use) == [True, True, True, False, False]
