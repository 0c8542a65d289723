"""A copy is what was copied, or there is none."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Float, Integer, LargeBinary, String, Table
from tests.contract.systems import a_user, an_application
from tests.databases import a_database, apart, execute, url_of
from tests.unit.storage.filling import COUNTS, TABLES, add, add_file, empty_file, file_name, filled_file, kind, row

from offhook.domain.accounts import Application
from offhook.domain.events import UserUpdated, application_topic
from offhook.errors import Conflict, InvalidInput, Unavailable
from offhook.ports import Transaction
from offhook.storage import IncompatibleDatabase, SQLiteStore
from offhook.storage.copy import Copied, Unfit, copy_database
from offhook.storage.places import Place, place_of
from offhook.storage.postgres import PostgresStore
from offhook.storage.tables import meta, users

PATIENCE = 30.0


@pytest.fixture
def target() -> Iterator[Place]:
    """An empty PostgreSQL database."""
    with a_database(empty=True) as url:
        yield place_of(url)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A SQLite database with something in every table."""
    return filled_file(tmp_path / "offhook.db")


async def tables_of(place: Place) -> list[str]:
    """Names of all tables of a PostgreSQL database."""
    found = await execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", url=place.url or "")
    return [record[0] for record in found]


def rows_of(path: Path, table: Table) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        return sorted(connection.execute(f'SELECT {names} FROM "{table.name}"').fetchall(), key=repr)


def counts(copied: Sequence[Copied]) -> dict[str, int]:
    assert all(each.source == each.target for each in copied)
    return {each.table: each.target.rows for each in copied}


async def test_every_table_is_copied_there_and_back(source: Path, target: Place, tmp_path: Path) -> None:
    before = source.read_bytes()
    there = await copy_database(Place(path=source), target)
    assert counts(there) == COUNTS
    assert len({each.target.checksum for each in there}) == len(COUNTS)
    assert source.read_bytes() == before
    back = tmp_path / "back" / "offhook.db"
    assert counts(await copy_database(target, Place(path=back))) == counts(there)
    for table in TABLES:
        assert rows_of(back, table) == rows_of(source, table), table.name


async def test_the_rows_are_what_postgresql_has(source: Path, target: Place) -> None:
    # By its own words, not by those of what copied them.
    await copy_database(Place(path=source), target)
    for table in TABLES:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        found = await execute(f'SELECT {names} FROM "{table.name}"', url=target.url or "")
        # Truths are whole numbers to SQLite, and equal to them here.
        stored = {record for record in map(tuple, found) if record[0] != "history"}
        assert stored == set(rows_of(source, table)), table.name


async def test_history_goes_on_where_it_was(tmp_path: Path, target: Place) -> None:
    path = tmp_path / "offhook.db"
    old = await SQLiteStore.open(path, lambda publications: None)

    def fill(tx: Transaction) -> Application:
        application = tx.applications.add(an_application())
        for number in range(3):
            tx.publish(
                application_topic(application.id), UserUpdated(tx.users.add(a_user(application.id, f"u{number}")))
            )
        return application

    application = await old.transact(fill)
    last = await old.transact(lambda tx: tx.users.add(a_user(application.id, "gone")))
    await old.transact(lambda tx: tx.users.delete(application.id, last.id))
    topic, epoch = application_topic(application.id), old.journal.epoch
    head = await old.journal.head(topic)
    await old.close()

    await copy_database(Place(path=path), target)
    new = await PostgresStore.open(target.url or "", lambda publications: None)
    try:
        assert new.journal.epoch == epoch
        assert await new.journal.head(topic) == head
        assert len((await new.journal.read(topic, 0, 10)).events) == head
        made = await new.transact(lambda tx: tx.users.add(a_user(application.id, "next")))
        # No id is given out twice, be its owner gone or not.
        assert made.id == last.id + 1
        await new.transact(lambda tx: tx.publish(topic, UserUpdated(made)))
        assert await new.journal.head(topic) == head + 1
    finally:
        await new.close()

    back = tmp_path / "back.db"
    await copy_database(target, Place(path=back))
    again = await SQLiteStore.open(back, lambda publications: None)
    try:
        assert again.journal.epoch == epoch
        assert (await again.transact(lambda tx: tx.users.add(a_user(application.id, "last")))).id == made.id + 1
    finally:
        await again.close()


async def test_a_history_whose_end_may_be_lost_gets_another_epoch(source: Path, target: Place) -> None:
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("INSERT INTO meta VALUES ('epoch', 'the old one'), ('at_risk_in_boot', 'another boot')")
    await copy_database(Place(path=source), target)
    facts = dict(await execute("SELECT key, value FROM meta", url=target.url or ""))
    assert facts["epoch"] != "the old one" and "at_risk_in_boot" not in facts


