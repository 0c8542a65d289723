"""Databases with something in every column of every table, by what the tables say of themselves, and with files."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from sqlalchemy import Column, NullPool, Table, create_engine
from sqlalchemy.types import BigInteger, Boolean, Float, Integer, LargeBinary, TypeDecorator

from offhook.storage.blobs import path_of, write
from offhook.storage.migrate import migrate
from offhook.storage.tables import files, metadata

ROWS = 7
TABLES = tuple(table for table in metadata.sorted_tables if table is not files)
"""The tables in which SQLite has rows. Files lie beside it."""
COUNTS = {table.name: ROWS for table in (*TABLES, files)}
"""How many rows of each table, and files, there are in what ``filled_file`` makes."""


def empty_file(path: Path) -> Path:
    """Makes a SQLite database of this version without a row."""
    migrate(create_engine(f"sqlite:///{path}", poolclass=NullPool))
    return path


def filled_file(path: Path, rows: int = ROWS) -> Path:
    """Makes one with ``rows`` rows in every table, and as many files."""
    empty_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for table in TABLES:
            add(connection, table, *(row(table, number) for number in range(1, rows + 1)))
        connection.execute("COMMIT")
    for number in range(1, rows + 1):
        add_file(path, file_name(number), value(files.c.data, number))
    return path


def file_name(number: int) -> str:
    """How a file is called."""
    return f"{number:02x}" * 32 + ".png"


def add_file(path: Path, name: str, data: object) -> Path:
    """Stores a file beside a database. Returns where it is."""
    assert isinstance(data, bytes)
    file = path_of(path.parent / "files", name)
    write(file, data)
    return file


def add(connection: sqlite3.Connection, table: Table, *rows: Mapping[str, object]) -> None:
    """Stores rows as they are."""
    names = [column.name for column in table.columns]
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join("?" for _ in names)
    values = [[values[name] for name in names] for values in rows]
    connection.executemany(f'INSERT INTO "{table.name}" ({columns}) VALUES ({places})', values)


def row(table: Table, number: int) -> dict[str, object]:
    """A row unlike those of other numbers, which refers to the rows of the same number. Every third has its NULLs."""
    return {
        column.name: None if column.nullable and number % 3 == 0 else value(column, number) for column in table.columns
    }


def value(column: Column[object], number: int) -> object:
    """What fits a column."""
    match kind(column):
        case Boolean():
            return number % 2 == 0
        case LargeBinary():
            return bytes([0, number % 256, 255]) + f"{number}".encode()
        case Float():
            return number + 0.125
        case BigInteger() if not column.primary_key and not column.foreign_keys:
            return 2**62 + number
        case BigInteger() | Integer():
            return number
        case _:
            return f"{column.name} {number}: ä\u0301 \U0001f4de '\"\\ \r\n\t"


def kind(column: Column[object]) -> object:
    """The type that a column's values are stored as."""
    declared: object = column.type
    return declared.impl_instance if isinstance(declared, TypeDecorator) else declared
