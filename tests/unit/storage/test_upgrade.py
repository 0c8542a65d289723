"""A database of the first schema, with data in it, brought to this version's."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine
from tests.contract.systems import START, a_session, a_user, an_application

from offhook.domain.accounts import DuplicatePolicy, SessionPolicy, UserChanges
from offhook.domain.events import UserUpdated, application_topic
from offhook.domain.sessions import SessionState
from offhook.domain.subscriptions import CALL, Product, Subscription
from offhook.errors import Conflict
from offhook.ports import Publication, Transaction
from offhook.storage import SQLiteStore
from offhook.storage.types import UtcTime

TIME = UtcTime().process_bind_param(START, None)  # type: ignore[arg-type]
APPLICATION = "INSERT INTO applications VALUES (?, ?, ?, ?, 'c', 'h', ?, 1, 1, ?, NULL, NULL)"
POLICY = '{"max_sessions":7,"duplicates":"reject-new","leave_grace":1.5,"resume_window":60.0}'
USER = "INSERT INTO users VALUES (?, 1, ?, ?, ?, ?, NULL, 1, 1, 'BUSY', 1, '{\"a\":1}', NULL)"
SESSION = """INSERT INTO sessions VALUES (?, 1, 1, 'alice', 'chatkitty', 'ChatKitty-JS-Core/1.3.5', '127.0.0.1', 1,
    'guest', ?, 1, 'node-1', ?, ?, NULL, NULL, NULL, NULL, NULL, 0, '{}', '')"""
EVENT = b"""{"type": "user_updated", "user": {"id": 1, "application_id": 1, "name": "alice", "display_name": "alice",
    "created_at": "2026-03-01T12:30:15.123456Z"}}"""


def fill(path: Path) -> None:
    """Makes a database as the first schema's version left it."""
    config = Config()
    config.set_main_option("script_location", "offhook.storage:migrations")
    config.set_main_option("path_separator", "os")
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with closing(sqlite3.connect(path)) as database, database:
        for key, name, domain in ((1, "one", "Straße.Example"), (2, "two", "b"), (3, "three", "STRASSE.EXAMPLE")):
            database.execute(APPLICATION, (key, name, domain, f"key-{name}", TIME, POLICY))
        for key, name in ((1, "alice"), (2, "bob"), (3, "gone")):
            database.execute(USER, (key, name, name, name, TIME))
        database.execute("INSERT INTO blocks VALUES (1, 2, ?)", (TIME,))
        database.execute("DELETE FROM users WHERE name = 'gone'")
        for key, state in ((1, "active"), (2, "starting")):
            database.execute(SESSION, (key, state, TIME, TIME))
        database.execute("INSERT INTO stories VALUES (1, 1, ?, 'resumed', '', '')", (TIME,))
        database.execute("INSERT INTO topics VALUES ('application.1', 1, NULL)")
        database.execute("INSERT INTO journal VALUES (1, 'application.1', 1, ?, ?)", (EVENT, TIME))


def nobody(publications: Sequence[Publication]) -> None:
    """Nobody listens."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    fill(tmp_path / "offhook.db")
    store = await SQLiteStore.open(tmp_path / "offhook.db", nobody)
    yield store
    await store.close()


async def test_what_was_stored_is_there_with_the_new_fields_at_their_defaults(store: SQLiteStore) -> None:
    alice = a_user(1, "alice", id=1, guest=True, status="BUSY", online=True, properties={"a": 1})
    assert await store.query(lambda tx: tx.users.by_name(1, "alice")) == alice
    assert (alice.closed, alice.note) == (False, "")
    assert await store.query(lambda tx: tx.users.all_blocks()) == [(1, 2)]
    sessions = [a_session(alice, id=1), a_session(alice, id=2, state=SessionState.STARTING)]
    assert await store.query(lambda tx: tx.sessions.live_of(1)) == sessions
    assert [(session.expires_at, session.announces) for session in sessions] == [(None, True)] * 2
    assert await store.query(lambda tx: tx.sessions.due(START, 10)) == []
    assert len(await store.query(lambda tx: tx.sessions.story(1))) == 1
    application = await store.query(lambda tx: tx.applications.get(1))
    policy = SessionPolicy(7, DuplicatePolicy.REJECT_NEW, 1.5, 60.0)
    values = {"client_id": "c", "client_secret_hash": "h", "sessions": policy}
    assert application == an_application("one", id=1, domain="Straße.Example", **values)
    assert (policy.socket_wait, policy.socket_grace) == (60.0, 60.0)
    recorded = await store.journal.read(application_topic(1), 0, 10)
    assert recorded.events == ((1, UserUpdated(a_user(1, "alice", id=1))),)


async def test_what_was_stored_can_be_worked_with(store: SQLiteStore) -> None:
    def work(tx: Transaction) -> Subscription:
        alice = tx.users.by_name(1, "alice")
        session = tx.sessions.get(2)
        assert alice is not None and session is not None
        changed = tx.users.change(alice, UserChanges(closed=True, note="Lunch"))
        assert changed == replace(alice, closed=True, note="Lunch")
        tx.sessions.save(replace(session, expires_at=START, announces=False))
        subscription = Subscription(2, Product.LINK, (CALL,), 60.0)
        tx.subscriptions.add(subscription)
        return subscription

    subscription = await store.transact(work)
    assert await store.query(lambda tx: tx.subscriptions.get(2)) == subscription
    # The id of a user who was deleted before the upgrade does not come again.
    added = await store.transact(lambda tx: tx.users.add(a_user(1, "new")))
    assert added.id == 4


async def test_of_domains_that_differ_by_case_the_oldest_applications_is_found(store: SQLiteStore) -> None:
    found = await store.query(lambda tx: tx.applications.by_domain("strasse.example"))
    assert found is not None and found.name == "one"
    other = await store.query(lambda tx: tx.applications.get(2))
    later = await store.query(lambda tx: tx.applications.get(3))
    assert other is not None and later is not None
    assert await store.query(lambda tx: tx.applications.by_domain("B")) == other
    # The later one goes on as it is, but no other takes the domain again, until it has a domain of its own.
    await store.transact(lambda tx: tx.applications.save(replace(later, guests=False)))
    assert await store.query(lambda tx: tx.applications.by_domain("strasse.example")) == found
    with pytest.raises(Conflict, match=r"The domain 'strasse\.example' is taken"):
        await store.transact(lambda tx: tx.applications.save(replace(later, domain="strasse.example")))
    moved = replace(later, domain="C.example")
    await store.transact(lambda tx: tx.applications.save(moved))
    assert await store.query(lambda tx: tx.applications.by_domain("c.EXAMPLE")) == moved
