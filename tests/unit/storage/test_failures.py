"""The store when the database fails: nobody is told that something was stored which was not, and work goes on."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.contract.systems import START, an_application

from offhook.domain.accounts import User
from offhook.domain.events import Topic, UserUpdated
from offhook.errors import Unavailable
from offhook.ports import Publication, Transaction
from offhook.storage import SQLiteStore, connection, worker
from offhook.storage.sqlite_rows import SQLiteRows
from offhook.storage.transaction import SQLTransaction

TOPIC = Topic("user.1")
USER = User(1, 1, "alice", "Alice", START)
BIG = "x" * 200_000


def raw(tx: Transaction) -> sqlite3.Connection:
    """The driver's connection beneath a transaction."""
    assert isinstance(tx, SQLTransaction)
    rows = tx.leases._rows
    assert isinstance(rows, SQLiteRows)
    return rows.connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "offhook.db"


@pytest.fixture
def heard() -> list[Publication]:
    return []


@pytest.fixture
async def store(path: Path, heard: list[Publication]) -> AsyncIterator[SQLiteStore]:
    store = await SQLiteStore.open(path, heard.extend)
    yield store
    await store.close()


def publish(tx: Transaction) -> int:
    tx.publish(TOPIC, UserUpdated(USER))
    return tx.head(TOPIC).offset


async def goes_on(store: SQLiteStore, heard: list[Publication], offset: int) -> None:
    """The store takes work, and the topic's next event gets this offset."""
    heard.clear()
    assert await store.transact(publish) == offset
    assert [publication.position.offset for publication in heard] == [offset]
    assert (await store.journal.read(TOPIC, offset - 1, 10)).events == ((offset, UserUpdated(USER)),)


async def test_a_commit_that_fails_fails_every_unit_of_its_batch(store: SQLiteStore, heard: list[Publication]) -> None:
    await goes_on(store, heard, 1)

    def break_commit(tx: Transaction) -> None:
        # A reference to nowhere that is checked only when the transaction commits.
        raw(tx).execute("PRAGMA defer_foreign_keys = ON")
        raw(tx).execute("INSERT INTO blocks (blocker_id, blocked_id, blocked_at) VALUES (77, 78, 0)")

    heard.clear()
    outcomes = await asyncio.gather(
        store.transact(publish),
        store.transact(break_commit),
        store.transact(lambda tx: tx.applications.add(an_application())),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, Exception) for outcome in outcomes), outcomes
    assert heard == []
    assert await store.query(lambda tx: tx.applications.list()) == []
    await goes_on(store, heard, 2)


async def test_a_full_disk_is_unavailable_and_takes_nothing_half(store: SQLiteStore, heard: list[Publication]) -> None:
    await goes_on(store, heard, 1)
    pages = await store.transact(lambda tx: raw(tx).execute("PRAGMA page_count").fetchone()[0])
    await store.transact(lambda tx: raw(tx).execute(f"PRAGMA max_page_count = {pages + 10}").fetchone()[0])

    def fill(tx: Transaction) -> None:
        tx.applications.add(an_application("small"))
        tx.publish(TOPIC, UserUpdated(USER))
        tx.applications.add(an_application("big", client_id=BIG))

    with pytest.raises(Unavailable):
        await store.transact(fill)
    # The journal is written at the end of the batch: also there a full disk is told to those who published.
    huge = User(1, 1, "alice", BIG, START)
    with pytest.raises(Unavailable):
        await store.transact(lambda tx: tx.publish(TOPIC, UserUpdated(huge)))
    assert await store.query(lambda tx: tx.applications.list()) == []
    await goes_on(store, heard, 2)
    await store.transact(lambda tx: raw(tx).execute("PRAGMA max_page_count = 100000").fetchone()[0])
    await store.transact(fill)
    await goes_on(store, heard, 4)


async def test_a_connection_that_broke_is_opened_again(store: SQLiteStore, heard: list[Publication]) -> None:
    await goes_on(store, heard, 1)
    with pytest.raises(sqlite3.ProgrammingError):
        await store.transact(lambda tx: raw(tx).close())
    await goes_on(store, heard, 2)
    with pytest.raises(sqlite3.ProgrammingError):
        for _ in range(3):  # One of the readers; whichever takes it.
            await store.query(lambda tx: raw(tx).close())
    assert await store.query(lambda tx: tx.head(TOPIC).offset) == 2


async def test_another_process_that_writes_is_waited_for(
    store: SQLiteStore, heard: list[Publication], path: Path
) -> None:
    waiting: asyncio.Task[int] | None = None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.transact(publish))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        assert await store.query(lambda tx: tx.head(TOPIC).offset) == 0
        other.execute("COMMIT")
    assert await waiting == 1


async def test_another_process_that_writes_for_too_long_makes_the_database_unavailable(
    path: Path, heard: list[Publication], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT", 0.05)
    store = await SQLiteStore.open(path, heard.extend)
    await goes_on(store, heard, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await store.transact(publish)
        other.execute("COMMIT")
    await goes_on(store, heard, 2)
    await store.close()


async def test_a_listener_that_fails_costs_nobody_the_outcome(path: Path) -> None:
    def listen(publications: object) -> None:
        raise ValueError("a listener's defect")

    store = await SQLiteStore.open(path, listen)
    assert await store.transact(publish) == 1
    assert await store.transact(publish) == 2
    await store.close()


async def test_too_much_waiting_work_is_refused(
    store: SQLiteStore, heard: list[Publication], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_WAITING", 5)
    released, started = threading.Event(), threading.Event()

    def block(tx: Transaction) -> None:
        started.set()
        assert released.wait(30)

    blocked = asyncio.create_task(store.transact(block))
    await asyncio.to_thread(started.wait, 30)
    waiting = [asyncio.create_task(store.transact(publish)) for _ in range(8)]
    refused, _ = await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_EXCEPTION)
    assert all(isinstance(task.exception(), Unavailable) for task in refused)
    assert len(refused) == 3
    released.set()
    await blocked
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Unavailable)] == [1, 2, 3, 4, 5]
    await goes_on(store, heard, 6)
