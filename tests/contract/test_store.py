"""Transactions: atomic, durable when acknowledged, delivered in order, and each on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from tests.contract.systems import NODE, Engine, System, a_session, a_user

from offhook.domain.accounts import Application, User, UserChanges, UserFilter
from offhook.domain.events import (
    Origin,
    Position,
    PresenceChanged,
    UserDeleted,
    UserUpdated,
    application_topic,
    name_in,
    user_topic,
)
from offhook.domain.values import PageRequest
from offhook.errors import Conflict, InvalidInput, Unavailable
from offhook.ports import Transaction

EVERYTHING = PageRequest(size=10_000)


async def names(system: System, application: Application) -> set[str]:
    """The users that are stored."""
    page = await system.store.query(
        lambda tx: [user.name for user in tx.users.list(application.id, UserFilter(), EVERYTHING).items]
    )
    return set(page)


def get(application_id: int, user_id: int, tx: Transaction) -> User | None:
    return tx.users.get(application_id, user_id)


async def test_transact_returns_what_the_work_returns(system: System) -> None:
    assert await system.store.transact(lambda tx: ("a", 1)) == ("a", 1)
    assert await system.store.query(lambda tx: tx.applications.list()) == []


async def test_what_was_transacted_is_seen_by_the_next_query(system: System) -> None:
    application = await system.application()
    for number in range(50):
        user = await system.user(application, f"user-{number}")
        assert await system.store.query(partial(get, application.id, user.id)) == user


async def test_a_unit_that_raises_stores_nothing_and_tells_its_caller(system: System) -> None:
    application = await system.application()

    def work(tx: Transaction) -> None:
        user = tx.users.add(a_user(application.id, "ghost"))
        tx.sessions.add(a_session(user))
        tx.publish(user_topic(user.id), UserUpdated(user))
        raise Conflict("no")

    await system.broker.subscribe(user_topic(1))
    with pytest.raises(Conflict, match="no"):
        await system.store.transact(work)
    assert await names(system, application) == set()
    assert await system.store.query(lambda tx: tx.sessions.active_nodes()) == []
    assert system.heard == []
    assert await system.store.query(lambda tx: tx.head(user_topic(1)).offset) == 0


@pytest.mark.parametrize("error", [ValueError("bad"), StopIteration(3), KeyError("x"), asyncio.CancelledError()])
async def test_any_exception_reaches_the_caller_and_harms_no_one(system: System, error: BaseException) -> None:
    application = await system.application()

    def work(tx: Transaction) -> None:
        tx.users.add(a_user(application.id, "ghost"))
        raise error

    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        await system.store.transact(work)
    await system.user(application, "bob")
    assert await names(system, application) == {"bob"}


async def test_concurrent_units_fail_alone_and_publish_in_the_order_of_their_commits(system: System) -> None:
    application = await system.application()
    topic = application_topic(application.id)
    await system.broker.subscribe(topic)

    def unit(number: int) -> Callable[[Transaction], User]:
        def work(tx: Transaction) -> User:
            user = tx.users.add(a_user(application.id, f"user-{number}"))
            tx.users.set_online(user, True)
            tx.sessions.add(a_session(user))
            tx.publish(topic, UserUpdated(user))
            if number % 10 == 3:
                tx.publish(topic, UserDeleted(user))
                raise Conflict(f"no {number}")
            return user

        return work

    outcomes = await asyncio.gather(
        *(system.store.transact(unit(number)) for number in range(100)), return_exceptions=True
    )
    failed = {number for number, outcome in enumerate(outcomes) if isinstance(outcome, Conflict)}
    assert failed == {number for number in range(100) if number % 10 == 3}
    stored = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert await names(system, application) == {f"user-{n}" for n in range(100)} - {f"user-{n}" for n in failed}
    # Each was told once, in the order of the commits, with nothing between.
    assert [publication.position.offset for publication in system.heard] == list(range(1, 91))
    assert sorted(name_in(p.event) for p in system.heard) == sorted(user.name for user in stored)
    head = await system.store.query(lambda tx: tx.head(topic))
    recorded = await system.broker.history(topic, Position(head.epoch, 0), 100)
    assert [(p.position, p.event) for p in recorded] == [(p.position, p.event) for p in system.heard]
    assert list(await system.broker.history(topic, head, 10)) == []


async def test_a_unit_sees_its_own_changes_and_those_before_it(system: System) -> None:
    application = await system.application()

    def count(tx: Transaction) -> int:
        tx.users.add(a_user(application.id, f"user-{tx.users.count(application.id, UserFilter())}"))
        return tx.users.count(application.id, UserFilter())

    assert [await system.store.transact(count) for _ in range(30)] == list(range(1, 31))


async def test_units_that_change_the_same_user_do_so_one_after_the_other(system: System) -> None:
    application = await system.application()
    user = await system.user(application)

    def count(tx: Transaction) -> None:
        stored = tx.users.get(application.id, user.id)
        assert stored is not None
        tx.users.change(stored, UserChanges(properties={"count": stored.properties.get("count", 0) + 1}))  # type: ignore[operator]

    await asyncio.gather(*(system.store.transact(count) for _ in range(100)))
    counted = await system.store.query(partial(get, application.id, user.id))
    assert counted is not None and counted.properties == {"count": 100}


async def test_a_publication_is_delivered_after_its_commit_and_before_its_caller_goes_on(engine: Engine) -> None:
    system = await engine.open()
    application = await system.application()
    topic = application_topic(application.id)
    await system.broker.subscribe(topic)

    def work(tx: Transaction) -> User:
        user = tx.users.add(a_user(application.id))
        tx.publish(topic, UserUpdated(user), Origin(7, "receipt-1"))
        assert system.heard == []
        return user

    user = await system.store.transact(work)
    (publication,) = system.heard
    assert publication.event == UserUpdated(user)
    assert publication.topic == topic
    assert publication.origin == Origin(7, "receipt-1")
    assert publication.position == await system.broker.position(topic)
    await system.close()


async def test_topics_count_each_on_its_own(system: System) -> None:
    application = await system.application()
    alice, bob = await system.users(application, "alice", "bob")

    def work(tx: Transaction) -> list[int]:
        heads = [tx.head(user_topic(alice.id)).offset]
        for _ in range(3):
            tx.publish(user_topic(alice.id), UserUpdated(alice))
            heads.append(tx.head(user_topic(alice.id)).offset)
        tx.publish(user_topic(bob.id), UserUpdated(bob))
        return [*heads, tx.head(user_topic(bob.id)).offset, tx.head(user_topic(alice.id)).offset]

    assert await system.store.transact(work) == [0, 1, 2, 3, 1, 3]
    head = await system.store.query(lambda tx: tx.head(user_topic(alice.id)))
    assert head == await system.broker.position(user_topic(alice.id))
    assert head.offset == 3


async def test_large_batches(system: System) -> None:
    application = await system.application()
    topic = application_topic(application.id)
    await system.broker.subscribe(topic)

    def add(name: str) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            user = tx.users.add(a_user(application.id, name))
            tx.publish(topic, PresenceChanged(user))

        return work

    await asyncio.gather(*(system.store.transact(add(f"u{number}")) for number in range(1000)))
    assert [publication.position.offset for publication in system.heard] == list(range(1, 1001))
    assert await system.store.query(lambda tx: tx.users.count(application.id, UserFilter())) == 1000


async def test_a_query_cannot_write(system: System) -> None:
    application = await system.application()
    user = await system.user(application)
    with pytest.raises(RuntimeError, match="only read"):
        await system.store.query(lambda tx: tx.users.add(a_user(application.id, "bob")))
    with pytest.raises(RuntimeError, match="only read"):
        await system.store.query(lambda tx: tx.publish(user_topic(user.id), UserUpdated(user)))
    with pytest.raises(RuntimeError, match="only read"):
        await system.store.query(lambda tx: tx.users.delete(application.id, user.id))
    assert await names(system, application) == {"alice"}
    assert await system.store.query(lambda tx: tx.head(user_topic(user.id)).offset) == 0


async def test_a_query_sees_one_snapshot(system: System) -> None:
    application = await system.application()

    async def add_pairs() -> None:
        for number in range(40):
            await system.users(application, f"{number}a", f"{number}b")

    def odd(tx: Transaction) -> int:
        return sum(tx.users.count(application.id, UserFilter()) % 2 for _ in range(5))

    adding = asyncio.create_task(add_pairs())
    while not adding.done():
        assert await system.store.query(odd) == 0
    await adding


async def test_values_that_no_database_takes_are_invalid_input(system: System) -> None:
    application = await system.application()
    with pytest.raises(InvalidInput):
        await system.store.query(lambda tx: tx.users.get(application.id, 2**64))
    with pytest.raises(InvalidInput):
        await system.store.query(lambda tx: tx.users.by_name(application.id, "\ud800"))
    user = await system.user(application)
    with pytest.raises(InvalidInput):
        await system.store.transact(lambda tx: tx.users.change(user, UserChanges(properties={"a": "\udfff"})))
    broken = a_user(application.id, display_name="\udfff")
    with pytest.raises(InvalidInput):
        await system.store.transact(lambda tx: tx.publish(user_topic(user.id), UserUpdated(broken)))
    await system.store.transact(lambda tx: tx.publish(user_topic(user.id), UserUpdated(user)))
    assert (await system.broker.position(user_topic(user.id))).offset == 1


async def test_work_goes_on_when_its_caller_is_cancelled(system: System) -> None:
    application = await system.application()
    waiting = asyncio.create_task(system.user(application, "bob"))
    await asyncio.sleep(0)  # It has handed its work over.
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await system.user(application, "carol")
    assert await names(system, application) == {"bob", "carol"}


async def test_close_waits_for_work_and_refuses_more(engine: Engine) -> None:
    system = await engine.open()
    application = await system.application()
    working = [asyncio.create_task(system.user(application, f"user-{number}")) for number in range(20)]
    await asyncio.sleep(0)
    await asyncio.gather(system.store.close(), system.store.close())
    assert {user.name for user in await asyncio.gather(*working)} == {f"user-{n}" for n in range(20)}
    await system.store.close()
    with pytest.raises(Unavailable):
        await system.store.transact(lambda tx: tx.applications.list())
    with pytest.raises(Unavailable):
        await system.store.query(lambda tx: tx.applications.list())
    again = await engine.open()
    assert await names(again, application) == {f"user-{number}" for number in range(20)}
    assert await again.broker.send(NODE, object()) is True  # type: ignore[arg-type]
    await again.close()
