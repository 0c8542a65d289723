"""The PostgreSQL store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar, cast

import structlog

from offhook.errors import InvalidInput, OffhookError, Unavailable
from offhook.ports import Clock, Publication, Transaction
from offhook.storage.measures import CommitMetrics
from offhook.storage.postgres.blobs import DatabaseBlobs
from offhook.storage.postgres.clock import DatabaseClock
from offhook.storage.postgres.deliveries import Deliveries
from offhook.storage.postgres.driver import connect
from offhook.storage.postgres.epoch import open_epoch
from offhook.storage.postgres.failures import failure_of
from offhook.storage.postgres.house import Housekeeper
from offhook.storage.postgres.journal import PostgresJournal
from offhook.storage.postgres.performer import QUEUE_PATIENCE, Performer
from offhook.storage.postgres.pool import Link, Pool
from offhook.storage.postgres.schema import prepare
from offhook.storage.transaction import SQLTransaction
from offhook.storage.worker import MAX_WAITING

T = TypeVar("T")

_BIND = """
INSERT INTO meta AS m (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = m.value
RETURNING value"""

log = structlog.get_logger(__name__)


class PostgresStore:
    """``ports.Store`` on a PostgreSQL database. Make it with ``PostgresStore.open``.

    Args:
        url: the database, of this version's schema.
        epoch: names the journal's history.
        on_commit: called on the event loop with what a commit published, in the order of the commits, before those who
            wait for the commit go on. It must not block.
        pool_size: connections at most.
        history_size: events to keep of each topic.
        history_seconds: how long to keep them.
        clock: tells when an event was stored.
        metrics: where commits are measured, if anywhere.
    """

    def __init__(
        self,
        url: str,
        epoch: str,
        on_commit: Callable[[Sequence[Publication]], None],
        *,
        pool_size: int,
        history_size: int,
        history_seconds: float,
        clock: Clock,
        metrics: CommitMetrics | None,
    ) -> None:
        self._url = url
        self._epoch = epoch
        self._on_commit = on_commit
        self._metrics = metrics
        self.clock = clock
        """The time that all nodes go by."""
        self._pool = Pool(self._connect, pool_size, QUEUE_PATIENCE)
        self._performer = Performer(self._pool, Deliveries(self._hand_out), self._measure)
        self._house = Housekeeper(self._pool, clock, history_size, history_seconds)
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self.journal = PostgresJournal(self._performer, lambda: self._epoch)
        """What a broker keeps in this database."""
        self.blobs = DatabaseBlobs(self._performer, clock)
        """Files, in this database."""

    @classmethod
    async def open(
        cls,
        url: str,
        on_commit: Callable[[Sequence[Publication]], None],
        *,
        pool_size: int = 10,
        history_size: int = 1000,
        history_seconds: float = 25 * 3600.0,
        clock: Clock | None = None,
        metrics: CommitMetrics | None = None,
    ) -> PostgresStore:
        """Opens the database, making its tables or bringing them to this version's schema first.

        Args:
            url: ``postgresql://user:password@host:port/name?sslmode=…``.
            on_commit: see the class.
            pool_size: connections at most.
            history_size: events to keep of each topic.
            history_seconds: how long to keep them.
            clock: the database's unless given.
            metrics: where commits are measured, if anywhere.

        Raises:
            InvalidInput: the URL is not of that form.
            IncompatibleDatabase: it belongs to a newer version, or is no database of Offhook.
            Unavailable: it cannot be opened.
        """
        own = DatabaseClock()
        try:
            connection = await connect(url)
            try:
                await prepare(url, connection)
                epoch = await open_epoch(connection)
                await own.set(connection)
            finally:
                connection.terminate()
        except OffhookError:
            raise
        except Exception as error:
            if failure_of(error) is None:
                raise
            raise Unavailable(f"The database cannot be opened: {error}") from error
        return cls(
            url,
            epoch,
            on_commit,
            pool_size=pool_size,
            history_size=history_size,
            history_seconds=history_seconds,
            clock=clock or own,
            metrics=metrics,
        )

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """As ``ports.Store`` says. The work is done even if the caller is cancelled while it waits."""
        return cast(T, await self._begin(self._performer.change, work))

    async def query(self, work: Callable[[Transaction], T]) -> T:
        """As ``ports.Store`` says.

        Raises:
            RuntimeError: ``work`` tried to write.
        """
        return cast(T, await self._begin(self._performer.read, work))

    async def bind_key(self, fingerprint: str) -> None:
        """Sees to it that all nodes of the system sign with the same key.

        Args:
            fingerprint: of this node's ``secret_key``; tells nothing of the key itself.

        Raises:
            InvalidInput: the others have another key.
            Unavailable: the database is away.
        """

        async def bind(link: Link) -> str:
            # What is stored is updated to what it is, so that it is returned.
            return str(await link.connection.fetchval(_BIND, "secret_key", fingerprint))

        if await self._performer.fetch(bind) != fingerprint:
            raise InvalidInput(
                "secret_key must be the same on every node, and the other nodes' is another", "secret_key"
            )

    async def close(self) -> None:
        """As ``ports.Store`` says."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    # --- within

    def _begin(
        self,
        perform: Callable[[Callable[[SQLTransaction], object]], Coroutine[object, object, object]],
        work: Callable[[SQLTransaction], object],
    ) -> asyncio.Future[object]:
        if self._closing is not None:
            raise Unavailable("The database is closed")
        if len(self._under_way) >= MAX_WAITING:
            raise Unavailable("The database cannot keep up")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        task = loop.create_task(_tell(future, perform(work)))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return future

    async def _connect(self) -> Link:
        connection = await connect(self._url)
        try:
            epoch = await open_epoch(connection)
        except BaseException:
            connection.terminate()
            raise
        if epoch != self._epoch:
            log.warning("epoch_changed", before=self._epoch, now=epoch)
            self._epoch = epoch
        return Link(connection, epoch, self.clock)

    def _hand_out(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            self._house.published(publication.topic, publication.position.offset)
        self._on_commit(publications)

    def _measure(self, events: int, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.commit_size.observe(1)
            self._metrics.commit_time.observe(seconds)

    async def _close(self) -> None:
        while self._under_way:
            await asyncio.wait(self._under_way)
        await self._house.close()
        await self._pool.close()


async def _tell(future: asyncio.Future[object], outcome: Coroutine[object, object, object]) -> None:
    """Tells whoever waits, unless they were cancelled."""
    try:
        result = await outcome
    except BaseException as error:
        if not future.done():
            # A future cannot carry it.
            stopped = isinstance(error, StopIteration)
            future.set_exception(RuntimeError(f"a unit of work raised {error!r}") if stopped else error)
        return
    if not future.done():
        future.set_result(result)