# --- odd values


def _texts(nul: bool) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="" if nul else "\0"), max_size=40)


def _values(column: Column[object]) -> st.SearchStrategy[object]:
    match kind(column):
        case String():
            return _texts(nul=False)
        case LargeBinary():
            return st.binary(max_size=40)
        case Float():
            return st.floats(allow_nan=False)
        case Integer() if str(column.type) == "INTEGER":
            return st.integers(-(2**31), 2**31 - 1)
        case Integer():
            return st.integers(-(2**63), 2**63 - 1)
        case _:
            return st.booleans()


@st.composite
def odd_rows(draw: st.DrawFn) -> dict[str, dict[str, object]]:
    """For every table a row with any values in columns that are no keys."""
    rows: dict[str, dict[str, object]] = {}
    for table in TABLES:
        values = row(table, 1)
        for column in table.columns:
            if not column.primary_key and not column.foreign_keys:
                odd = _values(column)
                values[column.name] = draw(st.none() | odd if column.nullable else odd)
        rows[table.name] = values
    return rows


@pytest.fixture(scope="module")
def cleared() -> Iterator[str]:
    """A PostgreSQL database with the tables."""
    with a_database() as url:
        yield url


@given(rows=odd_rows())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_value_is_copied_as_it_is(rows: dict[str, dict[str, object]], cleared: str) -> None:
    async def play(folder: Path) -> None:
        await execute(f"TRUNCATE {', '.join(COUNTS)}", url=cleared)
        path = empty_file(folder / "offhook.db")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for table in TABLES:
                add(connection, table, rows[table.name])
        add_file(path, file_name(1), b"")
        assert set(counts(await copy_database(Place(path=path), place_of(cleared))).values()) == {1}
        back = folder / "back.db"
        await copy_database(place_of(cleared), Place(path=back))
        for table in TABLES:
            assert rows_of(back, table) == rows_of(path, table)

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(play(Path(name)))


TEXTS = [
    (table, column)
    for table in TABLES
    for column in table.columns
    if isinstance(kind(column), String) and table.name != "meta"
]


async def test_nuls_are_named_all_at_once(source: Path, target: Place) -> None:
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("UPDATE topics SET topic = char(97, 0, 98) WHERE head = ?", (2**62 + 4,))
        connection.execute("UPDATE users SET display_name = ? WHERE id = 5", ("zero \0 here",))
        connection.execute("UPDATE messages SET text = ? WHERE id = 2", ("\0",))
    with pytest.raises(Unfit) as caught:
        await copy_database(Place(path=source), target)
    assert "table users, row with id 5: column display_name holds a NUL character" in caught.value.message
    assert "table messages, row with id 2: column text holds a NUL character" in caught.value.message
    assert "table topics, row with topic 'a\\x00b': column topic holds a NUL character" in caught.value.message
    assert len(caught.value.reasons) == 3 and caught.value.more == 0
    assert await tables_of(target) == []


@pytest.mark.parametrize(("table", "column"), TEXTS, ids=[f"{table.name}.{column.name}" for table, column in TEXTS])
async def test_a_nul_of_every_column_is_found(tmp_path: Path, table: Table, column: Column[object]) -> None:
    path = empty_file(tmp_path / "offhook.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for each in TABLES:
            values = row(each, 1)
            if each is table:
                values[column.name] = "end\0"
            add(connection, each, values)
    # What cannot be reached is not even asked for.
    with pytest.raises(Unfit, match=f"table {table.name}, row with .*: column {column.name} holds a NUL"):
        await copy_database(Place(path=path), place_of("postgresql://nobody@127.0.0.1:1/nothing"))


async def test_other_values_that_do_not_fit_are_named(source: Path, target: Place) -> None:
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("UPDATE users SET note = CAST(x'ff41' AS TEXT) WHERE id = 1")
        connection.execute("UPDATE users SET created_at = 'yesterday', guest = 7 WHERE id = 2")
        connection.execute(f"UPDATE sessions SET generation = {2**31} WHERE id = 3")
        connection.execute("UPDATE journal SET event = 'text' WHERE id = 4")
        connection.execute("UPDATE messages SET text = char(0)")
        connection.execute("UPDATE messages SET sender = char(0)")
        connection.execute("UPDATE messages SET recipient = char(0)")
    with pytest.raises(Unfit) as caught:
        await copy_database(Place(path=source), target)
    for told in (
        "table users, row with id 1: column note holds bytes that are no UTF-8",
        "table users, row with id 2: column created_at holds str instead of int",
        "table users, row with id 2: column guest holds int instead of bool",
        "table sessions, row with id 3: column generation holds 2147483648, which is too large",
        "table journal, row with id 4: column event holds str instead of bytes",
    ):
        assert told in caught.value.message
    assert caught.value.message.endswith("; and 6 more")
    assert await tables_of(target) == []


async def test_a_value_that_the_server_refuses_leaves_nothing(source: Path, target: Place) -> None:
    # No key of an index may be as long; what is random cannot be made shorter.
    long = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(20000))
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("UPDATE users SET name = ? WHERE id = 6", (long,))
    with pytest.raises(InvalidInput, match=r"refuses a value: index row .*COPY users, line 6"):
        await copy_database(Place(path=source), target)
    assert await tables_of(target) == []


