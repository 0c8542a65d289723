"""The PostgreSQL store: many processes, on many machines, on one database.

::

    open_postgres ──► PostgresStore ──► Pool ──► Link: a connection with the repositories on it
                           │       └──► Performer: a unit of work in a greenlet, run again where that helps
                           ├──► PostgresJournal ──► the broker
                           └──► Housekeeper: one node at a time prunes
"""

from __future__ import annotations

from offhook.storage.postgres.clock import DatabaseClock
from offhook.storage.postgres.journal import PostgresJournal
from offhook.storage.postgres.store import PostgresStore

__all__ = ["DatabaseClock", "PostgresJournal", "PostgresStore"]
