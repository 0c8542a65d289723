"""Topics, their history, leases and commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from tests.contract.systems import NODE, Engine, System, a_user

from offhook.codes import EndReason
from offhook.domain.accounts import User
from offhook.domain.events import Position, Topic, UserBlocked, UserUpdated, user_topic
from offhook.ports import EVERY_NODE, ApplicationChanged, Command, EndSession, HistoryLost, Publication, Transaction

TOPIC = Topic("user.1")
OTHER = Topic("user.2")
USER = a_user(1, "alice", id=1)


async def publish(system: System, topic: Topic = TOPIC, count: int = 1, user: User = USER) -> Position:
    def work(tx: Transaction) -> Position:
        for _ in range(count):
            tx.publish(topic, UserUpdated(user))
        return tx.head(topic)

    return await system.store.transact(work)


def offsets(publications: Sequence[Publication]) -> list[int]:
    return [publication.position.offset for publication in publications]


async def test_only_topics_that_are_subscribed_are_heard_and_in_order(system: System) -> None:
    await publish(system, count=2)
    await system.broker.subscribe(TOPIC)
    await system.broker.subscribe(TOPIC)
    await publish(system, OTHER)
    await publish(system, count=3)
    assert {publication.topic for publication in system.heard} == {TOPIC}
    assert offsets(system.heard) == [3, 4, 5]
    await system.broker.unsubscribe(TOPIC)
    await system.broker.unsubscribe(TOPIC)
    await publish(system)
    assert offsets(system.heard) == [3, 4, 5]


@pytest.mark.parametrize("subscribed", [False, True])
async def test_position_is_the_place_of_the_last_event(system: System, subscribed: bool) -> None:
    if subscribed:
        await system.broker.subscribe(TOPIC)
    start = await system.broker.position(TOPIC)
    assert start.offset == 0
    last = await publish(system, count=3)
    assert await system.broker.position(TOPIC) == last == Position(start.epoch, 3)
    await publish(system, OTHER)
    assert await system.broker.position(TOPIC) == last


@pytest.mark.parametrize("subscribed", [False, True])
async def test_history_is_what_followed_oldest_first(system: System, subscribed: bool) -> None:
    if subscribed:
        await system.broker.subscribe(TOPIC)
    epoch = (await system.broker.position(TOPIC)).epoch
    assert list(await system.broker.history(TOPIC, Position(epoch, 0), 10)) == []
    users = [a_user(1, f"user-{number}", id=1) for number in range(5)]
    for user in users:
        await publish(system, user=user)
        await publish(system, OTHER)
    everything = await system.broker.history(TOPIC, Position(epoch, 0), 10)
    assert offsets(everything) == [1, 2, 3, 4, 5]
    assert [publication.event for publication in everything] == [UserUpdated(user) for user in users]
    assert {(publication.topic, publication.position.epoch) for publication in everything} == {(TOPIC, epoch)}
    assert offsets(await system.broker.history(TOPIC, Position(epoch, 2), 2)) == [3, 4]
    assert offsets(await system.broker.history(TOPIC, Position(epoch, 4), 10)) == [5]
    assert offsets(await system.broker.history(TOPIC, Position(epoch, 5), 10)) == []


async def test_history_joins_what_was_before_the_subscription_with_what_came_after(system: System) -> None:
    await publish(system, count=300)
    await system.broker.subscribe(TOPIC)
    last = await publish(system, count=300)
    epoch = last.epoch
    seen: list[int] = []
    while page := await system.broker.history(TOPIC, Position(epoch, len(seen)), 70):
        seen += offsets(page)
    assert seen == list(range(1, 601))


@pytest.mark.parametrize("subscribed", [False, True])
async def test_history_is_lost_in_another_epoch_and_ahead_of_the_topic(system: System, subscribed: bool) -> None:
    if subscribed:
        await system.broker.subscribe(TOPIC)
    last = await publish(system, count=3)
    with pytest.raises(HistoryLost):
        await system.broker.history(TOPIC, Position("another", 3), 10)
    with pytest.raises(HistoryLost):
        await system.broker.history(TOPIC, Position(last.epoch, 4), 10)
    with pytest.raises(HistoryLost):
        await system.broker.history(OTHER, Position(last.epoch, 1), 10)


async def lost(system: System, after: Position) -> bool:
    try:
        await system.broker.history(TOPIC, after, 1000)
    except HistoryLost:
        return True
    return False


async def test_history_beyond_its_size_is_lost_and_what_is_left_has_no_gap(engine: Engine) -> None:
    system = await engine.open(history_size=5)
    last = await publish(system, count=50)
    await publish(system, OTHER, count=3)
    start = Position(last.epoch, 0)
    while not await lost(system, start):
        await publish(system, OTHER)
    for offset in range(50):
        after = Position(last.epoch, offset)
        if not await lost(system, after):
            kept = offsets(await system.broker.history(TOPIC, after, 1000))
            assert kept == list(range(offset + 1, 51))
    assert offsets(await system.broker.history(TOPIC, Position(last.epoch, 45), 10)) == [46, 47, 48, 49, 50]
    assert await lost(system, Position(last.epoch, 44))
    assert list(await system.broker.history(TOPIC, last, 10)) == []
    await system.close()


async def test_history_beyond_its_age_is_lost_and_positions_go_on(engine: Engine) -> None:
    system = await engine.open(history_size=4, history_seconds=100)
    last = await publish(system, count=2)
    engine.clock.advance(101)
    while not await lost(system, Position(last.epoch, 1)):
        await publish(system, OTHER)
    assert await system.broker.position(TOPIC) == last
    assert list(await system.broker.history(TOPIC, last, 10)) == []
    assert await publish(system) == Position(last.epoch, 3)
    assert offsets(await system.broker.history(TOPIC, last, 10)) == [3]
    await system.close()


async def test_a_clock_that_was_set_back_leaves_no_hole_in_a_history(engine: Engine) -> None:
    system = await engine.open(history_size=4, history_seconds=100)
    engine.clock.advance(50)
    last = await publish(system)
    engine.clock.advance(-50)
    await publish(system)
    engine.clock.advance(101)
    await publish(system)
    start = Position(last.epoch, 0)
    with pytest.raises(HistoryLost):
        while offsets(await system.broker.history(TOPIC, start, 10)) == [1, 2, 3]:
            await publish(system, OTHER)
    assert offsets(await system.broker.history(TOPIC, Position(last.epoch, 2), 10)) == [3]
    await system.close()


async def test_the_topic_of_a_deleted_user_ends_with_its_history(engine: Engine) -> None:
    system = await engine.open(history_size=4, history_seconds=100)
    user = await system.user(await system.application())
    topic = user_topic(user.id)
    last = await publish(system, topic, 2, user)
    await system.store.transact(lambda tx: tx.users.delete(user.application_id, user.id))
    await publish(system, OTHER)
    assert await system.broker.position(topic) == last
    engine.clock.advance(101)
    while (await system.broker.position(topic)).offset:
        await publish(system, OTHER)
    with pytest.raises(HistoryLost):
        await system.broker.history(topic, last, 10)
    await system.close()


async def test_subscribing_while_others_publish_misses_nothing(system: System) -> None:
    publishing = asyncio.gather(*(publish(system) for _ in range(100)))
    await asyncio.sleep(0)
    await system.broker.subscribe(TOPIC)
    place = await system.broker.position(TOPIC)
    await publishing
    live = [offset for offset in offsets(system.heard) if offset > place.offset]
    assert live == list(range(place.offset + 1, 101))
    assert offsets(await system.broker.history(TOPIC, place, 1000)) == live


async def test_every_kind_of_event_comes_back_as_it_was(system: System) -> None:
    event = UserBlocked(a_user(1, "josé ☎", id=3, properties={"a": [None, 1.5]}), "2026-03-01T00:00:00+00:00")
    await system.store.transact(lambda tx: tx.publish(TOPIC, event))
    place = await system.broker.position(TOPIC)
    (publication,) = await system.broker.history(TOPIC, Position(place.epoch, 0), 10)
    assert publication.event == event


async def test_leases_are_held_by_one_until_they_run_out_or_are_given_back(system: System, engine: Engine) -> None:
    broker, clock = system.broker, engine.clock
    assert await broker.lease_holder("x") is None
    assert await broker.acquire_lease("x", "a", 10) is True
    assert await broker.acquire_lease("x", "b", 10) is False
    assert await broker.acquire_lease("y", "b", 10) is True
    assert (await broker.lease_holder("x"), await broker.lease_holder("y")) == ("a", "b")
    clock.advance(9)
    assert await broker.acquire_lease("x", "a", 10) is True  # renewed: now until 19
    clock.advance(9)
    assert await broker.acquire_lease("x", "b", 10) is False
    assert await broker.lease_holder("x") == "a"
    assert await broker.lease_holder("y") is None
    clock.advance(1)
    assert await broker.lease_holder("x") is None
    assert await broker.acquire_lease("x", "b", 10) is True
    await broker.release_lease("x", "a")
    assert await broker.lease_holder("x") == "b"
    await broker.release_lease("x", "b")
    assert await broker.lease_holder("x") is None
    assert await broker.acquire_lease("x", "a", 10) is True
    await broker.release_lease("nothing", "a")


async def test_of_many_who_want_a_lease_one_gets_it(system: System) -> None:
    got = await asyncio.gather(*(system.broker.acquire_lease("x", f"h{number}", 10) for number in range(20)))
    assert sum(got) == 1
    assert await system.broker.lease_holder("x") == f"h{got.index(True)}"


@pytest.mark.parametrize("node", [NODE, EVERY_NODE])
async def test_commands_reach_this_node_in_order_and_later_than_send(system: System, node: str) -> None:
    wanted: list[Command] = [EndSession(1, EndReason.OPERATOR, "bye"), ApplicationChanged(3, closed=False)]
    for command in wanted:
        assert await system.broker.send(node, command) is True
    assert system.commands == []
    while len(system.commands) < len(wanted):
        await asyncio.sleep(0)
    assert system.commands == wanted


async def test_nobody_takes_a_command_to_an_unknown_node(system: System) -> None:
    assert await system.broker.send("node-99", ApplicationChanged(3, closed=False)) is False
    assert await system.broker.send(NODE, ApplicationChanged(4, closed=False)) is True
    while not system.commands:
        await asyncio.sleep(0)
    assert system.commands == [ApplicationChanged(4, closed=False)]


async def test_nothing_is_heard_after_close_and_closing_twice_is_fine(system: System) -> None:
    await system.broker.subscribe(TOPIC)
    await system.broker.close()
    await system.broker.close()
    await publish(system)
    assert system.heard == []
