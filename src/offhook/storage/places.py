"""Databases as commands use them: named by a URL or a file, and opened whole, for one plain function to work on.

What works on an open database is synchronous and runs in a greenlet, in which SQLAlchemy waits for PostgreSQL's driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError
from sqlalchemy.util import await_only, greenlet_spawn

from offhook.errors import Conflict, InvalidInput, OffhookError, Unavailable
from offhook.settings import Settings
from offhook.storage.connection import BUSY_TIMEOUT, make_private
from offhook.storage.tables import metadata

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
"""Seconds in which a PostgreSQL server must answer."""
LOCK_TIMEOUT = 4.0
"""Seconds to wait for those who write just now."""
OLDEST_POSTGRESQL = 14
POSTGRESQL = ("postgresql", "postgres")
APPLICATION = "offhook db"
"""How commands call themselves to PostgreSQL; servers call themselves ``offhook``."""

_PLACE = "place"
_REFUSED = ("22", "23", "54")
"""Classes of PostgreSQL's errors that mean a value: of data, of constraints, of limits."""
_NO_TABLE, _LOCKED = "42P01", "55P03"
_IN_USE = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'offhook%' AND pid <> pg_backend_pid()"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is.

    Attributes:
        path: the file, if it is SQLite's.
        url: the URL, if it is PostgreSQL's; it may hold a password.
        folder: the folder of the files that go with one of SQLite's, if it is not ``files`` beside it.
    """

    path: Path | None = None
    url: str | None = field(default=None, repr=False)
    folder: Path | None = None

    @property
    def files(self) -> Path | None:
        """The folder of the files that go with it; None if they are in the database."""
        if self.path is None:
            return None
        return self.folder or self.path.parent / "files"

    def __str__(self) -> str:
        """Its name for people, without a password."""
        if self.url is None:
            return str(self.path)
        parts = urlsplit(self.url)
        if "@" in f"{parts.path}{parts.query}{parts.fragment}":
            # A password that should have been percent-encoded is not all in its place.
            return f"{parts.scheme}://…"
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def place_of(name: str) -> Place:
    """The place that a URL or the name of a file means.

    Raises:
        InvalidInput: it is a URL of something else.
    """
    scheme, separator, _ = name.partition("://")
    if not separator:
        if not name:
            raise InvalidInput("A database must be named")
        return Place(path=Path(name))
    if scheme in POSTGRESQL:
        return Place(url=name)
    try:
        url = make_url(name)
    except ArgumentError as error:
        raise InvalidInput("A database is named by a file or a URL") from error
    if url.drivername != "sqlite" or url.database in (None, "", ":memory:") or url.query:
        raise InvalidInput("A database is a file, sqlite:///path/to/file or postgresql://user:password@host/name")
    return Place(path=Path(str(url.database)))


def configured(settings: Settings) -> Place:
    """The place of the database that the settings name. Raises InvalidInput as ``place_of`` does."""
    place = Place(path=settings.sqlite_path) if settings.database_url is None else place_of(settings.database_url)
    return place if place.path is None else replace(place, folder=settings.files_path)


async def at(work: Callable[[], T]) -> T:
    """Runs a function that opens databases."""
    return await greenlet_spawn(work)


@contextmanager
def opened(place: Place, *, alone: bool = False, reading: bool = True) -> Iterator[Connection]:
    """Opens a database and begins a transaction, which is committed at the end unless something is raised.

    Call it within ``at``.

    Args:
        place: where.
        alone: nobody else may use the database, now or for as long as it is open.
        reading: it is only read, all of it at one moment; a file must be there.

    Raises:
        Conflict: it is to be used alone and is in use.
        InvalidInput: the URL cannot be used, or the server is too old or not in UTF-8.
        Unavailable: it cannot be opened, or broke while it was open.
    """
    engine = _sqlite(place, alone, reading) if place.path is not None else _postgresql(place, alone, reading)
    event.listen(engine, "handle_error", partial(_tell, place))
    try:
        with engine.connect() as connection:
            connection.info[_PLACE] = place
            with connection.begin():
                _admit(place, connection, alone, reading)
                yield connection
    finally:
        engine.dispose()


@contextmanager
def telling(connection: Connection) -> Iterator[None]:
    """Has errors of the driver itself come as those of ``opened``."""
    try:
        yield
    except (sqlite3.Error, OSError, TimeoutError) as error:
        raise _told(place_at(connection), error) from error
    except Exception as error:
        # The driver's errors, without loading it for who does not use it.
        if type(error).__module__.startswith("asyncpg"):
            raise _told(place_at(connection), error) from error
        raise


def place_at(connection: Connection) -> Place:
    """What was opened."""
    place: Place = connection.info[_PLACE]
    return place


def driver(connection: Connection) -> Any:
    """The driver's own connection, within the same transaction."""
    return connection.connection.driver_connection


