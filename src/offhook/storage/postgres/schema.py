"""Brings a PostgreSQL database to the schema of this version."""

from __future__ import annotations

from asyncpg import UndefinedTableError
from sqlalchemy import NullPool, text
from sqlalchemy.exc import DBAPIError

from offhook.errors import Unavailable
from offhook.storage.migrate import REVISION, IncompatibleDatabase, bring_up
from offhook.storage.postgres.driver import Connection, connect

LOCK = 0x0FF40001
"""The advisory lock of whoever changes the schema."""
OLDEST_SERVER = 130000
PATIENCE = 600.0
"""Seconds for which a change of the schema may go on, or be waited for."""


async def prepare(url: str, connection: Connection) -> None:
    """Makes or upgrades the schema, all of it or nothing. Of many processes that start at once, one does it.

    Raises:
        IncompatibleDatabase: the database is newer than this version, or not one of Offhook, or the server too old.
        Unavailable: the database cannot be opened.
    """
    version = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
    if version < OLDEST_SERVER:
        raise IncompatibleDatabase(f"PostgreSQL {version // 10000} is too old; {OLDEST_SERVER // 10000} is the oldest")
    encoding = await connection.fetchval("SELECT current_setting('server_encoding')")
    if encoding != "UTF8":
        raise IncompatibleDatabase(f"The database's encoding is {encoding}; it must be UTF8")
    try:
        stored = await connection.fetchval("SELECT version_num FROM alembic_version")
    except UndefinedTableError:
        stored = None
    if stored != REVISION:
        await _migrate(url)


async def _migrate(url: str) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def opened() -> Connection:
        return await connect(url, answer_timeout=PATIENCE)

    engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=opened)
    try:
        async with engine.begin() as transaction:
            for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                await transaction.execute(text(f"SET LOCAL {setting} = 0"))
            await transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            await transaction.run_sync(bring_up)
    except DBAPIError as error:
        raise Unavailable(f"The database cannot be brought to this version's schema: {error.orig}") from error
    finally:
        await engine.dispose()
