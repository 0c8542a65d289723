"""Opens the store that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from offhook.ports import Clock, Publication
from offhook.settings import Settings
from offhook.storage.measures import CommitMetrics
from offhook.storage.sqlite import SQLiteStore, database_path

if TYPE_CHECKING:
    from offhook.storage.postgres import PostgresStore


def on_postgresql(settings: Settings) -> bool:
    """Whether the database that the settings name is a PostgreSQL server's, which many processes can share."""
    return (settings.database_url or "").startswith(("postgresql://", "postgres://"))


async def open_store(
    settings: Settings,
    on_commit: Callable[[Sequence[Publication]], None],
    metrics: CommitMetrics | None = None,
    clock: Clock | None = None,
) -> SQLiteStore | PostgresStore:
    """Opens the database that the settings name.

    Store and broker need each other; what is published can wait for the broker to be there. The store's ``clock`` is
    what everything goes by::

        store = await open_store(settings, lambda publications: broker.deliver(publications))
        broker = MemoryBroker(store.journal)

    Args:
        settings: say where the database is, how durable it is and how long a history it keeps.
        on_commit: called on the event loop with what each commit published.
        metrics: where commits are measured, if anywhere.
        clock: tells the time; else the machine does, or the PostgreSQL server.

    Raises:
        InvalidInput: ``database_url`` names neither a SQLite file nor a PostgreSQL database.
        IncompatibleDatabase: the database belongs to a newer version, or is no database of Offhook.
        Unavailable: it cannot be opened.
    """
    if on_postgresql(settings):
        # Only who uses it loads it.
        from offhook.storage.postgres import PostgresStore

        return await PostgresStore.open(
            settings.database_url or "",
            on_commit,
            pool_size=settings.database_pool,
            history_size=settings.history_size,
            history_seconds=settings.history_seconds,
            clock=clock,
            metrics=metrics,
        )
    return await SQLiteStore.open(
        database_path(settings),
        on_commit,
        durability=settings.durability,
        history_size=settings.history_size,
        history_seconds=settings.history_seconds,
        clock=clock,
        metrics=metrics,
    )
