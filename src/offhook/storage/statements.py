"""Core statements, compiled once, executed straight on the driver.

SQLAlchemy's own execution costs several times what SQLite needs for a small statement, and a session's start takes
five of them. So each statement is defined in Core, compiled once to SQL text with the conversions of its parameters
and columns, and executed on the driver's connection. Only this module knows how.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import CompoundSelect, Delete, Executable, Insert, Select, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from offhook.errors import InvalidInput, NotFound

Row: TypeAlias = tuple[Any, ...]
"""One row, its columns converted to domain values; only the repositories, which know the columns, read it."""

Core: TypeAlias = Select[Any] | CompoundSelect[Any] | Insert | Update | Delete
_Convert: TypeAlias = Callable[[Any], Any]
_DIALECT: Dialect = sqlite.dialect(paramstyle="qmark")


class UniqueViolation(Exception):
    """A unique key is taken.

    Args:
        columns: the key's columns, as ``table.column``.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__(", ".join(columns))
        self.columns = columns


class Statement:
    """A Core statement with everything about it that does not change from one execution to the next.

    Args:
        core: the statement; its ``bindparam`` names are the parameters of an execution.
    """

    __slots__ = ("_columns", "_defaults", "_parameters", "core", "sql")

    def __init__(self, core: Core) -> None:
        self.core: Executable = core
        compiled = core.compile(dialect=_DIALECT)
        assert isinstance(compiled, SQLCompiler)
        self.sql = compiled.string
        self._parameters: tuple[tuple[str, _Convert | None], ...] = tuple(
            (name, _bind(compiled.binds[name].type)) for name in compiled.positiontup or ()
        )
        self._defaults = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        columns = core.selected_columns if isinstance(core, Select | CompoundSelect) else core.exported_columns
        self._columns = tuple(
            (index, convert) for index, column in enumerate(columns) if (convert := _result(column.type)) is not None
        )

    def bind(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """The driver's parameters for these values."""
        if self._defaults:
            values = {**self._defaults, **values}
        return tuple([values[name] if convert is None else convert(values[name]) for name, convert in self._parameters])

    def convert(self, row: tuple[object, ...]) -> Row:
        """The row with its columns converted."""
        if not self._columns:
            return row
        values: list[Any] = list(row)
        for index, convert in self._columns:
            values[index] = convert(values[index])
        return tuple(values)


class Rows:
    """Executes statements on one connection, in the thread that opened it.

    Every method raises UniqueViolation, NotFound (something referred to is gone), InvalidInput (a value that no
    database can take) and whatever else the driver raises.

    Args:
        connection: a connection without transaction control of its own (``isolation_level=None``).
    """

    __slots__ = ("connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """Every row."""
        try:
            rows = self.connection.execute(statement.sql, statement.bind(values)).fetchall()
        except _TRANSLATED as error:
            raise _translate(error) from error
        return [statement.convert(row) for row in rows]

    def first(self, statement: Statement, /, **values: object) -> Row | None:
        """The first row, or None."""
        try:
            # Fetching all of them ends the statement, whose lock would otherwise outlive it.
            rows = self.connection.execute(statement.sql, statement.bind(values)).fetchall()
        except _TRANSLATED as error:
            raise _translate(error) from error
        return statement.convert(rows[0]) if rows else None

    def run(self, statement: Statement, /, **values: object) -> int:
        """Executes a change and returns how many rows it touched."""
        try:
            return self.connection.execute(statement.sql, statement.bind(values)).rowcount
        except _TRANSLATED as error:
            raise _translate(error) from error

    def many(self, statement: Statement, rows: Iterable[Mapping[str, object]]) -> None:
        """Executes a change once for each mapping of values."""
        try:
            self.connection.executemany(statement.sql, [statement.bind(row) for row in rows])
        except _TRANSLATED as error:
            raise _translate(error) from error


_TRANSLATED = (sqlite3.IntegrityError, OverflowError, UnicodeEncodeError)


def _translate(error: Exception) -> Exception:
    if isinstance(error, OverflowError):
        return InvalidInput("A number is too large")
    if isinstance(error, UnicodeEncodeError):
        return InvalidInput("A text is not valid Unicode")
    if isinstance(error, sqlite3.IntegrityError):
        if error.sqlite_errorname in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
            return UniqueViolation(tuple(re.findall(r"\w+\.\w+", str(error))))
        if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
            return NotFound("What this belongs to does not exist any more")
    return error


T = TypeVar("T")


def _bind(kind: TypeEngine[T]) -> _Convert | None:
    return kind.dialect_impl(_DIALECT).bind_processor(_DIALECT)


def _result(kind: TypeEngine[T]) -> _Convert | None:
    return kind.dialect_impl(_DIALECT).result_processor(_DIALECT, None)
