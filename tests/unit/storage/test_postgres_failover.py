"""The PostgreSQL store when another server takes over that does not have all that the first one had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from tests.contract.systems import a_user, an_application
from tests.postgres_server import PostgresServer
from tests.unit.storage.test_postgres_faults import Proxy, adding, stored

from offhook.domain.accounts import UserFilter
from offhook.domain.events import UserUpdated, application_topic
from offhook.errors import Unavailable
from offhook.ports import Publication, Transaction
from offhook.storage.postgres import PostgresStore


@pytest.fixture
def servers() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    servers = PostgresServer(), PostgresServer()
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


async def test_what_became_of_a_commit_is_not_asked_of_another_history(
    servers: tuple[PostgresServer, PostgresServer],
) -> None:
    first, second = servers
    # The second one has the application, too, and numbers its own transactions with the numbers of the first one's.
    other = await PostgresStore.open(second.url, lambda publications: None)
    application = await other.transact(lambda tx: tx.applications.add(an_application()))
    connection = await asyncpg.connect(second.url)
    for _ in range(500):
        await connection.execute("SELECT pg_current_xact_id()")
    await connection.close()

    proxy, told = Proxy(first.url), list[Publication]()
    await proxy.start()
    store = await PostgresStore.open(proxy.url, told.extend)
    assert await store.transact(lambda tx: tx.applications.add(an_application())) == application
    before = store.journal.epoch

    def work(tx: Transaction) -> None:
        user = tx.users.add(a_user(application.id))
        tx.publish(application_topic(application.id), UserUpdated(user))

    # The connection that there is goes on to the first server and loses the commit; all others are to the second.
    proxy.lose_commits = 1
    proxy._server = ("127.0.0.1", second.port)
    with pytest.raises(Unavailable):
        await store.transact(work)
    assert told == [] and store.journal.epoch != before
    assert await other.query(lambda tx: tx.users.count(application.id, UserFilter())) == 0
    # Whoever tries again is on the second one.
    await store.transact(work)
    assert [publication.position.epoch for publication in told] == [store.journal.epoch]
    assert await other.query(lambda tx: tx.users.count(application.id, UserFilter())) == 1
    await store.close()
    await other.close()
    await proxy.stop()


@pytest.fixture
async def crashing() -> AsyncIterator[Proxy]:
    """Stands before a server that crashes with the next commit, and then gives the same ids to other transactions."""
    server = PostgresServer()
    await asyncio.to_thread(server.start)
    proxy = Proxy(server.url)

    async def crash() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        connection = await asyncpg.connect(server.url)
        for _ in range(50):
            await connection.execute("SELECT pg_current_xact_id()")
        await connection.close()

    await proxy.start()
    proxy.losing = crash
    yield proxy
    await proxy.stop()
    await asyncio.to_thread(server.stop)


async def test_a_transaction_that_a_crash_undid_is_not_taken_for_another_of_its_id(crashing: Proxy) -> None:
    told = list[Publication]()
    store = await PostgresStore.open(crashing.url, told.extend)
    application = await store.transact(lambda tx: tx.applications.add(an_application()))
    runs = list[int]()
    crashing.lose_commits = 1
    await store.transact(adding(application, "alice", runs.append))
    assert runs == [1, 2]
    assert await stored(store, application) == ["alice"] and len(told) == 1
    await store.close()


async def test_of_a_transaction_that_left_nothing_to_know_it_by_nothing_is_claimed(crashing: Proxy) -> None:
    store = await PostgresStore.open(crashing.url, lambda publications: None)
    application = await store.transact(lambda tx: tx.applications.add(an_application()))
    crashing.lose_commits = 1
    with pytest.raises(Unavailable):
        await store.transact(lambda tx: tx.users.add(a_user(application.id)))
    assert await store.query(lambda tx: tx.users.count(application.id, UserFilter())) == 0
    await store.close()
