"""A bounded number of connections, with the repositories on each, handed to one unit of work after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from offhook.errors import Unavailable
from offhook.ports import Clock
from offhook.storage.history import History
from offhook.storage.postgres.driver import Connection
from offhook.storage.postgres.publishing import Publisher
from offhook.storage.postgres.rows import PostgresRows
from offhook.storage.transaction import SQLTransaction

log = structlog.get_logger(__name__)


class Link:
    """A connection with what works on it.

    Attributes:
        connection: the driver's.
        epoch: names the journal's history as it is on the server that the connection is to.
        rows: executes statements on it.
        publisher: stores what is published on it.
        begun: whether its next transaction has begun already, with the end of the last.
        changes: what a unit of work sees that may write.
        reads: what one sees that must not.
    """

    __slots__ = ("begun", "changes", "connection", "epoch", "publisher", "reads", "rows")

    def __init__(self, connection: Connection, epoch: str, clock: Clock) -> None:
        self.connection = connection
        self.epoch = epoch
        self.begun = False
        self.rows = PostgresRows(connection)
        self.publisher = Publisher(self.rows, epoch, clock)
        self.changes = SQLTransaction(self.rows, self.publisher, epoch)
        self.reads = SQLTransaction(self.rows, History(self.rows, epoch), epoch)


class Pool:
    """Links to one database.

    Args:
        connect: opens a link.
        size: links at most.
        patience: seconds to wait for a free one.
    """

    def __init__(self, connect: Callable[[], Awaitable[Link]], size: int, patience: float) -> None:
        self._connect = connect
        self._size = size
        self._patience = patience
        self._idle: list[Link] = []
        self._waiting: deque[asyncio.Future[Link | None]] = deque()
        self._open = 0
        self._closed = False

    @property
    def opened(self) -> int:
        """Connections that there are."""
        return self._open

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a link."""
        return bool(self._waiting)

    async def acquire(self, *, to_change: bool = False) -> Link:
        """A link that nobody else has.

        Args:
            to_change: whether a transaction that may write is to follow, and may have begun already.

        Raises:
            Unavailable: none became free in time, or the pool is closed.
            OSError, asyncpg.PostgresError: a connection could not be made.
        """
        link = await self._take()
        if link.begun and not to_change:
            link.begun = False
            try:
                await link.connection.execute("ROLLBACK")
            except BaseException:
                self.release(link, broken=True)
                raise
        return link

    async def _take(self) -> Link:
        if self._closed:
            raise Unavailable("The database is closed")
        while self._idle:
            link = self._idle.pop()
            if not link.connection.is_closed():
                return link
            self._open -= 1
        if self._open >= self._size:
            given = await self._wait()
            if given is not None:
                return given
        else:
            self._open += 1
        # A place is this one's now.
        try:
            return await self._connect()
        except BaseException:
            self._leave()
            raise

    def release(self, link: Link, *, broken: bool = False) -> None:
        """Gives a link back.

        Args:
            link: from ``acquire``, outside any transaction.
            broken: its connection is of no use any more.
        """
        if broken or self._closed or link.connection.is_closed():
            link.connection.terminate()
            self._leave()
            return
        waiter = self._next()
        if waiter is None:
            self._idle.append(link)
        else:
            waiter.set_result(link)

    async def close(self) -> None:
        """Closes the connections that are free; those that are not are closed as they are given back."""
        self._closed = True
        idle, self._idle = self._idle, []
        self._open -= len(idle)
        for link in idle:
            try:
                async with asyncio.timeout(2.0):
                    await link.connection.close()
            except Exception as error:
                link.connection.terminate()
                log.debug("connection_not_closed", error=str(error))

    async def _wait(self) -> Link | None:
        """Waits for a link, or for the place of one that is gone (None)."""
        waiter: asyncio.Future[Link | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._patience):
                return await waiter
        except TimeoutError:
            if waiter.done() and not waiter.cancelled():  # It came in the same moment.
                return waiter.result()
            raise Unavailable("The database cannot keep up") from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # Likewise, but nobody is left to take it.
                given = waiter.result()
                if given is None:
                    self._leave()
                else:
                    self.release(given)
            raise

    def _leave(self) -> None:
        """A place is free: whoever waits longest may make a connection of their own."""
        waiter = self._next()
        if waiter is None:
            self._open -= 1
        else:
            waiter.set_result(None)

    def _next(self) -> asyncio.Future[Link | None] | None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None
