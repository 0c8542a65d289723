"""Brings a database to the schema of this version."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError

from offhook.errors import Conflict, Unavailable

REVISION = "0004"
"""The schema of this version: the newest revision in ``migrations/versions``."""


class IncompatibleDatabase(Conflict):
    """The database belongs to a newer version of Offhook, or to something else."""


def migrate(engine: Engine) -> None:
    """Makes or upgrades the schema, all of it or nothing.

    Raises:
        IncompatibleDatabase: the database is newer than this version, or not one of Offhook.
        Unavailable: it cannot be opened.
    """
    event.listen(engine, "connect", _leave_transactions_alone)
    event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            bring_up(connection)
    except OperationalError as error:
        raise Unavailable(f"The database cannot be opened: {error.orig}") from error
    except DatabaseError as error:
        raise IncompatibleDatabase(f"The database cannot be used: {error.orig}") from error


def bring_up(connection: Connection) -> None:
    """Makes or upgrades the schema within the connection's transaction.

    Raises:
        IncompatibleDatabase: the database is newer than this version, or not one of Offhook.
    """
    stored = stored_revision(connection)
    if stored != REVISION:
        _upgrade(connection, stored)


def _upgrade(connection: Connection, stored: str | None) -> None:
    # Most starts find the schema as it should be and need not load Alembic.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "offhook.storage:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if stored is not None and stored not in known:
        raise IncompatibleDatabase(f"The database has schema {stored}; this version of Offhook knows only {REVISION}")
    command.upgrade(config, "head")


def stored_revision(connection: Connection) -> str | None:
    """The revision of a database's schema; None if it is empty.

    Raises:
        IncompatibleDatabase: it belongs to something else.
    """
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise IncompatibleDatabase("The database belongs to something else than Offhook")
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def _leave_transactions_alone(connection: object, record: object) -> None:
    """The driver would commit before DDL, and a half-made schema could remain."""
    if hasattr(connection, "isolation_level"):
        connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN")