def _admit(place: Place, connection: Connection, alone: bool, reading: bool) -> None:
    if place.path is not None:
        # The transaction begins with its first statement; then a file that is locked shows.
        connection.execute(text("SELECT count(*) FROM sqlite_master"))
        return
    if alone and reading:
        _keep_as_it_is(connection)
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if version < OLDEST_POSTGRESQL * 10_000:
        raise InvalidInput(f"{place} is PostgreSQL {version // 10_000}; {OLDEST_POSTGRESQL} or newer is needed")
    if encoding != "UTF8":
        raise InvalidInput(f"{place} keeps text as {encoding}; make the database with ENCODING 'UTF8'")
    if alone and connection.execute(text(_IN_USE)).scalar_one():
        raise Conflict(f"{place} is in use: stop every server and command on it first")


def _keep_as_it_is(connection: Connection) -> None:
    """Lets nobody write, from before the moment at which the database is read on."""
    tables = ", ".join(table.name for table in metadata.sorted_tables)
    try:
        with connection.begin_nested():
            connection.execute(text(f"SET LOCAL lock_timeout = {round(LOCK_TIMEOUT * 1000)}"))
            connection.execute(text(f"LOCK TABLE {tables} IN SHARE MODE"))
    except OffhookError as error:
        # A database without these tables will be refused in words that say so.
        if getattr(error.__cause__, "sqlstate", None) != _NO_TABLE:
            raise


def _sqlite(place: Place, alone: bool, reading: bool) -> Engine:
    path = place.path
    assert path is not None
    if reading and not path.is_file():
        raise Unavailable(f"There is no database {path}")
    engine = create_engine(
        URL.create("sqlite"), creator=partial(_connect_sqlite, path, alone, reading), poolclass=NullPool
    )
    begin = "BEGIN EXCLUSIVE" if alone else "BEGIN" if reading else "BEGIN IMMEDIATE"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _connect_sqlite(path: Path, alone: bool, reading: bool) -> sqlite3.Connection:
    if not reading:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_private(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be used: {error}") from error
    mode = "rwc" if not reading else "rw" if alone else "ro"
    timeout = 0.5 if alone else BUSY_TIMEOUT
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=timeout, isolation_level=None
    )
    # What is no UTF-8 is handed out as it is, for who checks values to name it.
    connection.text_factory = _text
    if alone:
        # Before the first access: then the file is locked as a whole, and whoever has it open is noticed.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _postgresql(place: Place, alone: bool, reading: bool) -> Engine:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def connect() -> Any:
        import asyncpg

        try:
            return await asyncpg.connect(
                place.url, timeout=CONNECT_TIMEOUT, server_settings={"application_name": APPLICATION, "jit": "off"}
            )
        except (ValueError, asyncpg.ClientConfigurationError):
            # What the driver says may hold the URL, and with it the password.
            raise InvalidInput("A PostgreSQL URL is like postgresql://user:password@host:port/name") from None
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise _told(place, error) from None

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool).sync_engine
    if reading:
        # A transaction that may not write may not keep others from it either.
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=not alone)
    return engine


def _tell(place: Place, context: ExceptionContext) -> None:
    raise _told(place, context.original_exception) from context.original_exception


def _told(place: Place, error: BaseException) -> OffhookError:
    """What an error of a driver means."""
    if isinstance(error, OffhookError):
        return error
    # SQLAlchemy puts the driver's own error into one of its own.
    own = error.__cause__ if isinstance(error.__cause__, Exception) else error
    reason = str(own) or type(own).__name__
    if "database is locked" in reason or getattr(own, "sqlstate", None) == _LOCKED:
        return Conflict(f"{place} is in use: stop every server and command on it first")
    if str(getattr(own, "sqlstate", None) or "")[:2] in _REFUSED:
        where = getattr(own, "context", None)
        return InvalidInput(f"{place} refuses a value: {reason}{f' ({where})' if where else ''}")
    return Unavailable(f"{place} cannot be used: {reason}")


def fetched(connection: Connection, query: str, *parameters: object) -> Any:
    """What PostgreSQL's driver answers to a query of its own dialect."""
    with telling(connection):
        return await_only(driver(connection).fetch(query, *parameters))
