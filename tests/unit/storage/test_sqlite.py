"""What is SQLite's own: its settings, its indexes, its epoch, the pruning of its journal and where it is."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite as dialect
from tests.contract.systems import START, ManualClock, a_session, a_user, an_application
from tests.contract.test_messages import write

from offhook.domain.accounts import Application
from offhook.domain.events import Topic, UserUpdated, application_topic
from offhook.errors import InvalidInput
from offhook.ports import Publication, Transaction
from offhook.settings import Settings
from offhook.storage import (
    SQLiteStore,
    applications,
    epoch,
    journal,
    messages,
    open_store,
    sessions,
    subscriptions,
    tokens,
    users,
)
from offhook.storage.connection import Durability
from offhook.storage.lock import DataLock
from offhook.storage.sqlite import database_path
from offhook.storage.sqlite_rows import SQLiteRows
from offhook.storage.statements import Statement
from offhook.storage.transaction import SQLTransaction
from offhook.storage.types import UtcTime

TOPIC = Topic("user.1")
USER = a_user(1, id=1)


def nobody(publications: Sequence[Publication]) -> None:
    """Nobody listens."""


def raw(tx: Transaction) -> sqlite3.Connection:
    """The driver's connection beneath a transaction."""
    assert isinstance(tx, SQLTransaction)
    rows = tx.leases._rows
    assert isinstance(rows, SQLiteRows)
    return rows.connection


def pragma(tx: Transaction, name: str) -> object:
    return raw(tx).execute(f"PRAGMA {name}").fetchone()[0]


def add_application(name: str, tx: Transaction) -> Application:
    return tx.applications.add(an_application(name))


def publish_to(topic: Topic, tx: Transaction) -> int:
    tx.publish(topic, UserUpdated(USER))
    return tx.head(topic).offset


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
async def test_connections_are_set_up(tmp_path: Path, durability: Durability, synchronous: int) -> None:
    store = await SQLiteStore.open(tmp_path / "offhook.db", nobody, durability=durability)
    assert await store.transact(lambda tx: pragma(tx, "journal_mode")) == "wal"
    assert await store.transact(lambda tx: pragma(tx, "synchronous")) == synchronous
    assert await store.transact(lambda tx: pragma(tx, "foreign_keys")) == 1
    assert await store.query(lambda tx: pragma(tx, "query_only")) == 1
    assert await store.query(lambda tx: pragma(tx, "mmap_size")) == 0
    await store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["offhook.db"]


async def test_others_may_read_while_the_store_is_open(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "offhook.db", nobody)
    with closing(sqlite3.connect(tmp_path / "offhook.db")) as other:
        reading = other.execute("SELECT name FROM applications")
        for name in ("one", "two"):
            await store.transact(partial(add_application, name))
        assert reading.fetchall() == []
        assert other.execute("SELECT name FROM applications").fetchall() == [("one",), ("two",)]
    await store.close()


HOT: dict[str, Statement] = {
    "users.get": users._GET,
    "users.by_name": users._BY_NAME,
    "users.set_online": users._SET_ONLINE,
    "users.blocked_either_way": users._EITHER_WAY,
    "users.list": users._listing(frozenset(), None, False),
    "users.list online": users._listing(frozenset(), True, False),
    "sessions.live_of": sessions._LIVE_OF,
    "sessions.due": sessions._DUE,
    "sessions.active_on": sessions._ACTIVE_ON,
    "sessions.active_nodes": sessions._ACTIVE_NODES,
    "sessions.story": sessions._STORY,
    "sessions.forget": sessions._FORGET,
    "applications.by_domain": applications._BY_DOMAIN,
    "users.delete": users._ABANDON,
    "subscriptions.live_of": subscriptions._LIVE_OF,
    "subscriptions.anonymous": subscriptions._ANONYMOUS,
    "messages.conversation": messages._FIND,
    "messages.waiting": messages._WAITING,
    "messages.undelivered": messages._UNDELIVERED,
    "messages.threads": messages._THREADS,
    "messages.thread": messages._THREAD,
    "messages.thread_with": messages._THREAD_WITH,
    "messages.list": messages._LIST,
    "messages.hide drops one": messages._dropping(True),
    "messages.hide drops all": messages._dropping(False),
    "messages.hide hides one": messages._hiding(True),
    "messages.hide hides all": messages._hiding(False),
    "tokens.forget": tokens._FORGET,
    "sessions.list of a user": sessions._listing(frozenset({"application_id", "user_name"}), None, False),
}
SORTED = (
    "users.list",
    "users.list online",
    "sessions.due",
    "messages.waiting",
    "messages.undelivered",
    "messages.list",
)
"""Those that find their rows in order, so that a limit limits what is read."""


