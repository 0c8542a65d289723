"""Brings a database to this version's schema by command, instead of by a server's start."""

from __future__ import annotations

from sqlalchemy import text

from offhook.storage.migrate import REVISION, bring_up, stored_revision
from offhook.storage.places import Place, at, opened


async def upgrade_database(place: Place) -> tuple[str | None, str]:
    """Makes or upgrades the schema, all of it or nothing.

    A SQLite file must not be in use. Servers on PostgreSQL may be; of several commands and servers that begin at once,
    one does it.

    Returns:
        The revision that the database had, None if it was empty; and the one that it has now.

    Raises:
        Conflict: the file is in use.
        IncompatibleDatabase: the database is newer than this version, or of something else.
        InvalidInput: the server cannot be used at all.
        Unavailable: it cannot be opened.
    """
    return await at(lambda: _upgrade(place))


def _upgrade(place: Place) -> tuple[str | None, str]:
    with opened(place, alone=place.path is not None, reading=False) as connection:
        if place.url is not None:
            from offhook.storage.postgres.schema import LOCK

            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        before = stored_revision(connection)
        bring_up(connection)
        return before, REVISION