async def test_rows_that_refer_to_nothing_are_named(source: Path, target: Place) -> None:
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("DELETE FROM users WHERE id = 3")
    with pytest.raises(InvalidInput, match="rows of inboxes refer by user_id to users 3"):
        await copy_database(Place(path=source), target)
    assert await tables_of(target) == []


# --- what is refused


async def test_a_source_in_use_is_refused(tmp_path: Path, target: Place) -> None:
    path = tmp_path / "offhook.db"
    store = await SQLiteStore.open(path, lambda publications: None)
    await store.transact(lambda tx: tx.applications.add(an_application()))
    try:
        with pytest.raises(Conflict, match="in use"):
            await copy_database(Place(path=path), target)
    finally:
        await store.close()
    assert await tables_of(target) == []
    await copy_database(Place(path=path), target)
    used = await PostgresStore.open(target.url or "", lambda publications: None)
    assert len(await used.query(lambda tx: tx.applications.list())) == 1
    try:
        with pytest.raises(Conflict, match="in use"):
            await copy_database(target, Place(path=tmp_path / "back.db"))
        with pytest.raises(Conflict, match="in use"):
            await copy_database(Place(path=path), target)
    finally:
        await used.close()


async def test_a_source_cannot_be_used_while_it_is_copied(source: Path, target: Place) -> None:
    refused: list[str] = []

    def tell(step: str, table: str) -> None:
        if step == "copying" and not refused:
            with (
                closing(sqlite3.connect(source, timeout=0)) as connection,
                pytest.raises(sqlite3.OperationalError, match="locked"),
            ):
                connection.execute("SELECT * FROM users")
            refused.append(table)

    await copy_database(Place(path=source), target, tell)
    assert refused


async def may_write(url: str) -> bool:
    """Whether a server's transaction may change something now."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET lock_timeout = 100")
        await connection.execute("UPDATE applications SET name = name")
    except asyncpg.LockNotAvailableError:
        return False
    else:
        return True
    finally:
        await connection.close()


async def test_nobody_writes_to_a_server_while_it_is_copied(source: Path, target: Place, tmp_path: Path) -> None:
    await copy_database(Place(path=source), target)
    refused: list[str] = []

    def tell(step: str, table: str) -> None:
        if step == "copying" and not refused:
            assert not apart(may_write(target.url or ""))
            refused.append(table)

    await copy_database(target, Place(path=tmp_path / "back.db"), tell)
    assert refused and await may_write(target.url or "")


async def test_the_copy_of_a_restored_database_begins_another_history(
    source: Path, target: Place, tmp_path: Path
) -> None:
    await copy_database(Place(path=source), target)
    url = target.url or ""
    await execute("INSERT INTO meta (key, value) VALUES ('epoch', 'before')", url=url)
    await copy_database(target, Place(path=tmp_path / "same.db"))
    await execute("UPDATE meta SET value = 'of another server' WHERE key = 'history'", url=url)
    await copy_database(target, Place(path=tmp_path / "back.db"))
    kept, new = [{str(key): value for key, value in rows_of(tmp_path / name, meta)} for name in ("same.db", "back.db")]
    assert kept["epoch"] == "before" != new["epoch"]


async def test_a_target_that_is_not_empty_is_refused_and_left_alone(
    source: Path, target: Place, tmp_path: Path
) -> None:
    await copy_database(Place(path=source), target)
    before = await execute("SELECT * FROM users ORDER BY id", url=target.url or "")
    with pytest.raises(Conflict, match=r"is not empty: its table .* has rows"):
        await copy_database(Place(path=source), target)
    assert await execute("SELECT * FROM users ORDER BY id", url=target.url or "") == before
    other = filled_file(tmp_path / "other.db")
    untouched = other.read_bytes()
    with pytest.raises(Conflict, match="is not empty"):
        await copy_database(target, Place(path=other))
    assert other.read_bytes() == untouched
    with pytest.raises(Conflict, match="in use"):
        await copy_database(Place(path=source), Place(path=source))


async def test_the_database_of_something_else_is_refused(source: Path, target: Place) -> None:
    await execute("CREATE TABLE diary (page text)", url=target.url or "")
    with pytest.raises(IncompatibleDatabase):
        await copy_database(Place(path=source), target)
    assert await tables_of(target) == ["diary"]


async def test_a_source_that_is_not_of_this_version_is_refused(source: Path, target: Place, tmp_path: Path) -> None:
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(Conflict, match=r"of version 0001.*offhook db upgrade"):
        await copy_database(Place(path=source), target)
    with pytest.raises(Unavailable, match="There is no database"):
        await copy_database(Place(path=tmp_path / "missing.db"), target)
    (tmp_path / "damaged.db").write_bytes(b"no database at all, however long one looks" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        await copy_database(Place(path=tmp_path / "damaged.db"), target)
    assert await tables_of(target) == []


async def test_passwords_are_not_told(source: Path) -> None:
    for url in ("postgresql://me:hush-hush@127.0.0.1:1/x", "postgresql://me:hush-hush@127.0.0.1:port/x"):
        with pytest.raises((Unavailable, InvalidInput)) as caught:
            await copy_database(Place(path=source), place_of(url))
        assert "hush" not in str(caught.value) and "hush" not in str(place_of(url))


async def test_a_database_in_another_encoding_is_refused(source: Path) -> None:
    name = "offhook_test_latin"
    await execute(f"DROP DATABASE IF EXISTS {name}")
    await execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(InvalidInput, match="LATIN1; make the database with ENCODING 'UTF8'"):
            await copy_database(Place(path=source), place_of(url_of(name)))
    finally:
        await execute(f"DROP DATABASE {name} WITH (FORCE)")


# --- what is interrupted

PROGRAM = """
import asyncio, sys
from offhook.storage.copy import copy_database
from offhook.storage.places import place_of
def tell(step, table):
    print(step, table, flush=True)
    if [step, table] == sys.argv[3:]:
        sys.stdin.readline()