@pytest.mark.parametrize("name", HOT)
async def test_hot_statements_are_served_by_an_index(tmp_path: Path, name: str) -> None:
    store = await SQLiteStore.open(tmp_path / "offhook.db", nobody)
    statement = HOT[name]

    def plan(tx: Transaction) -> list[str]:
        sql = statement.sqlite.sql
        explained = raw(tx).execute("EXPLAIN QUERY PLAN " + sql, (1,) * sql.count("?"))
        return [row[3] for row in explained]

    steps = await store.query(plan)
    await store.close()
    assert steps
    for step in steps:
        assert "SCAN" not in step or "INDEX" in step or "CONSTANT" in step, steps
        assert not (name in SORTED and "TEMP B-TREE" in step), steps


async def open_with_epoch(path: Path, durability: Durability, clean: bool = True) -> str:
    """Opens and closes a store. Returns its epoch."""
    if clean:
        store = await SQLiteStore.open(path, nobody, durability=durability)
        await store.close()
        return store.journal.epoch
    from offhook.storage.sqlite import _prepare

    return _prepare(path, durability)


@pytest.mark.parametrize(
    ("durability", "clean", "rebooted", "kept"),
    [
        ("full", True, True, True),
        ("full", False, True, True),
        ("normal", True, True, True),
        ("normal", False, False, True),
        ("normal", False, True, False),
    ],
)
async def test_a_new_epoch_begins_only_where_commits_may_have_been_lost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    durability: Durability,
    clean: bool,
    rebooted: bool,
    kept: bool,
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("one\n")
    monkeypatch.setattr(epoch, "_BOOT_ID", boot)
    path = tmp_path / "offhook.db"
    first = await open_with_epoch(path, durability, clean)
    if rebooted:
        boot.write_text("two\n")
    second = await open_with_epoch(path, durability)
    assert (first == second) is kept
    assert await open_with_epoch(path, "full") == second


