"""The schema on PostgreSQL: what the migrations make, by one process at a time, and from older ones with data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.contract.systems import START, a_session, a_user
from tests.databases import a_database, execute, make_database, remove_database

from offhook.domain.events import UserUpdated, application_topic
from offhook.domain.sessions import SessionState
from offhook.domain.subscriptions import CALL, Product, Subscription
from offhook.ports import Publication, Transaction
from offhook.storage import IncompatibleDatabase
from offhook.storage.migrate import REVISION
from offhook.storage.postgres import PostgresStore
from offhook.storage.postgres.driver import connect
from offhook.storage.statements import Statement
from offhook.storage.tables import metadata
from offhook.storage.types import microseconds

# Everything that two schemas can differ in.
SHAPE = """
SELECT 'column', c.table_name || '.' || c.column_name, concat_ws(' ', c.data_type, c.collation_name,
    c.is_nullable, regexp_replace(c.column_default, '''[^'']*''', ''), c.character_maximum_length)
FROM information_schema.columns c WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'constraint', conrelid::regclass::text || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
ORDER BY 1, 2"""
OLDEST = f"""
INSERT INTO applications VALUES (1, 'one', 'Straße.Example', 'key-one', 'c', 'h', {microseconds(START)}, true, true,
    '{{"max_sessions":7,"duplicates":"reject-new","leave_grace":1.5,"resume_window":60.0}}', NULL, NULL);
INSERT INTO users VALUES (1, 1, 'alice', 'alice', 'alice', {microseconds(START)}, NULL, true, true, 'BUSY', true,
    '{{"a":1}}', NULL);
SELECT setval('users_id_seq', 3);
INSERT INTO sessions VALUES (1, 1, 1, 'alice', 'chatkitty', 'ChatKitty-JS-Core/1.3.5', '127.0.0.1', true, 'guest',
    'active', 1, 'node-1', {microseconds(START)}, {microseconds(START)}, NULL, NULL, NULL, NULL, NULL, 0, '{{}}', '');
SELECT setval('sessions_id_seq', 1);
INSERT INTO topics VALUES ('application.1', 1, NULL);
INSERT INTO journal VALUES (1, 'application.1', 1, '{{"type": "user_updated", "user": {{"id": 1, "application_id": 1,
    "name": "alice", "display_name": "alice", "created_at": "2026-03-01T12:30:15.123456Z"}}}}', {microseconds(START)});
"""


def nobody(publications: Sequence[Publication]) -> None:
    """Nobody listens."""


@pytest.fixture
def empty() -> Iterator[str]:
    """A database without tables."""
    with a_database(empty=True) as url:
        yield url


async def test_the_migrations_make_what_the_tables_say(empty: str) -> None:
    store = await PostgresStore.open(empty, nobody)
    await store.close()
    plain = make_database(empty=True)
    try:
        engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: connect(plain))
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await engine.dispose()
        wanted, made = [[tuple(row) for row in await execute(SHAPE, url=url)] for url in (plain, empty)]
    finally:
        remove_database(plain)
    assert made == wanted
    assert len(made) > 100


async def test_processes_that_start_at_once_make_the_schema_once(empty: str) -> None:
    stores = await asyncio.gather(*(PostgresStore.open(empty, nobody) for _ in range(8)))
    assert len({store.journal.epoch for store in stores}) == 1
    assert [tuple(row) for row in await execute("SELECT version_num FROM alembic_version", url=empty)] == [(REVISION,)]
    for store in stores:
        await store.close()


async def test_a_database_of_the_first_schema_is_brought_up_with_its_data(empty: str) -> None:
    def first(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "offhook.storage:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: connect(empty))
    async with engine.begin() as connection:
        await connection.run_sync(first)
        for statement in OLDEST.split(";\n"):
            if statement.strip():
                await connection.execute(text(statement.replace(":", "\\:")))
    await engine.dispose()

    store = await PostgresStore.open(empty, nobody)
    alice = a_user(1, "alice", id=1, guest=True, status="BUSY", online=True, properties={"a": 1})
    assert await store.query(lambda tx: tx.users.by_name(1, "alice")) == alice
    assert await store.query(lambda tx: tx.sessions.live_of(1)) == [a_session(alice, id=1)]
    found = await store.query(lambda tx: tx.applications.by_domain("strasse.example"))
    assert found is not None and found.sessions.max_sessions == 7
    recorded = await store.journal.read(application_topic(1), 0, 10)
    assert recorded.events == ((1, UserUpdated(a_user(1, "alice", id=1))),)

    def work(tx: Transaction) -> int:
        session = tx.sessions.add(a_session(alice, state=SessionState.STARTING))
        tx.subscriptions.add(Subscription(session.id, Product.LINK, (CALL,), 60.0))
        return tx.users.add(a_user(1, "new")).id

    assert await store.transact(work) == 4
    await store.close()


async def test_a_database_of_a_newer_version_or_of_something_else_is_refused(empty: str) -> None:
    await execute("CREATE TABLE something (id int)", url=empty)
    with pytest.raises(IncompatibleDatabase, match="something else"):
        await PostgresStore.open(empty, nobody)
    await execute("DROP TABLE something", url=empty)
    await (await PostgresStore.open(empty, nobody)).close()
    await execute("UPDATE alembic_version SET version_num = '9999'", url=empty)
    with pytest.raises(IncompatibleDatabase, match="9999"):
        await PostgresStore.open(empty, nobody)


async def test_every_statement_is_one_of_postgresqls() -> None:
    from offhook.storage import applications, messages, sessions, subscriptions, tokens, users

    url = make_database()
    connection = await connect(url)
    try:
        modules = (applications, messages, sessions, subscriptions, tokens, users)
        statements = [value for module in modules for value in vars(module).values() if isinstance(value, Statement)]
        assert len(statements) > 40
        for statement in statements:
            forms = [statement.postgresql]
            if statement.hold is not None and statement.hold.name in ("ROWS", "USER", "SESSION"):
                forms += [statement.waiting, statement.skipping]
            for form in forms:
                await connection.execute(f"PREPARE checked AS {form.sql}")
                await connection.execute("DEALLOCATE checked")
    finally:
        connection.terminate()
        remove_database(url)
