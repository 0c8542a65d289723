"""What the driver's errors mean: which ones another try may mend, and what to tell the caller of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

import structlog
from asyncpg import exceptions as pg
from sqlalchemy import UniqueConstraint

from offhook.errors import InvalidInput, NotFound, Unavailable
from offhook.storage.statements import UniqueViolation
from offhook.storage.tables import metadata

log = structlog.get_logger(__name__)


class RunAgain(BaseException):
    """The unit of work must be begun anew, holding users from its start. No unit of work is to catch it.

    Args:
        users: ids of the users to hold, besides those that it came to hold by itself.
    """

    def __init__(self, users: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.users = users


class Failure(Enum):
    """What became of a unit of work that met an error of the driver."""

    CONTENDED = auto()
    """Others were in the way; the connection is fine, and the same work may succeed at once."""
    LOST = auto()
    """The connection is gone or of no use; the same work may succeed on another."""
    SLOW = auto()
    """The server gave up a statement that took too long."""
    REFUSED = auto()
    """The database did not take it, and will not."""


_CONTENDED = (
    pg.DeadlockDetectedError,
    pg.SerializationError,
    pg.InvalidCachedStatementError,
    pg.OutdatedSchemaCacheError,
)
_LOST = (
    OSError,
    TimeoutError,
    EOFError,
    pg.PostgresConnectionError,
    pg.AdminShutdownError,
    pg.CrashShutdownError,
    pg.CannotConnectNowError,
    pg.TooManyConnectionsError,
    pg.IdleInTransactionSessionTimeoutError,
    pg.IdleSessionTimeoutError,
    # The server became a standby, or is one.
    pg.ReadOnlySQLTransactionError,
    pg.TargetServerAttributeNotMatched,
    # The driver's own: the connection is closed, or in a state that it should not be in.
    pg.InterfaceError,
    pg.InternalClientError,
)
_SLOW = (pg.QueryCanceledError, pg.LockNotAvailableError)
_INVALID: Sequence[tuple[tuple[type[Exception], ...], str]] = (
    ((UnicodeEncodeError,), "A text is not valid Unicode"),
    ((OverflowError, pg.NumericValueOutOfRangeError), "A number is too large"),
    (
        (pg.CharacterNotInRepertoireError, pg.UntranslatableCharacterError),
        "A text holds a character that cannot be stored",
    ),
    ((pg.ProgramLimitExceededError, pg.StringDataRightTruncationError), "A text is too long"),
)
_DRIVER = (pg.PostgresError, pg.InterfaceError, pg.InternalClientError, OSError, EOFError)


def failure_of(error: BaseException) -> Failure | None:
    """What an error of the driver means; None for any other error."""
    if isinstance(error, _CONTENDED):
        return Failure.CONTENDED
    if isinstance(error, _SLOW):
        return Failure.SLOW
    if isinstance(error, _LOST):
        return Failure.LOST
    return Failure.REFUSED if isinstance(error, _DRIVER) else None


def translated(error: Exception) -> Exception:
    """The error that a repository or the caller of a unit of work knows; any other stays as it is."""
    if isinstance(error, pg.UniqueViolationError):
        return UniqueViolation(_COLUMNS.get(str(error.constraint_name), ()))
    if isinstance(error, pg.ForeignKeyViolationError):
        return NotFound("What this belongs to does not exist any more")
    for kinds, text in _INVALID:
        # What the driver itself cannot encode it tells as an error of the data, with the reason as the cause.
        if isinstance(error, kinds) or (isinstance(error, pg.DataError) and isinstance(error.__cause__, kinds)):
            return InvalidInput(text)
    return error


def unavailable(error: BaseException) -> Unavailable:
    """What to tell the caller, and the log, of an error that no further try mended."""
    log.error("database_failed", error=f"{type(error).__name__}: {error}", code=getattr(error, "sqlstate", None))
    told = Unavailable("The database is not available")
    told.__cause__ = error
    return told


def _columns() -> Mapping[str, tuple[str, ...]]:
    """The columns of every unique key, by the name that PostgreSQL gives the key."""
    found: dict[str, tuple[str, ...]] = {}
    for table in metadata.tables.values():
        found[f"{table.name}_pkey"] = tuple(f"{table.name}.{column.name}" for column in table.primary_key)
        keys = [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
        for key in keys:
            names = [column.name for column in key.columns]
            found["_".join([table.name, *names, "key"])] = tuple(f"{table.name}.{name}" for name in names)
        for index in table.indexes:
            if index.unique:
                found[str(index.name)] = tuple(f"{table.name}.{column.name}" for column in index.columns)
    return found


_COLUMNS = _columns()
