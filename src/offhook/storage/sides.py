"""The rows of a database as its driver knows them: read and written in bulk, the same on both engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Boolean, Column, Connection, Float, Integer, LargeBinary, String, Table, func, select, text
from sqlalchemy.types import BigInteger, TypeDecorator, TypeEngine
from sqlalchemy.util import await_only

from offhook.storage.places import driver, fetched, telling
from offhook.storage.tables import files

Raw: TypeAlias = tuple[object, ...]
"""A row without conversions: whole numbers, floating ones, truths, text, bytes and None."""

BATCH = 1000
"""Rows that are in memory at one time."""
LARGE_BATCH = 50
"""The same of a table whose rows hold bytes."""
FILE_BATCH = 1
"""The same of files, which may be large."""
_INT4 = 2**31


def batches(connection: Connection, table: Table) -> Iterator[Sequence[Raw]]:
    """All rows of a table, some at a time. Columns are in the order of the table's definition."""
    query = str(select(table).compile(dialect=connection.dialect))
    bytes_in_it = any(_kind(column) is LargeBinary for column in table.columns)
    size = FILE_BATCH if table is files else LARGE_BATCH if bytes_in_it else BATCH
    on_sqlite = connection.dialect.name == "sqlite"
    with telling(connection):
        cursor = driver(connection).execute(query) if on_sqlite else await_only(driver(connection).cursor(query))
    while True:
        with telling(connection):
            rows = cursor.fetchmany(size) if on_sqlite else await_only(cursor.fetch(size))
        if not rows:
            return
        yield [_adapted(table, row) if on_sqlite else tuple(row) for row in rows]


def append(connection: Connection, table: Table, rows: Iterable[Raw]) -> None:
    """Stores rows as ``batches`` gives them."""
    names = [column.name for column in table.columns]
    with telling(connection):
        if connection.dialect.name == "sqlite":
            places = ", ".join("?" for _ in names)
            columns = ", ".join(f'"{name}"' for name in names)
            insert = f'INSERT INTO "{table.name}" ({columns}) VALUES ({places})'  # noqa: S608
            driver(connection).executemany(insert, rows)
        else:
            await_only(driver(connection).copy_records_to_table(table.name, records=list(rows), columns=names))


def is_empty(connection: Connection, table: Table) -> bool:
    """Whether a table has no row."""
    return connection.execute(select(1).select_from(table).limit(1)).first() is None


def last_id(connection: Connection, table: Table) -> int:
    """The highest id that a table has given out, whether or not its row is still there; 0 if none."""
    column = table.autoincrement_column
    if column is None:
        return 0
    highest = connection.execute(select(func.max(column))).scalar() or 0
    return max(int(highest), last_given(connection, table, column))


def last_given(connection: Connection, table: Table, column: Column[Any]) -> int:
    """The last id that the database's own counter has given out; 0 if none, or if it keeps no counter."""
    given: int | None = None
    if connection.dialect.name == "sqlite":
        if table.dialect_options["sqlite"]["autoincrement"]:
            query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
            given = connection.execute(query, {"name": table.name}).scalar()
    else:
        row = fetched(connection, f"SELECT last_value, is_called FROM {_sequence(connection, table, column)}")[0]  # noqa: S608
        given = row[0] if row[1] else 0
    return int(given or 0)


def continue_after(connection: Connection, table: Table, last: int) -> None:
    """Has the next id of a table come after one that was given out elsewhere."""
    column = table.autoincrement_column
    if column is None or not last:
        return
    if connection.dialect.name != "sqlite":
        sequence = _sequence(connection, table, column)
        fetched(connection, "SELECT setval($1::text::regclass, $2::bigint)", sequence, last)
    elif table.dialect_options["sqlite"]["autoincrement"]:
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        values = {"name": table.name, "last": last}
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), values)


def unfit(table: Table, row: Raw) -> Iterator[tuple[str, str]]:
    """What of a row PostgreSQL cannot store: column, and why."""
    for column, value in zip(table.columns, row, strict=True):
        if value is not None and (reason := _unfit(_kind(column), value)) is not None:
            yield column.name, reason


def key_of(table: Table, row: Raw) -> str:
    """A row's primary key, for people."""
    values = [
        f"{column.name} {value!r}" for column, value in zip(table.columns, row, strict=True) if column.primary_key
    ]
    return ", ".join(values)


def _unfit(kind: type[TypeEngine[Any]], value: object) -> str | None:
    if kind is String:
        if isinstance(value, bytes):
            return "holds bytes that are no UTF-8"
        if not isinstance(value, str):
            return f"holds {type(value).__name__} instead of text"
        return "holds a NUL character, which PostgreSQL cannot store" if "\0" in value else None
    if kind is Integer and isinstance(value, int) and not -_INT4 <= value < _INT4:
        return f"holds {value}, which is too large"
    good = {
        Boolean: bool,
        LargeBinary: bytes,
        Float: float,
        Integer: int,
        BigInteger: int,
    }[kind]
    return None if isinstance(value, good) else f"holds {type(value).__name__} instead of {good.__name__}"


@cache
def _kind(column: Column[Any]) -> type[TypeEngine[Any]]:
    """What a column holds, of those types that are told apart."""
    declared = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
    kinds: tuple[type[TypeEngine[Any]], ...] = (Boolean, LargeBinary, Float, BigInteger, Integer, String)
    return next(kind for kind in kinds if isinstance(declared, kind))


@cache
def _converted(table: Table) -> tuple[tuple[int, type[TypeEngine[Any]]], ...]:
    kinds = [(index, _kind(column)) for index, column in enumerate(table.columns)]
    return tuple((index, kind) for index, kind in kinds if kind in (Boolean, Float))


def _adapted(table: Table, row: Raw) -> Raw:
    """A row of SQLite, which knows no truths, as PostgreSQL would give it."""
    converted = _converted(table)
    if not converted:
        return row
    values = list(row)
    for index, kind in converted:
        value = values[index]
        if kind is Boolean and value in (0, 1):
            values[index] = bool(value)
        elif kind is Float and isinstance(value, int):
            values[index] = float(value)
    return tuple(values)


def _sequence(connection: Connection, table: Table, column: Column[Any]) -> str:
    return str(fetched(connection, "SELECT pg_get_serial_sequence($1, $2)", table.name, column.name)[0][0])
