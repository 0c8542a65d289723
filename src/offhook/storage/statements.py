"""Core statements, compiled once for each engine, executed straight on its driver.

SQLAlchemy's own execution costs several times what SQLite needs for a small statement, and a session's start takes
five of them. So each statement is defined in Core, compiled once to SQL text with the conversions of its parameters
and columns, and executed on the driver's connection by a ``Rows``: one for SQLite, one for PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, auto
from functools import cache
from typing import Any, Protocol, TypeAlias, TypeVar

from sqlalchemy import CompoundSelect, Delete, Float, Insert, Select, Table, Text, Update, cast, func, insert
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeEngine

Row: TypeAlias = tuple[Any, ...]
"""One row, its columns converted to domain values; only the repositories, which know the columns, read it."""

Core: TypeAlias = Select[Any] | CompoundSelect[Any] | Insert | Update | Delete
_Convert: TypeAlias = Callable[[Any], Any]
_SQLITE: Dialect = sqlite.dialect(paramstyle="qmark")
_XID: ColumnElement[str] = cast(func.pg_current_xact_id(), Text)


class Hold(Enum):
    """What a change is to hold of what a statement reads, until its commit.

    SQLite has one writer, which holds everything; only PostgreSQL needs to be told. Whatever belongs to a user is
    changed by whoever holds the user's row, so that holding that is enough to be alone with all of it.
    """

    ROWS = auto()
    """The rows that are found."""
    USER = auto()
    """The user who is found; column 0 is the user's id."""
    SESSION = auto()
    """The user first, then the session's row; columns 0 and 2 are the session's and the user's id."""
    SUBSCRIPTION = auto()
    """The user first, then the row; it is found by the parameter ``session_id``."""
    SOME_SESSIONS = auto()
    """As many of the sessions found, with their users, as nobody else holds; columns as for SESSION."""


class UniqueViolation(Exception):
    """A unique key is taken.

    Args:
        columns: the key's columns, as ``table.column``; empty if the engine does not tell.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__(", ".join(columns))
        self.columns = columns


class Compiled:
    """A Core statement for one engine, with all that does not change from one execution to the next.

    Attributes:
        sql: its text in the driver's parameter style.
        writes: whether it changes anything.
        width: how many of a row's columns are the statement's own.

    Args:
        core: the statement.
        dialect: the engine's.
        extra: what is returned beyond the statement's own columns.
    """

    __slots__ = ("_columns", "_defaults", "_parameters", "sql", "width", "writes")

    def __init__(self, core: Core, dialect: Dialect, extra: Iterable[ColumnElement[Any]] = ()) -> None:
        columns = list(core.selected_columns if isinstance(core, Select | CompoundSelect) else core.exported_columns)
        self.width = len(columns)
        self.writes = isinstance(core, Insert | Update | Delete)
        if isinstance(core, Insert | Update | Delete):
            for column in extra:
                core = core.returning(column)
        compiled = core.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self.sql = compiled.string
        self._parameters: tuple[tuple[str, _Convert | None], ...] = tuple(
            (name, _bind(compiled.binds[name].type, dialect)) for name in compiled.positiontup or ()
        )
        self._defaults = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        self._columns = tuple(
            (index, convert)
            for index, column in enumerate(columns)
            if (convert := _result(column.type, dialect)) is not None
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


class Statement:
    """A Core statement for every engine, compiled for each when that first needs it.

    Args:
        core: the statement; its ``bindparam`` names are the parameters of an execution.
        hold: what a change holds of what it reads.
        postgresql: makes the statement for PostgreSQL, where that differs.
        locking: the statement by which PostgreSQL reads what it is to hold, where that differs.
        of: the tables of which it holds rows; all that it reads unless given.
        may_violate: it may find a unique key taken, and the transaction goes on after that.
    """

    __slots__ = ("_compiled", "_core", "_locking", "_of", "_postgresql", "hold", "may_violate")

    def __init__(
        self,
        core: Core,
        *,
        hold: Hold | None = None,
        postgresql: Callable[[], Core] | None = None,
        locking: Select[Any] | None = None,
        of: Sequence[Table] = (),
        may_violate: bool = False,
    ) -> None:
        self._core = core
        self._postgresql = postgresql
        self._locking = locking
        self._of = of
        self.hold = hold
        self.may_violate = may_violate
        self._compiled: list[Compiled | None] = [None, None, None, None]

    @property
    def cautious(self) -> bool:
        """Whether, on PostgreSQL, it does nothing where a key is taken, instead of failing."""
        return self.may_violate and self._postgresql is not None

    @property
    def sqlite(self) -> Compiled:
        """For SQLite."""
        compiled = self._compiled[0]
        if compiled is None:
            compiled = self._compiled[0] = Compiled(self._core, _SQLITE)
        return compiled

    @property
    def postgresql(self) -> Compiled:
        """For PostgreSQL. A change also returns the transaction's id, as the last column."""
        compiled = self._compiled[1]
        if compiled is None:
            core = self._core if self._postgresql is None else self._postgresql()
            compiled = self._compiled[1] = Compiled(core, _postgresql(), [_XID])
        return compiled

    @property
    def waiting(self) -> Compiled:
        """For PostgreSQL, holding what is found once nobody else does."""
        compiled = self._compiled[2]
        if compiled is None:
            compiled = self._compiled[2] = self._holding(skip_locked=False)
        return compiled

    @property
    def skipping(self) -> Compiled:
        """For PostgreSQL, holding what is found and leaving out what somebody else holds."""
        compiled = self._compiled[3]
        if compiled is None:
            compiled = self._compiled[3] = self._holding(skip_locked=True)
        return compiled

    def _holding(self, *, skip_locked: bool) -> Compiled:
        core = self._core if self._locking is None else self._locking
        assert isinstance(core, Select)
        locking = core.with_for_update(key_share=True, skip_locked=skip_locked, of=self._of or None)
        return Compiled(locking, _postgresql())


def adding(table: Table, values: Mapping[str, object], *returned: ColumnElement[Any]) -> Statement:
    """Adds a row of which there may be one already. Then UniqueViolation is raised, and the transaction can go on."""

    def cautious() -> Core:
        from sqlalchemy.dialects import postgresql

        core = postgresql.insert(table).values(values).on_conflict_do_nothing()
        return core.returning(*returned) if returned else core

    core = insert(table).values(values)
    return Statement(core.returning(*returned) if returned else core, postgresql=cautious, may_violate=True)


class Rows(Protocol):
    """Executes statements on one connection.

    Every method raises UniqueViolation, NotFound (something referred to is gone), InvalidInput (a value that no
    database can take) and whatever else the driver raises.
    """

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """Every row."""

    def first(self, statement: Statement, /, **values: object) -> Row | None:
        """The first row, or None."""

    def run(self, statement: Statement, /, **values: object) -> int:
        """Executes a change and returns how many rows it touched."""

    def many(self, statement: Statement, rows: Iterable[Mapping[str, object]]) -> None:
        """Executes a change once for each mapping of values."""


T = TypeVar("T")


@cache
def _postgresql() -> Dialect:
    # Only who uses it loads it.
    from sqlalchemy.dialects.postgresql import asyncpg

    dialect: Dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
    return dialect


def _bind(kind: TypeEngine[T], dialect: Dialect) -> _Convert | None:
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _result(kind: TypeEngine[T], dialect: Dialect) -> _Convert | None:
    # Drivers give a float as it is; SQLAlchemy would have to be told the server's number for its type.
    return None if isinstance(kind, Float) else kind.dialect_impl(dialect).result_processor(dialect, None)
