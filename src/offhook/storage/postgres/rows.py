"""Statements on a PostgreSQL connection, called as plain functions by what runs in a greenlet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from sqlalchemy.util import await_only

from offhook.storage.postgres.driver import Connection
from offhook.storage.postgres.failures import RunAgain, failure_of, translated
from offhook.storage.statements import Compiled, Hold, Row, Statement, UniqueViolation

_HOLD_USERS = "SELECT id FROM users WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE"
_HOLD_FREE_USERS = f"{_HOLD_USERS} SKIP LOCKED"
_HOLD_FREE_SESSIONS = "SELECT id FROM sessions WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED"
_EXISTING_USERS = "SELECT id FROM users WHERE id = ANY($1::bigint[])"
_USER_OF = "SELECT user_id FROM sessions WHERE id = $1::bigint"
_HOLD_SESSION = "SELECT id FROM sessions WHERE id = $1::bigint FOR NO KEY UPDATE"
_XID = "SELECT pg_current_xact_id()::text"


class Mode(Enum):
    """How statements are executed."""

    CHANGE = auto()
    """In a transaction that may write, and holds what it reads as the statements say."""
    SNAPSHOT = auto()
    """In a transaction that only reads, all of it at one moment."""
    SINGLE = auto()
    """One statement, without a transaction."""


class PostgresRows:
    """``Rows`` on a connection.

    What belongs to a user is held by holding the user's row. Nobody ever waits for a user's row while holding that of
    a user with a higher id, so that no two units of work wait for each other's users: what is found in the wrong order
    is held if it is free, else the work is begun anew with all of them held in the right order (``RunAgain``).

    Args:
        connection: where.
    """

    __slots__ = ("_connection", "_done", "_gone", "_mode", "_sessions", "_users", "failure", "violated", "xid")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.begin(Mode.CHANGE)

    def begin(self, mode: Mode) -> None:
        """Forgets everything about what was done before."""
        self._mode = mode
        self._users: set[int] = set()
        self._gone: set[int] = set()
        self._sessions: set[int] = set()
        self._done = 0
        self.xid: str | None = None
        """The transaction's id, once it has written."""
        self.violated = False
        """Whether a key was found taken."""
        self.failure: BaseException | None = None
        """The first error that the transaction cannot go on after."""

    @property
    def users(self) -> frozenset[int]:
        """Ids of the users who are held."""
        return frozenset(self._users)

    # --- what repositories call

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """See ``Rows``."""
        if statement.hold is not None and self._mode is Mode.CHANGE:
            if statement.hold is Hold.SOME_SESSIONS:
                return self._some_sessions(statement, values)
            return self._read(statement.waiting, values)
        return self._read(statement.postgresql, values)

    def first(self, statement: Statement, /, **values: object) -> Row | None:
        """See ``Rows``."""
        if statement.hold is not None and self._mode is Mode.CHANGE:
            rows = self._held(statement, statement.hold, values)
        elif statement.may_violate:
            rows = self._careful(statement, values)
        else:
            rows = self._read(statement.postgresql, values)
        return rows[0] if rows else None

    def run(self, statement: Statement, /, **values: object) -> int:
        """See ``Rows``."""
        if statement.may_violate:
            return len(self._careful(statement, values))
        return len(self._read(statement.postgresql, values))

    def many(self, statement: Statement, rows: Iterable[Mapping[str, object]]) -> None:
        """See ``Rows``."""
        compiled = statement.postgresql
        parameters = [_bound(compiled, row) for row in rows]
        if not parameters:
            return
        if len(parameters) == 1:
            self._record(compiled, self.fetch(compiled.sql, *parameters[0], writes=True))
            return
        self._admit(writes=True)
        if self.xid is None:
            self.xid = self.fetch(_XID)[0][0]
        try:
            await_only(self._connection.executemany(compiled.sql, parameters))
        except Exception as error:
            raise self._failed(error) from error

    # --- what the journal and the holding of rows call

    def fetch(self, sql: str, *parameters: object, writes: bool = False) -> Sequence[Any]:
        """Executes plain SQL and returns its records."""
        self._admit(writes)
        try:
            return await_only(self._connection.fetch(sql, *parameters))
        except Exception as error:
            raise self._failed(error) from error

    def execute(self, sql: str) -> None:
        """Executes plain SQL without parameters or result."""
        try:
            await_only(self._connection.execute(sql))
        except Exception as error:
            raise self._failed(error) from error

    def hold(self, users: Iterable[int]) -> None:
        """Holds users, waiting for them; who is no user any more, and so never will be, is remembered as that."""
        wanted = set(users)
        found = {record[0] for record in self.fetch(_HOLD_USERS, list(wanted))}
        self._users |= found
        self._gone |= wanted - found

    # --- within

    def _admit(self, writes: bool) -> None:
        if self._mode is Mode.CHANGE:
            return
        if writes:
            raise RuntimeError("a query must only read")
        self._done += 1
        if self._mode is Mode.SINGLE and self._done > 1:
            self.failure = RunAgain()
            raise self.failure

    def _failed(self, error: Exception) -> Exception:
        known = translated(error)
        if failure_of(error) is not None and self.failure is None:
            self.failure = error if known is error else known
        if isinstance(known, UniqueViolation):
            self.violated = True
        return known

    def _read(self, compiled: Compiled, values: Mapping[str, object]) -> list[Row]:
        records = self.fetch(compiled.sql, *_bound(compiled, values), writes=compiled.writes)
        if compiled.writes:
            return self._record(compiled, records)
        return [compiled.convert(tuple(record)) for record in records]

    def _record(self, compiled: Compiled, records: Sequence[Any]) -> list[Row]:
        if records and self.xid is None:
            self.xid = records[0][-1]
        return [compiled.convert(tuple(record)[: compiled.width]) for record in records]

    def _careful(self, statement: Statement, values: Mapping[str, object]) -> list[Row]:
        """Executes what may find a key taken, so that the transaction can go on after that."""
        compiled = statement.postgresql
        if statement.cautious:
            rows = self._read(compiled, values)
            if not rows:
                self.violated = True
                raise UniqueViolation(())
            return rows
        self.fetch("SAVEPOINT careful", writes=True)
        try:
            rows = self._read(compiled, values)
        except UniqueViolation:
            self.failure = None
            self.fetch("ROLLBACK TO SAVEPOINT careful")
            raise
        self.fetch("RELEASE SAVEPOINT careful")
        return rows

    # --- holding

    def _held(self, statement: Statement, hold: Hold, values: Mapping[str, object]) -> list[Row]:
        match hold:
            case Hold.USER:
                return self._hold_user(statement, values)
            case Hold.SESSION:
                return self._hold_session(statement, values)
            case Hold.SUBSCRIPTION:
                session_id = values["session_id"]
                if session_id not in self._sessions:
                    self._hold_session_of(session_id)
                return self._read(statement.postgresql, values)
            case Hold.ROWS | Hold.SOME_SESSIONS:
                return self._read(statement.waiting, values)

    def _hold_user(self, statement: Statement, values: Mapping[str, object]) -> list[Row]:
        if values.get("id") in self._users:
            return self._read(statement.postgresql, values)
        if not self._users:
            rows = self._read(statement.waiting, values)
        else:
            rows = self._read(statement.skipping, values)
            if not rows:
                seen = self._read(statement.postgresql, values)
                if not seen:
                    return []
                self._in_order(seen[0][0])
                rows = self._read(statement.waiting, values)
        self._users.update(row[0] for row in rows)
        return rows

    def _hold_session(self, statement: Statement, values: Mapping[str, object]) -> list[Row]:
        session_id = values["id"]
        if session_id in self._sessions:
            return self._read(statement.postgresql, values)
        # Both rows in one statement, the user's first; if the work holds a user already, without waiting.
        rows = self._read(statement.skipping if self._users else statement.waiting, values)
        if rows:
            self._users.add(rows[0][2])
            self._sessions.add(rows[0][0])
            return rows
        self._hold_session_of(session_id)
        return self._read(statement.postgresql, values)

    def _hold_session_of(self, session_id: object) -> None:
        """Holds a session, and before it the user, if there is one."""
        found = self.fetch(_USER_OF, session_id)
        if not found:
            return
        user_id = found[0][0]
        if user_id and user_id not in self._users and user_id not in self._gone:
            self._in_order(user_id)
            self.hold([user_id])
        self._sessions.update(record[0] for record in self.fetch(_HOLD_SESSION, session_id))

    def _in_order(self, user_id: int) -> None:
        """Whether a user may be waited for; else the work is begun anew."""
        if self._users and user_id < max(self._users):
            self.failure = RunAgain(frozenset({user_id}))
            raise self.failure

    def _some_sessions(self, statement: Statement, values: Mapping[str, object]) -> list[Row]:
        candidates = self._read(statement.postgresql, values)
        if not candidates:
            return []
        wanted = {row[2] for row in candidates} - self._users
        free = {record[0] for record in self.fetch(_HOLD_FREE_USERS, list(wanted))} if wanted else set()
        self._users |= free
        gone = wanted - free
        if gone:
            # Whoever is no user any more, or never was, is nobody's to hold.
            gone -= {record[0] for record in self.fetch(_EXISTING_USERS, list(gone))}
        mine = [row[0] for row in candidates if row[2] in self._users or row[2] in gone]
        held = {record[0] for record in self.fetch(_HOLD_FREE_SESSIONS, mine)} if mine else set()
        self._sessions |= held
        # As they are now, which may be otherwise than they were before they were held.
        return [row for row in self._read(statement.postgresql, values) if row[0] in held] if held else []


def _bound(compiled: Compiled, values: Mapping[str, object]) -> tuple[object, ...]:
    try:
        return compiled.bind(values)
    except (UnicodeEncodeError, OverflowError) as error:
        raise translated(error) from error
