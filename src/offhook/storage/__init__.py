"""Durable state in a relational database: Core tables and queries, migrations, and the stores.

::

    open_store ──► SQLiteStore ──► one writer thread   (writer.py: group commit)
        │               │     └──► a few reader threads (reader.py: snapshots)
        │               └──► journal ──► the in-process broker
        └────────► PostgresStore   (postgres/)

A unit of work sees a ``SQLTransaction``, whose repositories (applications.py, users.py, sessions.py,
subscriptions.py, messages.py, tokens.py) execute Core statements that are compiled once (statements.py), on SQLite
(sqlite_rows.py) or PostgreSQL (postgres/rows.py).
"""

from __future__ import annotations

from offhook.storage.lock import DataLock
from offhook.storage.migrate import IncompatibleDatabase
from offhook.storage.opening import on_postgresql, open_store
from offhook.storage.sqlite import SQLiteStore

__all__ = ["DataLock", "IncompatibleDatabase", "SQLiteStore", "on_postgresql", "open_store"]
