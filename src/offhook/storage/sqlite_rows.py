"""Statements on a SQLite connection."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping

from offhook.errors import InvalidInput, NotFound
from offhook.storage.statements import Row, Statement, UniqueViolation


class SQLiteRows:
    """``Rows`` on a connection, in the thread that opened it.

    Args:
        connection: a connection without transaction control of its own (``isolation_level=None``).
    """

    __slots__ = ("connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """See ``Rows``."""
        compiled = statement.sqlite
        try:
            rows = self.connection.execute(compiled.sql, compiled.bind(values)).fetchall()
        except _TRANSLATED as error:
            raise _translate(error) from error
        return [compiled.convert(row) for row in rows]

    def first(self, statement: Statement, /, **values: object) -> Row | None:
        """See ``Rows``."""
        compiled = statement.sqlite
        try:
            # Fetching all of them ends the statement, whose lock would otherwise outlive it.
            rows = self.connection.execute(compiled.sql, compiled.bind(values)).fetchall()
        except _TRANSLATED as error:
            raise _translate(error) from error
        return compiled.convert(rows[0]) if rows else None

    def run(self, statement: Statement, /, **values: object) -> int:
        """See ``Rows``."""
        compiled = statement.sqlite
        try:
            return self.connection.execute(compiled.sql, compiled.bind(values)).rowcount
        except _TRANSLATED as error:
            raise _translate(error) from error

    def many(self, statement: Statement, rows: Iterable[Mapping[str, object]]) -> None:
        """See ``Rows``."""
        compiled = statement.sqlite
        try:
            self.connection.executemany(compiled.sql, [compiled.bind(row) for row in rows])
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