async def test_pruning_bounds_the_journal(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await SQLiteStore.open(tmp_path / "offhook.db", nobody, history_size=100, history_seconds=60, clock=clock)

    def publish(tx: Transaction) -> None:
        for _ in range(50):
            tx.publish(TOPIC, UserUpdated(USER))

    for number in range(1, 41):
        await store.transact(publish)
        # Pruning comes after the outcome was told, but before the next batch.
        assert number * 50 - await store.journal.oldest(TOPIC) < 100 + 2 * 50
    clock.advance(61)
    await store.transact(lambda tx: tx.publish(Topic("user.2"), UserUpdated(USER)))
    while await store.journal.oldest(TOPIC) <= 2000:
        await store.transact(lambda tx: tx.publish(Topic("user.2"), UserUpdated(USER)))
    recorded = await store.journal.read(TOPIC, 0, 10)
    assert (recorded.head, recorded.oldest, recorded.events) == (2000, 2001, ())
    await store.close()


async def test_no_row_is_kept_of_messages_that_nobody_sees(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "offhook.db", nobody)

    def rows(tx: Transaction) -> int:
        return int(raw(tx).execute("SELECT count(*) FROM messages").fetchone()[0])

    def work(tx: Transaction) -> list[int]:
        app = tx.applications.add(an_application()).id
        alice, bob = (tx.users.add(a_user(app, name)) for name in ("alice", "bob"))
        key = [write(tx, one, other, "x") for one in (alice, bob) for other in (alice, bob)][1].conversation_id
        counts = [rows(tx)]
        tx.messages.hide(alice.id, key, None)
        counts.append(rows(tx))
        tx.messages.hide(bob.id, key, None)
        counts.append(rows(tx))
        tx.messages.hide(bob.id, tx.messages.conversation(bob, bob).id, None)
        counts.append(rows(tx))
        write(tx, alice, bob, "x")
        tx.users.delete(app, bob.id)
        counts.append(rows(tx))
        tx.messages.hide(alice.id, key, None)
        counts.append(rows(tx))
        tx.users.delete(app, alice.id)
        return [*counts, rows(tx)]

    assert await store.transact(work) == [4, 4, 2, 1, 2, 1, 0]
    await store.close()


async def test_heads_are_right_when_memory_holds_only_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_HEADS", 2)
    store = await SQLiteStore.open(tmp_path / "offhook.db", nobody)
    for number in range(1, 6):
        for topic in (Topic(f"user.{user_id}") for user_id in range(1, 6)):
            assert await store.transact(partial(publish_to, topic)) == number
    await store.close()


async def test_a_topic_that_is_dropped_begins_anew(tmp_path: Path) -> None:
    heard: list[Publication] = []
    store = await SQLiteStore.open(tmp_path / "offhook.db", heard.extend)
    application = await store.transact(lambda tx: tx.applications.add(an_application()))
    topic = application_topic(application.id)

    def drop_between(tx: Transaction) -> tuple[int, int]:
        before = publish_to(topic, tx)
        tx.applications.delete(application.id)
        return before, publish_to(topic, tx)

    def fail(tx: Transaction) -> None:
        drop_between(tx)
        raise ValueError("no")

    assert [await store.transact(partial(publish_to, topic)) for _ in range(2)] == [1, 2]
    with pytest.raises(ValueError, match="no"):
        await store.transact(fail)
    assert await store.transact(drop_between) == (3, 1)
    assert await store.transact(partial(publish_to, topic)) == 2
    recorded = await store.journal.read(topic, 0, 10)
    assert (recorded.head, recorded.oldest, [offset for offset, _ in recorded.events]) == (2, 1, [1, 2])
    assert [publication.position.offset for publication in heard] == [1, 2, 3, 1, 2]
    await store.close()


@dataclass
class Measured:
    values: list[float] = field(default_factory=list)

    def observe(self, value: float) -> None:
        self.values.append(value)


@dataclass
class Metrics:
    commit_size: Measured = field(default_factory=Measured)
    commit_time: Measured = field(default_factory=Measured)


async def test_open_store_follows_the_settings_and_measures_commits(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", durability="normal", history_size=7)
    metrics = Metrics()
    store = await open_store(settings, nobody, metrics)
    await store.transact(lambda tx: tx.applications.add(an_application()))
    assert await store.transact(lambda tx: pragma(tx, "synchronous")) == 1
    await store.close()
    assert metrics.commit_size.values == [1, 1]
    assert all(0 <= seconds < 30 for seconds in metrics.commit_time.values)
    assert (tmp_path / "data" / "offhook.db").is_file()


def test_database_url(tmp_path: Path) -> None:
    assert database_path(Settings(data_dir=tmp_path)) == tmp_path / "offhook.db"
    assert database_path(Settings(database_url="sqlite:////var/a b.db")) == Path("/var/a b.db")
    assert database_path(Settings(database_url="sqlite:///a.db")) == Path("a.db")
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///a?mode=ro", "postgresql://h/d", "nonsense"):
        with pytest.raises(InvalidInput):
            database_path(Settings(database_url=url))


@given(st.datetimes(timezones=st.timezones()) | st.datetimes(timezones=st.just(UTC)))
def test_times_are_exact_to_the_microsecond(moment: datetime) -> None:
    column, engine = UtcTime(), dialect.dialect()
    stored = column.process_bind_param(moment, engine)
    back = column.process_result_value(stored, engine)
    assert back is not None
    assert back - moment.astimezone(UTC) == timedelta(0)
    assert back.tzinfo is UTC


async def test_sessions_of_a_user_of_many(tmp_path: Path) -> None:
    """Ids, positions and order hold beyond what fits one page of the database."""
    store = await SQLiteStore.open(tmp_path / "offhook.db", nobody)

    def work(tx: Transaction) -> list[int]:
        application = tx.applications.add(an_application())
        user = tx.users.add(a_user(application.id))
        return [tx.sessions.add(a_session(user, started_at=START)).id for _ in range(3000)]

    ids = await store.transact(work)
    user_id = (await store.query(lambda tx: tx.sessions.get(ids[0]))).user_id  # type: ignore[union-attr]
    assert [session.id for session in await store.query(lambda tx: tx.sessions.live_of(user_id))] == ids
    await store.close()


async def test_what_is_stored_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert DataLock(folder).acquire()
    store = await SQLiteStore.open(folder / "offhook.db", lambda publications: None)
    await store.transact(lambda tx: tx.applications.add(an_application()))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
    await store.close()
    assert modes.pop("data") == 0o700
    assert {"offhook.db", "offhook.db-wal"} <= modes.keys() and set(modes.values()) == {0o600}
