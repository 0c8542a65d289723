"""The SQLite store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import structlog
from sqlalchemy import URL, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from offhook.domain.events import Topic
from offhook.errors import InvalidInput, Unavailable
from offhook.ports import Clock, Publication, Transaction
from offhook.settings import Settings
from offhook.storage.connection import Durability, connect_reader, connect_writer, make_private
from offhook.storage.epoch import closed_cleanly, open_epoch
from offhook.storage.history import Recorded
from offhook.storage.measures import CommitMetrics
from offhook.storage.migrate import migrate
from offhook.storage.reader import Reader
from offhook.storage.transaction import SQLTransaction
from offhook.storage.worker import Batch, Lane, settle
from offhook.storage.writer import Writer

T = TypeVar("T")

log = structlog.get_logger(__name__)


class UtcClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SQLiteStore:
    """``ports.Store`` on a SQLite file. Make it with ``SQLiteStore.open``.

    Args:
        path: the database, of this version's schema.
        epoch: names the journal's history.
        on_commit: called on the event loop with what a commit published, in order, before those who wait for the
            commit go on. It must not block.
        durability: what survives what; see ``connection.Durability``.
        history_size: events to keep of each topic.
        history_seconds: how long to keep them.
        clock: tells when an event was stored.
        metrics: where commits are measured, if anywhere.
        readers: threads for queries.
    """

    def __init__(
        self,
        path: Path,
        epoch: str,
        on_commit: Callable[[Sequence[Publication]], None],
        *,
        durability: Durability,
        history_size: int,
        history_seconds: float,
        clock: Clock,
        metrics: CommitMetrics | None,
        readers: int,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._path = path
        self._on_commit = on_commit
        self._metrics = metrics
        writer = Writer(partial(connect_writer, path, durability), epoch, clock, history_size, history_seconds)
        reading = [Reader(partial(connect_reader, path), epoch) for _ in range(readers)]
        self._writing = Lane(loop, "writer", [writer], self._settle)
        self._reading = Lane(loop, "reader", reading, self._settle)
        self._closed = False
        self.clock = clock
        """The time that the system goes by."""
        self.journal = SQLiteJournal(epoch, self._reading, self._writing, writer.newest, clock)
        """What the in-process broker keeps in this database."""

    @classmethod
    async def open(
        cls,
        path: Path,
        on_commit: Callable[[Sequence[Publication]], None],
        *,
        durability: Durability = "full",
        history_size: int = 1000,
        history_seconds: float = 25 * 3600.0,
        clock: Clock | None = None,
        metrics: CommitMetrics | None = None,
        readers: int = 2,
    ) -> SQLiteStore:
        """Opens the database, making it or bringing it to this version's schema first.

        Raises:
            IncompatibleDatabase: it belongs to a newer version, or is no database of Offhook.
            Unavailable: it cannot be opened.
        """
        epoch = await asyncio.to_thread(_prepare, path, durability)
        return cls(
            path,
            epoch,
            on_commit,
            durability=durability,
            history_size=history_size,
            history_seconds=history_seconds,
            clock=clock or UtcClock(),
            metrics=metrics,
            readers=readers,
        )

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """As ``ports.Store`` says. The work is done even if the caller is cancelled while it waits."""
        return cast(T, await self._writing.put(work))

    async def query(self, work: Callable[[Transaction], T]) -> T:
        """As ``ports.Store`` says.

        Raises:
            RuntimeError: ``work`` tried to write.
        """
        return cast(T, await self._reading.put(work))

    async def close(self) -> None:
        """As ``ports.Store`` says."""
        await self._reading.close()
        await self._writing.close()
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(_finish, self._path)

    def _settle(self, batch: Batch) -> None:
        if batch.publications:
            try:
                self._on_commit(batch.publications)
            except Exception:
                log.exception("delivery_failed", publications=len(batch.publications))
        settle(batch.units)
        if self._metrics is not None and batch.commit_seconds is not None:
            self._metrics.commit_size.observe(len(batch.units))
            self._metrics.commit_time.observe(batch.commit_seconds)


class SQLiteJournal:
    """What the in-process broker keeps in the store's database. Every method raises Unavailable if that is away.

    Args:
        epoch: names the history; stays as long as the database does.
        reading: the store's lane of queries.
        writing: the store's lane of changes.
        newest: what the writer knows of a topic's last offset.
        clock: tells when a lease runs out.
    """

    def __init__(
        self, epoch: str, reading: Lane, writing: Lane, newest: Callable[[Topic], int | None], clock: Clock
    ) -> None:
        self.epoch = epoch
        self.newest = newest
        """Offset of the last event that is or is about to be stored, if that is known without looking."""
        self._reading = reading
        self._writing = writing
        self._clock = clock

    async def head(self, topic: Topic) -> int:
        """Offset of the topic's last event, 0 if it has none."""
        return await self._query(lambda tx: tx.history.offset(topic))

    async def heads(self, topics: Sequence[Topic]) -> Mapping[Topic, int]:
        """Offsets of the last events of many topics; 0 for those that have none."""
        return await self._query(lambda tx: {topic: tx.history.offset(topic) for topic in topics})

    async def oldest(self, topic: Topic) -> int:
        """Offset of the oldest event that is kept, or one beyond the last."""
        return await self._query(lambda tx: tx.history.oldest(topic))

    async def read(self, topic: Topic, after: int, limit: int) -> Recorded:
        """At most ``limit`` events after an offset, and the bounds of what there is."""
        return await self._query(lambda tx: tx.history.read(topic, after, limit))

    async def acquire_lease(self, name: str, holder: str, ttl: float) -> bool:
        """Takes or renews a lease for ``ttl`` seconds. Returns False, changing nothing, while another holds it."""
        now = self._clock.now()
        until = now + timedelta(seconds=ttl)
        return cast(bool, await self._writing.put(lambda tx: tx.leases.acquire(name, holder, now, until)))

    async def release_lease(self, name: str, holder: str) -> None:
        """Gives a lease back, if ``holder`` has it."""
        await self._writing.put(lambda tx: tx.leases.release(name, holder))

    async def lease_holder(self, name: str) -> str | None:
        """Who holds the lease now."""
        now = self._clock.now()
        return await self._query(lambda tx: tx.leases.holder(name, now))

    async def _query(self, work: Callable[[SQLTransaction], T]) -> T:
        return cast(T, await self._reading.put(work))


def database_path(settings: Settings) -> Path:
    """The SQLite file that the settings name.

    Raises:
        InvalidInput: ``database_url`` names no SQLite file.
    """
    if settings.database_url is None:
        return settings.sqlite_path
    try:
        url = make_url(settings.database_url)
    except ArgumentError as error:
        raise InvalidInput("database_url is not a URL", "database_url") from error
    if url.drivername != "sqlite" or url.database in (None, "", ":memory:") or url.query:
        raise InvalidInput("database_url must be like sqlite:///path/to/file", "database_url")
    return Path(str(url.database))


def _prepare(path: Path, durability: Durability) -> str:
    """Brings the database to this version's schema. Returns the journal's epoch."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_private(path)
        migrate(create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool))
        with closing(connect_writer(path, "full")) as connection:
            return open_epoch(connection, durability)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"The database {path} cannot be opened: {error}") from error


def _finish(path: Path) -> None:
    try:
        with closing(connect_writer(path, "full")) as connection:
            closed_cleanly(connection)
    except sqlite3.Error:
        log.exception("close_failed")
