"""What survives: a restart of the process, and its sudden death."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.contract.systems import Engine, a_session

from offhook.domain.accounts import UserFilter
from offhook.domain.events import Position, UserUpdated, application_topic, name_in, user_topic
from offhook.domain.values import PageRequest
from offhook.ports import Transaction


async def test_everything_survives_a_restart(engine: Engine) -> None:
    system = await engine.open()
    application = await system.application()
    user = await system.user(application)
    topic = user_topic(user.id)

    def work(tx: Transaction) -> Position:
        tx.publish(topic, UserUpdated(user))
        tx.publish(topic, UserUpdated(user))
        return tx.head(topic)

    place = await system.store.transact(work)
    session = await system.store.transact(lambda tx: tx.sessions.add(a_session(user)))
    await system.broker.acquire_lease("x", "a", 10)
    await system.close()

    system = await engine.open()
    assert await system.broker.position(topic) == place
    assert await system.store.query(lambda tx: tx.head(topic)) == place
    assert await system.store.query(lambda tx: tx.sessions.get(session.id)) == session
    assert await system.store.query(lambda tx: tx.users.get(application.id, user.id)) == user
    (missed,) = await system.broker.history(topic, Position(place.epoch, 1), 10)
    assert (missed.event, missed.position) == (UserUpdated(user), place)
    await system.store.transact(lambda tx: tx.publish(topic, UserUpdated(user)))
    assert await system.broker.position(topic) == Position(place.epoch, 3)
    assert await system.broker.lease_holder("x") == "a"
    assert await system.broker.acquire_lease("x", "b", 10) is False
    engine.clock.advance(11)
    assert await system.broker.lease_holder("x") is None
    await system.close()


async def test_two_databases_have_two_epochs(engine: Engine, another: Engine) -> None:
    system = await engine.open()
    other = await another.open()
    topic = user_topic(1)
    assert (await system.broker.position(topic)).epoch != (await other.broker.position(topic)).epoch
    await system.close()
    await other.close()


async def test_what_was_acknowledged_survives_kill_9(engine: Engine) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["src", "."])}
    with subprocess.Popen(engine.child(), stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().split() for _ in range(300)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [line.split() for line in child.stdout if line.endswith("\n")]
        assert child.wait(30) == -signal.SIGKILL

    system = await engine.open()
    application = await system.store.query(lambda tx: tx.applications.by_name("app"))
    assert application is not None
    users = await system.store.query(lambda tx: tx.users.list(application.id, UserFilter(), PageRequest(size=100_000)))
    stored = {user.name: user for user in users.items}
    topic = application_topic(application.id)
    head = await system.broker.position(topic)
    history = await system.broker.history(topic, Position(head.epoch, 0), 100_000)
    published = {publication.position.offset: publication.event for publication in history}
    assert sorted(published) == list(range(1, head.offset + 1))
    for name, offset in acknowledged:
        assert published[int(offset)] == UserUpdated(stored[name])
    # Nothing was half done either: each user came with its publication.
    assert {name_in(event) for event in published.values()} == stored.keys()
    await system.close()
