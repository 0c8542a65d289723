"""The journal's epoch on PostgreSQL.

A server that took over from another may lack the last commits, and one that was restored from a backup does: offsets
that clients have seen would be given out again, for other events. PostgreSQL counts such turns: each begins a timeline.
So beside the epoch lies which server, on which timeline, it was made for, and on any other a new epoch begins.
"""

from __future__ import annotations

import secrets

import structlog
from asyncpg import ObjectNotInPrerequisiteStateError

from offhook.storage.postgres.driver import Connection

LOCK = 0x0FF40003
"""The advisory lock of whoever begins an epoch."""

_TIMELINE = "substring(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
_FACTS = "(SELECT value FROM meta WHERE key = 'epoch'), (SELECT value FROM meta WHERE key = 'history')"
_ASK = f"SELECT system_identifier::text || '/' || {_TIMELINE}, {_FACTS} FROM pg_control_system()"  # noqa: S608
_ASK_LESS = f"SELECT {_TIMELINE}, {_FACTS}"
_STORE = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

log = structlog.get_logger(__name__)


class StandbyError(ConnectionError):
    """The server takes no changes: it is a standby."""


async def open_epoch(connection: Connection) -> str:
    """The epoch of the history that the server has, which is a new one if its past may not be what it was.

    Raises:
        StandbyError: the server is a standby.
    """
    server, epoch, known = await _ask(connection)
    if epoch is not None and server == known:
        return epoch
    await connection.execute("BEGIN")
    try:
        await connection.fetch("SELECT pg_advisory_xact_lock($1::bigint)", LOCK)
        server, epoch, known = await _ask(connection)
        if epoch is None or server != known:
            if epoch is not None:
                log.warning("history_changed", before=known, now=server)
            epoch = secrets.token_hex(8)
            await connection.fetch(_STORE, "epoch", epoch)
            await connection.fetch(_STORE, "history", server)
        await connection.execute("COMMIT")
    except BaseException:
        connection.terminate()
        raise
    return epoch


async def server_of(connection: Connection) -> str:
    """The server and its timeline, as they lie beside the epoch that is good for them."""
    return (await _ask(connection))[0]


async def _ask(connection: Connection) -> tuple[str, str | None, str | None]:
    """Which server on which timeline this is, and the epoch with that for which it was made."""
    try:
        # Some providers keep to themselves which server it is. To try it would end the transaction.
        told = await connection.fetchval("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
        row = await connection.fetchrow(_ASK if told else _ASK_LESS)
    except ObjectNotInPrerequisiteStateError:
        raise StandbyError("the server is a standby") from None
    return row[0], row[1], row[2]