asyncio.run(copy_database(place_of(sys.argv[1]), place_of(sys.argv[2]), tell))
"""
MOMENTS = [("copying", "messages"), ("comparing", TABLES[-1].name)]


def killed_at(source: str, target: str, step: str, table: str) -> None:
    """Starts a copy in a process of its own, and kills that at a moment."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, source, target, step, table],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    with process, process.stdin:
        for line in process.stdout:
            if line.split() == [step, table]:
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("moment", MOMENTS, ids=" ".join)
async def test_a_copy_that_is_killed_leaves_nothing(source: Path, target: Place, moment: tuple[str, str]) -> None:
    await asyncio.to_thread(killed_at, str(source), target.url or "", *moment)
    deadline = time.monotonic() + PATIENCE
    while await execute(
        "SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND application_name = 'offhook db'",
        (target.url or "").rpartition("/")[2],
    ):
        assert time.monotonic() < deadline
    assert await tables_of(target) == []
    assert counts(await copy_database(Place(path=source), target)) == COUNTS


async def test_a_copy_into_a_file_that_is_killed_leaves_nothing(source: Path, target: Place, tmp_path: Path) -> None:
    await copy_database(Place(path=source), target)
    back = tmp_path / "back.db"
    await asyncio.to_thread(killed_at, target.url or "", str(back), "comparing", "users")
    with closing(sqlite3.connect(back)) as connection:
        assert connection.execute("SELECT * FROM sqlite_master").fetchall() == []
    await copy_database(target, Place(path=back))
    assert rows_of(back, users) == rows_of(source, users)


async def test_a_server_that_goes_away_leaves_nothing(source: Path, target: Place) -> None:
    database = (target.url or "").rpartition("/")[2]
    ended: list[bool] = []

    def end(step: str, table: str) -> None:
        if (step, table) == ("copying", "messages"):
            apart(execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database))
            ended.append(True)

    with pytest.raises(Unavailable, match="cannot be used"):
        await copy_database(Place(path=source), target, end)
    assert ended and await tables_of(target) == []


async def test_what_is_stored_otherwise_than_it_was_is_not_kept(source: Path, target: Place) -> None:
    # Tables that were there before, with something that changes what is stored.
    await PostgresStore.close(await PostgresStore.open(target.url or "", lambda publications: None))
    await execute("DELETE FROM meta", url=target.url or "")
    await execute(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id = 5 THEN NEW.text := upper(NEW.text); END IF; RETURN NEW; END $$",
        url=target.url or "",
    )
    await execute(
        "CREATE TRIGGER spoil BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION spoil()", url=target.url or ""
    )
    with pytest.raises(Conflict, match="The copy of messages is not what it was"):
        await copy_database(Place(path=source), target)
    assert await execute("SELECT * FROM users", url=target.url or "") == []
